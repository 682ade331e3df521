"""`orchestrator dev` as a person uses it: as a command, with signals, and with everything real behind it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from orchestrator.local.dev import _stop
from orchestrator.local.dev_parts import DevParts
from orchestrator.local.interrupts import Interrupts
from orchestrator.local.ports import free_port_from

pytestmark = pytest.mark.on_linux

_START_SECONDS = 60.0  # takes 3 s on an idle machine
_STOP_SECONDS = 10.0  # the promise
_CLEARED = ("DATABASE_URL", "CLOUDFLARE_", "R2_", "API_TOKENS", "HOST", "PORT")


class Dev:
    """A running `orchestrator dev`; its output is read line by line."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self.directory = directory
        self.port = free_port_from("127.0.0.1", 20_000 + secrets.randbelow(10_000), ())
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
        command = [sys.executable, "-m", "orchestrator", "dev", "--data-dir", str(directory / "data")]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=inherited | environment,
            cwd=directory,
            text=True,
        )
        self.lines: list[str] = []

    def until(self, text: str) -> str:
        """The first line to come with *text* in it. The limit is kept by a timer that kills."""
        assert self._process.stdout is not None
        limit = threading.Timer(_START_SECONDS, self._process.kill)
        limit.start()
        try:
            for line in self._process.stdout:
                self.lines.append(line)
                if text in line:
                    return line
        finally:
            limit.cancel()
        pytest.fail(f"ended without {text!r}:\n{''.join(self.lines)}")

    def up(self) -> Dev:
        self.until("Ctrl-C stops it")
        return self

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, limit_seconds: float = _START_SECONDS) -> int:
        """The exit code; everything written up to there is in `lines`."""
        said, _ = self._process.communicate(timeout=limit_seconds)
        self.lines += said.splitlines(keepends=True)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=_STOP_SECONDS)


@pytest.fixture
def dev(open_directory: Path) -> Iterator[Callable[..., Dev]]:
    """Starts `orchestrator dev` in one directory; whatever still runs at the end is killed."""
    running: list[Dev] = []

    def start(*arguments: str, **environment: str) -> Dev:
        running.append(Dev(open_directory, *arguments, **environment))
        return running[-1]

    yield start
    for each in running:
        each.kill()


def arguments_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def wait_until_none(pids: Callable[[], list[int]]) -> None:
    ends_at = time.monotonic() + _STOP_SECONDS
    while pids():
        assert time.monotonic() < ends_at, "processes were left behind"
        time.sleep(0.05)


def test_it_serves_keeps_its_secrets_refuses_a_second_mends_itself_and_stops_without_a_trace(
    dev: Callable[..., Dev], open_directory: Path, pids_naming: Callable[[Path], list[int]]
) -> None:
    first = dev().up()
    assert urlopen(f"http://127.0.0.1:{first.port}/readyz", timeout=5).status == 200
    assert any(f"http://127.0.0.1:{first.port}" in line for line in first.lines)

    state = open_directory / "data" / "state.json"
    assert state.stat().st_mode & 0o777 == 0o600
    drawn = json.loads(state.read_text())
    hidden = [drawn[name] for name in ("api_token", "webhook_secret", "access_key_id", "secret_access_key")]
    assert not any(secret in line for line in first.lines for secret in hidden)

    second = dev()
    assert second.end() == 2
    assert "--data-dir" in second.lines[-1]

    web = [pid for pid in pids_naming(open_directory) if arguments_of(pid)[-2:] == ["orchestrator", "serve"]]
    assert len(web) == 1
    os.kill(web[0], signal.SIGKILL)
    assert "started again" in first.until("web ended")
    first.until("the web process listens")

    asked_at = time.monotonic()
    first.signal(signal.SIGINT)
    assert first.end(_STOP_SECONDS) == 0
    assert time.monotonic() - asked_at < _STOP_SECONDS
    assert pids_naming(open_directory) == []


def test_killed_it_leaves_no_process_behind_and_the_next_start_finds_everything(
    dev: Callable[..., Dev], open_directory: Path, pids_naming: Callable[[Path], list[int]]
) -> None:
    first = dev().up()
    before = json.loads((open_directory / "data" / "state.json").read_text())
    assert len(pids_naming(open_directory)) >= 6
    first.kill()
    wait_until_none(lambda: pids_naming(open_directory))
    second = dev().up()
    assert json.loads((open_directory / "data" / "state.json").read_text()) == before
    second.signal(signal.SIGTERM)
    assert second.end(_STOP_SECONDS) == 0


def test_asked_to_stop_while_it_starts_it_stops(
    dev: Callable[..., Dev], open_directory: Path, pids_naming: Callable[[Path], list[int]]
) -> None:
    starting = dev()
    starting.until("starting stream and bucket")
    starting.signal(signal.SIGINT)
    assert starting.end(_STOP_SECONDS) == 0
    assert pids_naming(open_directory) == []


def test_a_busy_port_is_named_with_a_remedy(dev: Callable[..., Dev]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = dev("--port", str(port))
        assert refused.end() == 2
    assert str(port) in refused.lines[-1]
    assert "--port" in refused.lines[-1]


def test_what_the_environment_names_is_used_and_its_faults_end_it(
    dev: Callable[..., Dev], open_directory: Path, pids_naming: Callable[[Path], list[int]]
) -> None:
    refused = dev(CLOUDFLARE_API_TOKEN="a-token-of-somebody")
    assert refused.end() == 2
    said = "".join(refused.lines)
    assert "CLOUDFLARE_API_TOKEN is set" in said
    assert "CLOUDFLARE_ACCOUNT_ID: is not set" in said
    assert "a-token-of-somebody" not in said
    assert pids_naming(open_directory) == []


class HangingParts:
    """Parts whose orderly stop never ends."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.killed = False

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.Event().wait()

    def kill(self) -> None:
        self.killed = True


async def test_asked_twice_it_waits_for_nothing() -> None:
    parts = HangingParts()
    with Interrupts() as interrupts:
        interrupts.ask()
        stopping = asyncio.create_task(_stop(parts, interrupts))  # type: ignore[arg-type]
        async with asyncio.timeout(_STOP_SECONDS):
            await parts.stopping.wait()
            assert not parts.killed
            interrupts.ask()
            await stopping
    assert parts.killed


def test_the_parts_have_what_the_fake_has() -> None:
    assert {"stop", "kill"} <= set(dir(DevParts))
