"""The time by the database's clock.

Times in rows are the database's. Whoever compares them with a clock of his own puts a clip off for an hour, or fails
it for having stood too long, as soon as his machine's clock is wrong. This one asks the database now and then and
counts on by the monotonic clock, so that it neither jumps with the machine nor stops while the database is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg

from orchestrator.beside import rounds_beside
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY

# Two clocks drift apart by a millisecond in that time; a clock that was set is followed as soon.
PERIOD_SECONDS = 10.0


class DatabaseClock:
    """Called, it tells the database's time, never ahead of it by more than two clocks drift apart in a period."""

    def __init__(self, pool: asyncpg.Pool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._monotonic = monotonic
        self._told: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._told is None:
            raise RuntimeError("the clock was not set; what is judged by the machine's own may be hours off")
        at, since = self._told
        return at + timedelta(seconds=self._monotonic() - since)

    async def ask(self) -> None:
        """Set it by the database. Raises as the pool does."""
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            at = await connection.fetchval("SELECT clock_timestamp()")
        # Counted from the answer: a moment behind does no harm, while what is due "now" by a clock that is ahead is
        # not yet due for the database.
        self._told = at, self._monotonic()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[DatabaseClock]:
        """The clock, set now and again and again until the block ends. Raises as the pool does."""
        await self.ask()
        async with rounds_beside("database clock", self._wait_and_ask):
            yield self

    async def _wait_and_ask(self) -> None:
        await asyncio.sleep(PERIOD_SECONDS)
        with contextlib.suppress(*DATABASE_AWAY):  # the monotonic clock goes on meanwhile
            await self.ask()
