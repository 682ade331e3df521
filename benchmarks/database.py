"""A real PostgreSQL with its default durability for what is measured, and databases in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg

from benchmarks.harness import Place
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.local.processes import Command
from orchestrator.storage.migrations import migrate


class _Server(EmbeddedPostgres):
    """The product's own server with more *settings*."""

    def __init__(self, place: Place, settings: Mapping[str, str]) -> None:
        super().__init__(place.directory / "postgres", PostgresOptions(durable=True, stop_limit_seconds=30))
        self._added = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]

    async def _launch(self, command: Command, *rest: Any) -> None:
        await super()._launch(replace(command, arguments=[*command.arguments, *self._added]), *rest)


@asynccontextmanager
async def started_server(place: Place, settings: Mapping[str, str] | None = None) -> AsyncIterator[EmbeddedPostgres]:
    """A server that waits for the disk, as in production, with *settings* over its defaults; it ends with the block."""
    place.directory.chmod(0o711)
    async with _Server(place, settings or {}) as server:
        yield server


async def make_database(server: EmbeddedPostgres, name: str, *, migrated: bool = True) -> str:
    """The address of a new database; with everything of the product in it, or bare."""
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    finally:
        await connection.close()
    if migrated:
        await migrate(server.dsn(name))
    return server.dsn(name)
