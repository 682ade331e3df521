"""Between the loss of a listening connection and the next one: it listens first, and sweeps second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from orchestrator.monitor import loop
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.storage.pool import connect
from signals import signal_status_update, wake

# Round trips of another session: whoever was woken before them has swept by their end.
LONG_ENOUGH = 50


class Gap:
    """A connection on which something happens before it listens."""

    def __init__(self, connection: asyncpg.Connection, happens: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        await self._happens()
        await self._connection.add_listener(channel, callback)


async def test_what_is_signalled_just_before_it_listens_is_found_by_the_sweep_after(
    database: str, pool: asyncpg.Pool, owner: asyncpg.Connection, api: asyncpg.Connection, stand, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "SWEEP_SECONDS", 1000.0)  # nothing but the listener wakes the drainer
    await stand("a", look_at=await owner.fetchval("SELECT clock_timestamp() + interval '1 hour'"))

    async def ask() -> None:
        for _ in range(LONG_ENOUGH):
            await owner.fetchval("SELECT 1")
        await signal_status_update(api, "a", "error", {"error_message": "asked in the gap"}, "test")
        await wake(api)  # nobody hears it yet

    async def listening() -> Any:
        return Gap(await connect(database, "orchestrator_monitor", "test listener"), ask)

    stop = asyncio.Event()
    running = asyncio.create_task(Monitor(MonitorParts(pool, listening, {}, {})).run(stop))
    try:
        deadline = time.monotonic() + 5
        while await owner.fetchval("SELECT status FROM clips WHERE id = 'a'") != "error":
            assert time.monotonic() < deadline, "the signal was never judged"
    finally:
        stop.set()
        await asyncio.wait([running], timeout=10)
