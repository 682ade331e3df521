"""Wake-ups: many asked for, few sent, and losing one costs nothing."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from signals import WAKE_CHANNEL, WakeUps, wake

LIMIT_SECONDS = 10


class Line:
    """Where hints are sent; it can be held up and cut."""

    def __init__(self) -> None:
        self.sent = 0
        self.problem: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.arrived = asyncio.Event()

    async def send(self) -> None:
        self.arrived.set()
        await self.free.wait()
        if self.problem is not None:
            raise self.problem
        self.sent += 1


async def test_a_burst_becomes_one_hint() -> None:
    line = Line()
    wakeups = WakeUps(line.send)
    for _ in range(1000):
        wakeups.wake()
    await wakeups.close()
    assert line.sent == 1


async def test_what_is_asked_while_a_hint_is_on_its_way_is_hinted_at_afterwards() -> None:
    """Else a signal committed after the hint was taken would wait for the sweep."""
    line = Line()
    line.free.clear()
    wakeups = WakeUps(line.send)
    wakeups.wake()
    await asyncio.wait_for(line.arrived.wait(), LIMIT_SECONDS)
    wakeups.wake()
    line.free.set()
    await wakeups.close()
    assert line.sent == 2


@pytest.mark.parametrize(
    "problem",
    [
        OSError("cut"),
        TimeoutError(),
        asyncpg.InterfaceError("closed"),
        asyncpg.InternalClientError("odd"),
        asyncpg.AdminShutdownError("bye"),
    ],
    ids=lambda problem: type(problem).__name__,
)
async def test_a_lost_hint_is_nobodys_problem_and_the_next_one_goes_out(problem: Exception) -> None:
    line = Line()
    wakeups = WakeUps(line.send)
    line.problem = problem
    wakeups.wake()
    await wakeups.close()
    assert line.sent == 0
    line.problem = None
    wakeups.wake()
    await wakeups.close()
    assert line.sent == 1


async def test_closing_does_not_wait_for_a_dead_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real_wait = asyncio.wait
    limits = []

    async def hurried(tasks, timeout):
        limits.append(timeout)
        return await real_wait(tasks, timeout=0.01)

    monkeypatch.setattr("signals.wakeups.asyncio.wait", hurried)
    line = Line()
    line.free.clear()
    wakeups = WakeUps(line.send)
    wakeups.wake()
    await asyncio.wait_for(line.arrived.wait(), LIMIT_SECONDS)
    await wakeups.close()
    assert limits == [1]
    await WakeUps(line.send).close()


async def test_a_hint_reaches_who_listens(database: str, service: asyncpg.Connection) -> None:
    listener = await asyncpg.connect(database)
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    await listener.add_listener(WAKE_CHANNEL, lambda _c, _p, channel, payload: heard.put_nowait((channel, payload)))
    await wake(service)
    assert await asyncio.wait_for(heard.get(), LIMIT_SECONDS) == (WAKE_CHANNEL, "")
    await listener.close()
