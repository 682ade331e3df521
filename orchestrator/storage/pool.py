"""Connections: one pool per process, under the role the process acts in, with a limit on every wait."""

from __future__ import annotations

import asyncpg
import structlog

log = structlog.get_logger(__name__)

# Any statement of ours ends in milliseconds; a minute means a dead peer.
COMMAND_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 10.0
# How long a caller waits for a free connection before it is told to come again.
ACQUIRE_TIMEOUT_SECONDS = 10.0

# Errors that say "the database is not there now", whatever the driver calls them.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)

# Sessions that hang may not hold up others; far above any statement of ours. Keep-alives find a peer that
# vanished without a word in about 10 s.
_SESSION_SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "15s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "client_connection_check_interval": "5s",
}


async def connect(dsn: str, role: str | None, application_name: str) -> asyncpg.Connection:
    """One connection outside a pool, for listening."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings=_settings(role, application_name),
    )


async def create_pool(dsn: str, role: str | None, application_name: str, max_size: int = 10) -> asyncpg.Pool:
    """A pool whose connections act as *role* (their own when None)."""
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings=_settings(role, application_name),
    )


async def usable_role(dsn: str, role: str) -> str | None:
    """*role* when this login may act in it, else None; then only the trigger guards the clips, and the log says so."""
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        usable = await may_act_in(connection, role)
    finally:
        await connection.close(timeout=5)
    if not usable:
        log.warning("this database login cannot act as its role; the trigger holds alone", role=role)
        return None
    return role


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


def _settings(role: str | None, application_name: str) -> dict[str, str]:
    settings = {"application_name": application_name, **_SESSION_SETTINGS}
    return settings | {"role": role} if role else settings
