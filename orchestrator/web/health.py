"""Is the process alive, is it ready: what supervisors and load balancers ask."""

from __future__ import annotations

import asyncio

import asyncpg
import structlog
from aiohttp import web

from orchestrator import __version__
from orchestrator.storage.migrations import MigrationError, pending_migrations
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.connections import connection_of
from orchestrator.web.problems import Problem
from orchestrator.web.views import json_response

log = structlog.get_logger(__name__)

# Most probes wait three seconds and no longer. Giving back a connection that has fallen silent takes one of them.
_TIMEOUT_SECONDS = 2.0
# In a failover a standby is met before it is promoted: whatever is asked of us would be refused there.
_IS_A_STANDBY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
_ROUND_AGE = "SELECT extract(epoch FROM clock_timestamp() - round_at)::float8 FROM monitor_lease"


async def show_health(request: web.Request) -> web.Response:
    """The process answers; nothing else is looked at, so that a database's rest restarts nobody."""
    return json_response({"status": "ok", "version": __version__})


async def show_readiness(request: web.Request) -> web.Response:
    """Whether calls can be served: the database answers, takes writes, and nothing is left to migrate.

    A database that is newer than the program is ready: so it is in the middle of every upgrade. The age of
    the monitor's last round is told, not judged: without a monitor calls are still taken.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), connection_of(request) as connection:
            if await connection.fetchval(_IS_A_STANDBY):
                raise Problem("not-ready-yet", "The database takes no writes", headers={"Retry-After": "5"})
            pending, fits = await _pending(connection)
            age = None if pending else await connection.fetchval(_ROUND_AGE)
    except DATABASE_AWAY as problem:
        raise Problem("not-ready-yet", "The database does not answer", headers={"Retry-After": "5"}) from problem
    if pending:
        raise Problem("not-ready-yet", f"{len(pending)} migrations are pending: {', '.join(pending)}")
    return json_response(
        {
            "status": "ready",
            "version": __version__,
            "migrations": "applied" if fits else "differ",
            "monitor_round_age_seconds": age,
        }
    )


async def _pending(connection: asyncpg.Connection) -> tuple[list[str], bool]:
    """What is left to migrate, and whether the rest is what this program knows."""
    try:
        return await pending_migrations(connection), True
    except MigrationError as problem:
        log.warning("the database differs from what this program knows", reason=str(problem))
        return [], False
