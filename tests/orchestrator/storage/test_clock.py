"""The database's time, whatever the machine's own clock says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.storage import clock as clock_module
from orchestrator.storage.clock import DatabaseClock
from orchestrator.storage.pool import create_pool

LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)


class OtherTime:
    """A pool whose database lives in another time, and is away now and then."""

    def __init__(self) -> None:
        self.now = LONG_AGO
        self.is_away = False
        self.asked = 0

    @asynccontextmanager
    async def acquire(self, **_: float) -> AsyncIterator[OtherTime]:
        yield self

    async def fetchval(self, _: str) -> datetime:
        self.asked += 1
        if self.is_away:
            raise ConnectionError
        return self.now


async def test_it_is_the_databases_time_and_goes_on_by_the_monotonic_clock() -> None:
    pool, seconds = OtherTime(), [100.0]
    clock = DatabaseClock(pool, lambda: seconds[0])  # type: ignore[arg-type]
    await clock.ask()
    assert clock() == LONG_AGO
    seconds[0] += 90
    assert clock() == LONG_AGO + timedelta(seconds=90)
    pool.now -= timedelta(days=1)
    await clock.ask()
    assert clock() == LONG_AGO - timedelta(days=1)


async def test_it_is_set_before_it_is_told_and_outlives_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one clip is judged by the machine's own clock."""
    monkeypatch.setattr(clock_module, "PERIOD_SECONDS", 0.01)
    pool = OtherTime()
    with pytest.raises(RuntimeError):
        DatabaseClock(pool)()  # type: ignore[arg-type]
    async with asyncio.timeout(10), DatabaseClock(pool).kept() as clock:  # type: ignore[arg-type]
        assert clock().year == LONG_AGO.year
        pool.is_away = True
        asked = pool.asked
        while pool.asked < asked + 3:
            await asyncio.sleep(0.01)
        assert clock().year == LONG_AGO.year
        pool.now, pool.is_away = LONG_AGO.replace(year=2002), False
        while clock().year != 2002:
            await asyncio.sleep(0.01)


async def test_what_is_due_now_is_due_for_the_database(database: str) -> None:
    pool = await create_pool(database, "orchestrator_monitor", "test clock")
    try:
        clock = DatabaseClock(pool)
        await clock.ask()
        told = clock()
        now = await pool.fetchval("SELECT clock_timestamp()")
        assert told <= now < told + timedelta(seconds=10)
    finally:
        await asyncio.wait_for(pool.close(), 10)
