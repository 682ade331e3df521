"""Logins of the tests' own, and databases that belong to them.

Copying a database takes far longer than most of the tests here: those of one file share one, emptied before each.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

Login = Callable[..., Awaitable[str]]


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
    await connection.close()
    return shared_database


def address(dsn: str, user: str, password: str) -> str:
    """*dsn* for another login."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{host}"))


@pytest.fixture
async def login(postgres_server: Any) -> AsyncIterator[Login]:
    """Make a login with the given attributes that owns a database of its own; that database's address for it."""
    made: list[tuple[str, str]] = []

    async def make(attributes: str, *, before: str | None = None) -> str:
        name, password = f"{postgres_server.prefix}_{secrets.token_hex(4)}", secrets.token_hex(8)
        await postgres_server.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' {attributes}")
        await postgres_server.execute(f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE template0')
        made.append((name, name))
        if before:
            await postgres_server.execute(before.format(login=f'"{name}"'))
        return address(postgres_server.dsn(name), name, password)

    yield make
    for database, role in made:
        await postgres_server.drop(database)
        for granted in ("orchestrator_api", "orchestrator_monitor"):
            # Grants made by this login itself go with it; those of others do not concern it.
            await postgres_server.execute(f'REVOKE {granted} FROM "{role}" GRANTED BY "{role}" CASCADE')
        await postgres_server.execute(f'DROP ROLE "{role}"')
