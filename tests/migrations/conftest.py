"""Connections in each role, and a way to put a clip at any status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from orchestrator.storage.pool import connect
from statusutils import ERROR, STREAM

Reach = Callable[..., Awaitable[str]]


@pytest.fixture
def database(emptied_database: str) -> str:
    """Those of one file share one, emptied before each."""
    return emptied_database


@pytest.fixture
async def acting(database: str, role: str | None) -> AsyncIterator[asyncpg.Connection]:
    """A connection in the role that the test is parametrized with."""
    connection = await connect(database, role, "test role")
    yield connection
    await connection.close()


@pytest.fixture
async def monitor(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(database, "orchestrator_monitor", "test monitor")
    yield connection
    await connection.close()


@pytest.fixture
def reach() -> Reach:
    """Put a new clip at a status of an attempt, by moves that the law allows."""

    async def place(connection: asyncpg.Connection, clip_id: str, status: str, attempt: int = 1) -> str:
        await connection.execute("INSERT INTO clips (id) VALUES ($1)", clip_id)
        for opened in range(2, attempt + 1):
            await connection.execute("UPDATE clips SET status = 'error' WHERE id = $1", clip_id)
            await connection.execute(
                "UPDATE clips SET status = 'uploading', progress = 15, attempt = $2 WHERE id = $1", clip_id, opened
            )
        if status != STREAM.first.name:
            await connection.execute(
                "UPDATE clips SET status = $2, progress = CASE WHEN $2 = $4 THEN progress ELSE $3 END WHERE id = $1",
                clip_id,
                status,
                STREAM[status].min_progress,
                ERROR,
            )
        return clip_id

    return place
