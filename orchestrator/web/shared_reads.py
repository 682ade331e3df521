"""Reads that share a statement: those that come while one is under way are answered together by the next one.

Whoever polls asks for one row by its id, and one more id in a statement costs a fraction of a round trip. A lonely read
goes at once. What a caller is told was read after he asked, so nobody sees less than he has already seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

import asyncpg
import structlog
from aiohttp import web

from orchestrator.storage.clips import Standing
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from orchestrator.web.sharing import TooManyWaiting, fail

Row = TypeVar("Row")
ReadByIds: TypeAlias = Callable[[asyncpg.Connection, Sequence[str]], Awaitable[Mapping[str, Row]]]

# Half a second of what one process takes at its best; more is not caught up with before callers give up.
WAITING_MAX = 2_000
# More ids no longer make it cheaper, and each of them waits for the last.
TOGETHER_MAX = 100
# A read takes a millisecond. One that lasts a quarter of a second met a line that is silent, and may hold up nobody but
# those in it: others go by another connection, up to these of the pool's ten.
_SLOW_SECONDS = 0.25
READERS_MAX = 3


class SharedReads(Generic[Row]):
    """Reads of one kind in one process; *read* gives what it finds, by id."""

    def __init__(self, pool: asyncpg.Pool, read: ReadByIds[Row]) -> None:
        self._pool = pool
        self._read = read
        self._waiting: list[tuple[str, asyncio.Future[Row | None]]] = []
        self._readers: set[asyncio.Task[None]] = set()
        self._began_at = 0.0

    async def get(self, clip_id: str) -> Row | None:
        """What is found of *clip_id* from now on; None when there is no such clip.

        Raises:
            TooManyWaiting: come again later.
            TimeoutError: no connection came free.
            asyncpg.PostgresError, OSError: the database is away.
        """
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= WAITING_MAX:
            raise TooManyWaiting
        outcome: asyncio.Future[Row | None] = loop.create_future()
        self._waiting.append((clip_id, outcome))
        # One that has just ended is still among them when those it has answered go on.
        at_work = sum(not reader.done() for reader in self._readers)
        is_slow = loop.time() - self._began_at > _SLOW_SECONDS
        if not at_work or (is_slow and at_work < READERS_MAX):
            self._began_at = loop.time()
            reader = asyncio.create_task(self._answer(), name="shared-reads")
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        return await outcome

    async def close(self) -> None:
        """Stop reading; whoever still waits is told that it was cancelled."""
        readers = list(self._readers)
        for reader in readers:
            reader.cancel()
        fail([outcome for _, outcome in self._waiting], asyncio.CancelledError())
        await asyncio.gather(*readers, return_exceptions=True)

    async def _answer(self) -> None:
        """Answer those who wait, one statement after the other, until nobody does."""
        structlog.contextvars.clear_contextvars()  # it is nobody's call in particular
        while self._waiting:
            batch: list[tuple[str, asyncio.Future[Row | None]]] = []
            try:
                async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                    self._began_at = asyncio.get_running_loop().time()
                    batch = self._taken(TOGETHER_MAX)
                    found = await self._read(connection, list({clip_id for clip_id, _ in batch}))
            except BaseException as problem:
                fail([outcome for _, outcome in batch or self._taken(TOGETHER_MAX)], problem)
                if not isinstance(problem, Exception):
                    raise
                continue
            for clip_id, outcome in batch:
                if not outcome.done():
                    outcome.set_result(found.get(clip_id))

    def _taken(self, count: int) -> list[tuple[str, asyncio.Future[Row | None]]]:
        """The first *count* of those who wait and have not gone."""
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return [one for one in taken if not one[1].done()]


STANDINGS: web.AppKey[SharedReads[Standing]] = web.AppKey("standings", SharedReads)
VERSIONS: web.AppKey[SharedReads[int]] = web.AppKey("versions", SharedReads)
