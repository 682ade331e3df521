"""Connections act in their role, and none of them waits without a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from house.relay import BLACK_HOLE, RESET, SWALLOW, Relay, Treatment, Upstream
from structlog.testing import capture_logs

from orchestrator.storage.pool import (
    DATABASE_AWAY,
    Access,
    CannotListen,
    connect,
    connect_to_listen,
    create_pool,
    find_access,
)

_ASKED_LAST = "SELECT coalesce(max(query), '') FROM pg_stat_activity WHERE application_name = $1"


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
    """Role and limits are the session's own; what a block left open ends with it."""
    pool = await create_pool(database, "orchestrator_api", "test", max_size=1)
    try:
        for _ in range(2):
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT current_user") == "orchestrator_api"
                assert await connection.fetchval("SELECT current_setting('statement_timeout')") == "30s"
                await connection.execute("BEGIN")
            async with pool.acquire() as connection:
                assert not connection.is_in_transaction()
    finally:
        await pool.close()


@pytest.mark.parametrize(
    "setting",
    [
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_timeout",
        "client_connection_check_interval",
    ],
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
        assert (await find_access(database, "no_such_role")).role is None
        assert (await find_access(dsn, "orchestrator_monitor")).role is None
    assert [(entry["log_level"], entry["role"]) for entry in logs] == [
        ("warning", "no_such_role"),
        ("warning", "orchestrator_monitor"),
    ]
    assert (await find_access(database, "orchestrator_monitor")).role == "orchestrator_monitor"


async def test_a_role_that_may_be_administered_but_not_acted_in_is_no_use(login, database: str) -> None:
    plain = await asyncpg.connect(database)
    version = plain.get_server_version().major
    await plain.close()
    if version < 16:
        return  # up to then, who administered a role could act in it
    dsn = await login("", before="GRANT orchestrator_api TO {login} WITH ADMIN TRUE, SET FALSE")
    assert (await find_access(dsn, "orchestrator_api")).role is None


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


async def test_a_standby_and_a_full_disk_are_away_like_a_server_that_is_down() -> None:
    for problem in (
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.DiskFullError,
        asyncpg.OutOfMemoryError,
        asyncpg.TooManyConnectionsError,
        asyncpg.PostgresIOError,
        asyncpg.CannotConnectNowError,
        asyncpg.IdleInTransactionSessionTimeoutError,
    ):
        assert issubclass(problem, DATABASE_AWAY)
    for problem in (asyncpg.CheckViolationError, asyncpg.InsufficientPrivilegeError, asyncpg.DeadlockDetectedError):
        assert not issubclass(problem, DATABASE_AWAY)


@pytest.fixture
async def relay(database: str) -> AsyncIterator[Relay]:
    host = parse_qs(urlsplit(database).query).get("host")
    if host is None:
        pytest.skip("the tests' own server is needed, behind its socket")
    async with Relay(Upstream(f"{host[0]}/.s.PGSQL.5432")) as relay:
        yield relay


def through(relay: Relay, database: str) -> str:
    """The address of *database* by way of *relay*."""
    return f"postgresql://postgres@127.0.0.1:{relay.port}{urlsplit(database).path}"


async def test_one_dead_connection_is_enough_to_distrust_the_idle_ones(database: str, relay: Relay) -> None:
    """Each would cost a time-out of its own, one after the other."""
    pool = await create_pool(through(relay, database), None, "test", max_size=4)
    try:
        await asyncio.gather(*(pool.fetchval("SELECT pg_sleep(0.05)") for _ in range(4)))
        assert pool.get_idle_size() == 4
        relay.treat(BLACK_HOLE, new=False)
        with pytest.raises(TimeoutError):
            await pool.fetchval("SELECT 1", timeout=0.2)
        assert pool.get_idle_size() == 0
        assert await pool.fetchval("SELECT 2", timeout=5) == 2
    finally:
        pool.terminate()


async def test_a_cancellation_stays_one_where_the_server_does_not_answer(database: str, relay: Relay) -> None:
    """asyncpg's own time-out, met while a connection is given back, would take its place."""
    pool = await create_pool(through(relay, database), None, "test", max_size=1)

    async def ask() -> None:
        async with pool.acquire(timeout=30) as connection:
            asked.set()
            await connection.fetchval("SELECT 1")

    try:
        await pool.fetchval("SELECT 1")
        relay.treat(BLACK_HOLE)
        asked = asyncio.Event()
        task = asyncio.create_task(ask())
        await asked.wait()
        await asyncio.sleep(0)
        started = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - started < 5
    finally:
        pool.terminate()


async def test_a_cancellation_outlives_a_transaction_that_cannot_be_rolled_back(database: str, relay: Relay) -> None:
    pool = await create_pool(through(relay, database), None, "test", max_size=1)
    asked = asyncio.Event()

    async def ask() -> None:
        async with pool.acquire(timeout=30) as connection, connection.transaction():
            relay.treat(BLACK_HOLE)
            asked.set()
            await connection.fetchval("SELECT 1", timeout=30)

    try:
        task = asyncio.create_task(ask())
        await asked.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        relay.treat(RESET)  # the rollback meets an error of its own
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        pool.terminate()


async def test_what_was_done_counts_though_the_connection_is_lost_before_it_is_given_back(
    database: str, relay: Relay
) -> None:
    pool = await create_pool(through(relay, database), None, "test", max_size=1)
    try:
        async with pool.acquire(timeout=5) as connection:
            assert await connection.fetchval("SELECT 1") == 1
            relay.treat(RESET, new=False)
        with pytest.raises(DATABASE_AWAY):  # nobody had asked it anything since
            await pool.fetchval("SELECT 2")
        assert await pool.fetchval("SELECT 3") == 3
    finally:
        pool.terminate()


async def test_a_question_half_asked_holds_its_rows_no_longer_than_a_transaction_may(
    database: str, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line falls silent after the preparing of a statement: the server calls that session active, and nobody's."""
    monkeypatch.setattr("orchestrator.storage.sessions._TRANSACTION_LIMIT", ("transaction_timeout", "500ms"))
    pool = await create_pool(through(relay, database), None, "test", max_size=1)
    owner = await asyncpg.connect(database)
    try:
        async with pool.acquire(timeout=5) as connection:
            await connection.execute("BEGIN; UPDATE monitor_lease SET round_at = NULL")
            relay.treat(Treatment(down=SWALLOW), new=False)
            asking = asyncio.create_task(connection.fetchval("SELECT 'half' || $1", "asked", timeout=30))
            while "half" not in await owner.fetchval(_ASKED_LAST, "test"):
                await asyncio.sleep(0.01)
            relay.treat(BLACK_HOLE, new=False)
            assert (
                await owner.fetchval("SELECT state FROM pg_stat_activity WHERE application_name = 'test'") == "active"
            )
            await owner.execute("UPDATE monitor_lease SET round_at = NULL", timeout=5)
            asking.cancel()
            connection.terminate()
            await asyncio.gather(asking, return_exceptions=True)
    finally:
        pool.terminate()
        await owner.close()


async def test_a_session_that_is_given_back_keeps_its_limits(database: str) -> None:
    pool = await create_pool(database, None, "test", max_size=1)
    try:
        for _ in range(2):
            assert await pool.fetchval("SELECT current_setting('transaction_timeout')") == "8s"
    finally:
        await pool.close()


async def test_without_a_session_each_transaction_brings_role_and_limits(database: str) -> None:
    """Through a pooler each may meet another session, which has none of them."""
    pool = await create_pool(database, "orchestrator_api", "the web", max_size=1, pooled=True)
    try:
        asked = (
            "SELECT current_user, current_setting('statement_timeout'), current_setting('lock_timeout'),"
            " current_setting('transaction_timeout')"
        )
        expected = ("orchestrator_api", "30s", "5s", "8s")
        assert tuple(await pool.fetchrow(asked)) == expected
        assert [tuple(row) for row in await pool.fetch(asked)] == [expected]
        assert await pool.fetchval("SELECT current_user") == "orchestrator_api"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("UPDATE clips SET status = 'complete'")
        async with pool.acquire() as connection:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                assert tuple(await connection.fetchrow(asked)) == expected
                async with connection.transaction():
                    assert tuple(await connection.fetchrow(asked)) == expected
            await connection.executemany("SELECT $1::int", [(1,), (2,)])
            # The session itself is as it was opened, so that whoever meets it next finds nothing of ours.
            assert await asyncpg.Connection.fetchval(connection._con, "SELECT current_user") != "orchestrator_api"
            assert connection.get_reset_query() == ""
    finally:
        await pool.close()


async def test_nothing_is_committed_of_a_statement_that_fails_without_a_session(database: str) -> None:
    connection = await connect(database, None, "test", pooled=True)
    try:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("CREATE TABLE left_behind (id int); SELECT 1 / 0")
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT to_regclass('left_behind')") is None
    finally:
        await connection.close()


async def test_a_pooler_is_noticed_and_not_listened_through(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes the call there is not who does the work, and a notification would go to neither."""
    assert await find_access(database, "orchestrator_api") == Access("orchestrator_api", pooled=False)
    listening = await connect_to_listen(database, None, "test")
    await listening.close()
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda _: 1)
    assert await find_access(database, "orchestrator_api") == Access("orchestrator_api", pooled=True)
    with pytest.raises(CannotListen, match="DATABASE_DIRECT_URL"):
        await connect_to_listen(database, None, "test")
    assert issubclass(CannotListen, DATABASE_AWAY)
