"""A connection as another service has it, and one that sees everything.

Copying a database takes far longer than most of the tests here: those of one file share one, emptied before each.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest


@pytest.fixture(scope="module")
def shared_database(postgres_server: Any, database_template: str) -> Iterator[str]:
    """The address of a migrated database for the tests of one file."""
    name = f"{postgres_server.prefix}_{secrets.token_hex(4)}"
    asyncio.run(postgres_server.clone(database_template, name))
    yield postgres_server.dsn(name)
    asyncio.run(postgres_server.drop(name))


@pytest.fixture
async def database(shared_database: str) -> str:
    """The same, without a clip in it."""
    connection = await asyncpg.connect(shared_database)
    await connection.execute("TRUNCATE clips, clip_events, clip_signals RESTART IDENTITY")
    await connection.execute("UPDATE monitor_lease SET holder = NULL, epoch = 0, expires_at = '-infinity'")
    await connection.close()
    return shared_database


@pytest.fixture
async def service(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain asyncpg connection in the role that may only ask, with one clip 'c' there."""
    connection = await asyncpg.connect(database, server_settings={"role": "orchestrator_api"})
    await connection.execute("INSERT INTO clips (id) VALUES ('c')")
    yield connection
    await connection.close()
