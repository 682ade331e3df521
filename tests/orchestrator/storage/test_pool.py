"""Connections act in their role, and none of them waits without a limit."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.storage.pool import DATABASE_AWAY, connect, create_pool, usable_role


async def test_connections_act_in_their_role_under_their_name(database: str) -> None:
    pool = await create_pool(database, "orchestrator_api", "the web", max_size=2)
    alone = await connect(database, "orchestrator_monitor", "the listener")
    try:
        row = await pool.fetchrow("SELECT current_user, current_setting('application_name')")
        assert tuple(row) == ("orchestrator_api", "the web")
        row = await alone.fetchrow("SELECT current_user, current_setting('application_name')")
        assert tuple(row) == ("orchestrator_monitor", "the listener")
    finally:
        await pool.close()
        await alone.close()


async def test_a_returned_connection_keeps_its_role(database: str) -> None:
    """The pool resets each connection; the role must come back with it."""
    pool = await create_pool(database, "orchestrator_api", "test", max_size=1)
    try:
        await pool.execute("SET statement_timeout = '1h'")
        assert await pool.fetchval("SELECT current_user") == "orchestrator_api"
        assert await pool.fetchval("SELECT current_setting('statement_timeout')") == "30s"
    finally:
        await pool.close()


@pytest.mark.parametrize(
    "setting",
    ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "client_connection_check_interval"],
)
async def test_no_session_can_hang(database: str, setting: str) -> None:
    connection = await connect(database, None, "test")
    try:
        assert await connection.fetchval("SELECT setting::int FROM pg_settings WHERE name = $1", setting) > 0
    finally:
        await connection.close()


async def test_a_missing_or_forbidden_role_is_said_and_gone_without(database: str, login) -> None:
    dsn = await login("")
    with capture_logs() as logs:
        assert await usable_role(database, "no_such_role") is None
        assert await usable_role(dsn, "orchestrator_monitor") is None
    assert [(entry["log_level"], entry["role"]) for entry in logs] == [
        ("warning", "no_such_role"),
        ("warning", "orchestrator_monitor"),
    ]
    assert await usable_role(database, "orchestrator_monitor") == "orchestrator_monitor"


async def test_a_role_that_may_be_administered_but_not_acted_in_is_no_use(login, database: str) -> None:
    plain = await asyncpg.connect(database)
    version = plain.get_server_version().major
    await plain.close()
    if version < 16:
        return  # up to then, who administered a role could act in it
    dsn = await login("", before="GRANT orchestrator_api TO {login} WITH ADMIN TRUE, SET FALSE")
    assert await usable_role(dsn, "orchestrator_api") is None


async def test_what_means_that_the_database_is_away(database: str) -> None:
    with pytest.raises(DATABASE_AWAY):
        await asyncpg.connect("postgresql://nobody@127.0.0.1:1/none", timeout=5)
    connection = await connect(database, None, "test")
    with pytest.raises(DATABASE_AWAY):
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DATABASE_AWAY):
        await connection.execute("SELECT 1")
    assert not issubclass(asyncio.CancelledError, DATABASE_AWAY)
    assert not issubclass(asyncpg.CheckViolationError, DATABASE_AWAY)
