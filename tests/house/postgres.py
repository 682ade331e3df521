"""PostgreSQL servers that tests need otherwise than the product starts them: on TCP, or under another clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.local import postgres
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.local.processes import Command
from orchestrator.storage.migrations import migrate


@asynccontextmanager
async def arranged_postgres(
    directory: Path, settings: Mapping[str, str], environment: Mapping[str, str]
) -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server with *settings* over the usual ones and *environment* beside it; it ends with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o711)
    usual = postgres._server_command

    def arranged(*arguments: object) -> Command:
        command = usual(*arguments)  # type: ignore[arg-type]
        added = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        # By `env`, so that it holds for the server alone, not for what runs before it as another user.
        beside = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items())]
        return replace(command, arguments=[*beside, *command.arguments, *added])

    server = EmbeddedPostgres(directory, PostgresOptions(durable=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "_server_command", arranged)
        await server.start()
    try:
        await migrate(server.dsn())
        yield server
    finally:
        await server.stop()
