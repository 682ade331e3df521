"""A monitor whose database has gone without a word gives way all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.storage.pool import connect

LIMIT_SECONDS = 10.0


class SilentListener:
    """A connection that works until it is closed: then its peer has gone, and the goodbye is never answered."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def close(self, timeout: float) -> None:
        self._connection.terminate()
        raise TimeoutError


@pytest.mark.parametrize("because", ["it is stopped", "another leads"])
async def test_it_gives_way_though_its_listener_cannot_say_goodbye(
    database: str, pool: asyncpg.Pool, owner: asyncpg.Connection, because: str
) -> None:
    listening = asyncio.Event()

    async def listener() -> SilentListener:
        connection = await connect(database, "orchestrator_monitor", "test listener")
        listening.set()
        return SilentListener(connection)

    stop = asyncio.Event()
    monitor = asyncio.create_task(Monitor(MonitorParts(pool, listener, {}, {})).run(stop))
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await listening.wait()
            if because == "another leads":
                # Free at once, so that who has given way can be seen to lead again, in a term of its own.
                await owner.execute(
                    "UPDATE monitor_lease SET holder = 'another', epoch = epoch + 1, expires_at = '-infinity'"
                )
                while await owner.fetchval("SELECT epoch FROM monitor_lease") < 3:
                    await asyncio.sleep(0.02)
            stop.set()
            await monitor
    finally:
        while not monitor.done():  # where the promise is broken, one cancellation is not enough
            monitor.cancel()
            await asyncio.wait({monitor}, timeout=0.5)
