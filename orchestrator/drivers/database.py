"""The database as effects meet it: one that is away is a failure like any other driver's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from orchestrator.drivers.errors import DatabaseAwayError
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY


@asynccontextmanager
async def connection_of(
    pool: asyncpg.Pool, timeout_seconds: float = ACQUIRE_TIMEOUT_SECONDS
) -> AsyncIterator[asyncpg.Connection]:
    """A connection for the length of a block in which nothing but the database is asked.

    Raises:
        DatabaseAwayError: it was away, or did not answer in time; what was asked of it may have been done.
    """
    try:
        async with pool.acquire(timeout=timeout_seconds) as connection:
            yield connection
    except DATABASE_AWAY as exc:
        raise DatabaseAwayError from exc
