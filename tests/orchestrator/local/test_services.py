from __future__ import annotations

import asyncio

import pytest

from orchestrator.local import services
from orchestrator.local.errors import KeepsEnding, NotInstalled, ProgramUnavailable
from orchestrator.local.services import keep_running, pause_before_restart


class Scripted:
    """A service that follows a script, one word a start: "runs", "ends", "fails", "missing" or "wrong settings"."""

    name = "scripted"

    def __init__(self, *script: str) -> None:
        self._script = list(script)
        self.starts = 0
        self.stops = 0
        self.is_running = False
        self.exit_code: int | None = None
        self.reached_the_end = asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        step = self._script.pop(0)
        if not self._script:
            self.reached_the_end.set()
        self.is_running = step == "runs"
        self.exit_code = 2 if step == "wrong settings" else None
        if step == "missing":
            raise NotInstalled("it is not there")
        if step == "fails":
            raise ProgramUnavailable("it does not start")

    async def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        self.is_running = False

    def last_words(self) -> str:
        return "its last words"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(services, "_POLL_SECONDS", 0.0)


@pytest.mark.usefixtures("no_pauses")
async def test_what_ends_is_started_again_and_it_is_said() -> None:
    service, said, ready = Scripted("ends", "fails", "runs"), [], asyncio.Event()
    keeping = asyncio.create_task(keep_running(service, ready, said.append))
    async with asyncio.timeout(10):
        await service.reached_the_end.wait()
    assert ready.is_set()
    assert service.stops == 2
    assert ["its last words" in said[0], "it does not start" in said[1]] == [True, True]
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


@pytest.mark.usefixtures("no_pauses")
async def test_ready_means_started() -> None:
    service, ready = Scripted(*["fails"] * 6), asyncio.Event()
    with pytest.raises(KeepsEnding):
        await keep_running(service, ready, print)
    assert not ready.is_set()


@pytest.mark.usefixtures("no_pauses")
async def test_the_sixth_end_in_a_row_is_the_last() -> None:
    service = Scripted(*["ends"] * 7)
    with pytest.raises(KeepsEnding, match="6 times in a row: its last words"):
        await keep_running(service, asyncio.Event(), lambda line: None)
    assert service.starts == 6


@pytest.mark.usefixtures("no_pauses")
async def test_a_long_run_begins_the_count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_HEALTHY_SECONDS", 0.0)
    service = Scripted(*["ends"] * 12, "runs")
    keeping = asyncio.create_task(keep_running(service, asyncio.Event(), lambda line: None))
    async with asyncio.timeout(10):
        await service.reached_the_end.wait()
    assert service.starts == 13
    keeping.cancel()


async def test_what_is_not_installed_is_not_tried_twice() -> None:
    service = Scripted("missing", "runs")
    with pytest.raises(NotInstalled):
        await keep_running(service, asyncio.Event(), print)
    assert service.starts == 1


async def test_wrong_settings_are_not_tried_twice() -> None:
    service = Scripted("wrong settings", "runs")
    with pytest.raises(KeepsEnding) as refused:
        await keep_running(service, asyncio.Event(), lambda line: None)
    assert refused.value.wrong_settings
    assert service.starts == 1


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    assert [pause_before_restart(ends) for ends in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
