"""PostgreSQL servers that tests need otherwise than the product starts them: on TCP, or under another clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.local.processes import Command
from orchestrator.storage.migrations import migrate


class _ArrangedPostgres(EmbeddedPostgres):
    """The product's server with more *settings*, and with an *environment* beside its own."""

    def __init__(self, directory: Path, settings: Mapping[str, str], environment: Mapping[str, str]) -> None:
        super().__init__(directory, PostgresOptions(durable=False))
        self._added = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        # By `env`, so that it holds for the server alone, not for what runs before it as another user.
        self._beside = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items())]

    async def _launch(self, command: Command, *rest: Any) -> None:
        arguments = [*self._beside, *command.arguments, *self._added]
        await super()._launch(replace(command, arguments=arguments), *rest)


@asynccontextmanager
async def arranged_postgres(
    directory: Path, settings: Mapping[str, str], environment: Mapping[str, str]
) -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server with *settings* over the usual ones and *environment* beside it; it ends with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o711)
    async with _ArrangedPostgres(directory, settings, environment) as server:
        await migrate(server.dsn())
        yield server
