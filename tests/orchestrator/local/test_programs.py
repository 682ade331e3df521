from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.local import programs
from orchestrator.local.errors import ProgramUnavailable
from orchestrator.local.programs import Program, ProgramPlan

_LIMIT_SECONDS = 20.0


class Screen:
    """Remembers what was shown; `until` waits for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def show(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._changed.set()

    async def until(self, line: str) -> None:
        async with asyncio.timeout(_LIMIT_SECONDS):
            while all(shown != line for _, shown in self.lines):
                self._changed.clear()
                await self._changed.wait()


def program(screen: Screen, code: str, **settings: str | None) -> Program:
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    plan = ProgramPlan("trial", ["-c", code], environment, Path.cwd(), 5.0, **settings)
    return Program(plan, screen.show)


async def test_its_output_is_shown_under_its_name_line_by_line() -> None:
    screen = Screen()
    trial = program(screen, "import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('unfinished')")
    await trial.start()
    await screen.until("unfinished")
    assert screen.lines == [("trial", "one"), ("trial", "two"), ("trial", "unfinished")]
    await trial.stop()


async def test_a_line_without_end_is_shown_in_pieces() -> None:
    screen = Screen()
    trial = program(screen, "print('x' * 300_000)")
    await trial.start()
    async with asyncio.timeout(_LIMIT_SECONDS):
        while sum(len(line) for _, line in screen.lines) < 300_000:
            await asyncio.sleep(0.01)
    assert len(screen.lines) > 1
    await trial.stop()


async def test_stop_asks_first_and_waits() -> None:
    screen = Screen()
    code = "import signal, sys, time\n"
    code += "signal.signal(signal.SIGTERM, lambda *_: (print('goodbye'), sys.exit(0)))\nprint('up')\ntime.sleep(60)"
    trial = program(screen, code)
    await trial.start()
    await screen.until("up")
    await trial.stop()
    assert screen.lines[-1] == ("trial", "goodbye")
    assert (trial.is_running, trial.exit_code) == (False, 0)


async def test_the_way_it_ended_and_its_last_lines_are_kept() -> None:
    screen = Screen()
    trial = program(screen, "import sys; print('no such table'); sys.exit(3)")
    await trial.start()
    async with asyncio.timeout(_LIMIT_SECONDS):
        while trial.is_running:
            await asyncio.sleep(0.01)
    await trial.stop()
    assert trial.last_words() == "exit code 3 / no such table"


async def test_an_end_by_signal_is_named() -> None:
    screen = Screen()
    trial = program(screen, "print('up'); import time; time.sleep(60)")
    await trial.start()
    await screen.until("up")
    trial.kill()
    await trial.stop()
    assert trial.last_words() == "ended by SIGKILL / up"
    assert trial.exit_code == -signal.SIGKILL


async def test_it_is_ready_when_its_address_answers_without_a_server_error() -> None:
    statuses = iter([503, 503, 200])

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=next(statuses))

    app = web.Application()
    app.router.add_get("/readyz", answer)
    async with TestServer(app) as server:
        trial = program(Screen(), "import time; time.sleep(60)", ready_url=str(server.make_url("/readyz")))
        await trial.start()
        assert list(statuses) == []
        await trial.stop()


async def test_an_end_before_it_is_ready_says_why() -> None:
    trial = program(Screen(), "raise SystemExit('the port is taken')", ready_url="http://127.0.0.1:9/")
    with pytest.raises(ProgramUnavailable, match="exit code 1 / the port is taken"):
        await trial.start()
    await trial.stop()


async def test_waiting_for_it_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_READY_SECONDS", 0.2)
    trial = program(Screen(), "import time; time.sleep(60)", ready_url="http://127.0.0.1:9/")
    with pytest.raises(ProgramUnavailable, match="not ready"):
        await trial.start()
    await trial.stop()
    assert not trial.is_running
