"""Logins of the tests' own, and databases that belong to them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

Login = Callable[..., Awaitable[str]]


@pytest.fixture
def database(emptied_database: str) -> str:
    """Those of one file share one, emptied before each."""
    return emptied_database


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
