"""Connections: one pool per process, under the role the process acts in, with a limit on every wait.

The address may lead to the server itself or to a pooler like pgbouncer, where each transaction may meet another
session: `find_access` tells. Through a pooler nothing depends on the session (see `sessions`); only listening needs
the server itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import asyncpg
import structlog

from orchestrator.storage.sessions import WithSession, session_settings, sessionless

log = structlog.get_logger(__name__)

# Any statement of ours ends in milliseconds, and one that waits for a lock gives up after five seconds: who has not
# answered by then is gone, and what hangs on it may not hang for longer.
COMMAND_TIMEOUT_SECONDS = 8.0
# An attempt that met an outage has to end soon after it, or it would prolong it; a handshake takes milliseconds.
CONNECT_TIMEOUT_SECONDS = 5.0
# How long a caller waits for a free connection before it is told to come again.
ACQUIRE_TIMEOUT_SECONDS = 10.0
# A server that is there ends a statement it was asked to cancel in milliseconds. One that does not is gone.
_RELEASE_SECONDS = 1.0

_NOT_HERE = "a connection pooler stands at this address; set DATABASE_DIRECT_URL to the server's own"

# Errors that say "the database is not there now", or that it cannot do now what it could do before, whatever the
# driver calls them. Later helps, and nothing else.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    # Its administrator or its end: shutting down, starting up, a statement cancelled.
    asyncpg.OperatorInterventionError,
    # Too many connections, out of memory, its disk full.
    asyncpg.InsufficientResourcesError,
    # Its disk cannot be read or written.
    asyncpg.PostgresSystemError,
    # A standby that is not promoted yet.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    # What a server ends that has waited for us for too long.
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
)


class CannotListen(ConnectionError):
    """Notifications cannot be heard at this address: a pooler stands there."""


@dataclass(frozen=True, slots=True)
class Access:
    """How an address lets us in: the role we can act in (None: our login's own), and whether a pooler stands there."""

    role: str | None
    pooled: bool


class Pool(asyncpg.Pool):  # type: ignore[misc]  # asyncpg ships no types
    """A pool that does not wait for a server that is gone, and after one such connection trusts no idle one."""

    def acquire(self, *, timeout: float | None = None) -> _Loan:
        """A connection for the length of a block; waits for a free one for *timeout* seconds."""
        return _Loan(self, super().acquire(timeout=timeout))

    def distrust_idle(self) -> None:
        """Have the connections that nobody uses now opened anew when they are needed."""
        for holder in self._holders:
            if holder.is_idle():
                holder.terminate()


class _Loan:
    """One connection on loan; giving it back takes `_RELEASE_SECONDS` at most and hides no error of the block."""

    def __init__(self, pool: Pool, lending: Any) -> None:
        self._pool = pool
        self._lending = lending
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> asyncpg.Connection:
        self._connection = await self._lending.__aenter__()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # By itself asyncpg waits as long as one waited for the loan, and what goes wrong then takes the place of
        # *error*, which may be a cancellation.
        task = asyncio.current_task()
        is_broken = _is_broken(self._connection)
        try:
            await self._pool.release(self._connection, timeout=_RELEASE_SECONDS)
        except DATABASE_AWAY:
            is_broken = True  # asyncpg has closed it
        if is_broken:
            # What was opened before it may be as dead, and each would cost its own time-out.
            self._pool.distrust_idle()
        if isinstance(error, DATABASE_AWAY) and task is not None and task.cancelling():
            # A transaction that could not be rolled back has already put its error there.
            raise asyncio.CancelledError from error


def _is_broken(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True  # closed, and taken back by its pool already


async def create_pool(
    dsn: str,
    role: str | None,
    application_name: str,
    max_size: int = 10,
    *,
    pooled: bool = False,
    command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
) -> Pool:
    """A pool whose connections act as *role* (their own when None); *pooled* when a pooler stands at *dsn*."""
    pool = Pool(
        dsn,
        min_size=0,
        max_size=max_size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        loop=None,
        record_class=asyncpg.Record,
        init=None if pooled else _limit_transactions,
        **_options(role, application_name, pooled, command_timeout_seconds),
    )
    await pool
    return pool


async def connect(dsn: str, role: str | None, application_name: str, *, pooled: bool = False) -> asyncpg.Connection:
    """One connection outside a pool."""
    connection = await asyncpg.connect(dsn, **_options(role, application_name, pooled, COMMAND_TIMEOUT_SECONDS))
    if not pooled:
        await connection.limit_transactions()
    return connection


async def connect_to_listen(dsn: str, role: str | None, application_name: str) -> asyncpg.Connection:
    """A connection on which notifications are heard.

    Raises:
        CannotListen: a pooler stands at *dsn*; who listened through it would hear nothing, and never know.
    """
    try:
        connection = await connect(dsn, role, application_name)
    except asyncpg.ProtocolViolationError as refusal:
        # "unsupported startup parameter": the pooler lets only those through that it can carry over.
        raise CannotListen(_NOT_HERE) from refusal
    if await is_pooled(connection):
        connection.terminate()
        raise CannotListen(_NOT_HERE)
    return connection


async def find_access(dsn: str, role: str) -> Access:
    """How *dsn* lets us in. Where we cannot act in *role*, only the trigger guards the clips, and the log says so."""
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_SECONDS, statement_cache_size=0)
    try:
        pooled = await is_pooled(connection)
        usable = await may_act_in(connection, role)
    finally:
        await connection.close(timeout=5)
    if not usable:
        log.warning("this database login cannot act as its role; the trigger holds alone", role=role)
    return Access(role if usable else None, pooled)


async def is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether a pooler stands between us and the server: then who took the call is not who does the work."""
    return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())


async def may_act_in(connection: asyncpg.Connection, role: str) -> bool:
    """Whether this login may act in *role*: found out by doing it, for membership alone does not say."""
    trial = connection.transaction()
    await trial.start()
    try:
        await connection.execute("SELECT set_config('role', $1, true)", role)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError):
        return False
    finally:
        await trial.rollback()
    return True


async def _limit_transactions(connection: Any) -> None:
    """What the pool does with a connection it has opened."""
    await connection.limit_transactions()


def _options(role: str | None, application_name: str, pooled: bool, command_timeout_seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": command_timeout_seconds}
    named = {"application_name": application_name}  # a pooler takes it over, too
    if pooled:
        # A prepared statement belongs to a session, and the next transaction may meet another one.
        return {
            **options,
            "server_settings": named,
            "statement_cache_size": 0,
            "connection_class": sessionless(role),
        }
    return {
        **options,
        "server_settings": {**named, **session_settings(role)},
        "connection_class": WithSession,
    }
