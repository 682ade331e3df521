"""A leader's pool and its term, on the database of the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from orchestrator.monitor.leadership import Lease, Term
from orchestrator.storage.pool import create_pool


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    """The pool of a monitor or a worker: both act in the same role."""
    pool = await create_pool(database, "orchestrator_monitor", "test pool", max_size=12)
    yield pool
    await asyncio.wait_for(pool.close(), 10)


@pytest.fixture
async def term(pool: asyncpg.Pool) -> Term:
    """The term of a leader, as long as a lease lasts."""
    term = await Lease(pool, time.monotonic).take()
    assert term is not None
    return term
