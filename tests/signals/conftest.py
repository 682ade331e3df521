"""A connection as another service has it, and one that sees everything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest


@pytest.fixture
def database(emptied_database: str) -> str:
    """Those of one file share one, emptied before each."""
    return emptied_database


@pytest.fixture
async def service(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain asyncpg connection in the role that may only ask, with one clip 'c' there."""
    connection = await asyncpg.connect(database, server_settings={"role": "orchestrator_api"})
    await connection.execute("INSERT INTO clips (id) VALUES ('c')")
    yield connection
    await connection.close()
