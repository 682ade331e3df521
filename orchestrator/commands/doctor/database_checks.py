"""The database: does it answer, does it fit, who may act in it, does a monitor lead, what time has it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import asyncpg

from orchestrator.commands.database import UNREADABLE_ADDRESS, place_of, why
from orchestrator.commands.doctor.clocks import judge_skew
from orchestrator.commands.doctor.findings import Finding, fail, ok, warn
from orchestrator.explaining import Leadership, read_leadership, spell_seconds
from orchestrator.settings import DatabaseSettings
from orchestrator.storage.heavy_steps import WorkerAtWork, count_steps, read_workers
from orchestrator.storage.migrations import ROLES, MigrationError, pending_migrations
from orchestrator.storage.pool import DATABASE_AWAY, is_pooled

# The oldest one that knows every setting of our sessions.
OLDEST_VERSION = 14
_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 5.0
# A look that is due is taken at once; these many seconds late, clips queue up.
_OVERDUE_SECONDS = 60
_OVERDUE_COUNTED = 1000

_ROLE = """
SELECT pg_has_role(current_user, oid, 'member') AS usable,
       has_column_privilege(oid, 'clips', 'status', 'UPDATE') AS moves_clips
  FROM pg_roles WHERE rolname = $1
"""
# No two databases of this world began in the same microsecond and are called the same.
_WHICH = "SELECT (pg_postmaster_start_time(), current_database())::text"
# Ended clips have no look_at, so this reads what is late and nothing else.
_OVERDUE = """
SELECT count(*) FROM (
    SELECT FROM clips WHERE look_at < clock_timestamp() - make_interval(secs => $1) LIMIT $2) AS late
"""


async def check_database(settings: DatabaseSettings) -> Sequence[Finding]:
    """Everything about the database, as far as each thing can be asked while those before it are well."""
    dsn = settings.database_url.get_secret_value()
    try:
        connection = await _connect(dsn)
    except ValueError:
        return [fail("database", *UNREADABLE_ADDRESS)]
    except asyncpg.PostgresError as problem:
        return [fail("database", str(problem), "mend user, password and database name in DATABASE_URL")]
    except DATABASE_AWAY as problem:
        text = f"{place_of(dsn)} does not answer ({why(problem)})"
        return [fail("database", text, "start it, or mend DATABASE_URL")]
    try:
        found = await _examine(connection, dsn)
        return [*found, await _check_listening(connection, settings)]
    finally:
        connection.terminate()


async def _connect(dsn: str) -> asyncpg.Connection:
    # Nothing is prepared ahead: a pooler may stand there.
    return await asyncpg.connect(
        dsn, timeout=_CONNECT_SECONDS, command_timeout=_COMMAND_SECONDS, statement_cache_size=0
    )


async def _check_listening(connection: asyncpg.Connection, settings: DatabaseSettings) -> Finding:
    """Whether changes and signals are heard at once, for which a session with the server itself is needed."""
    what, name = "notifications", "DATABASE_DIRECT_URL"
    if settings.database_direct_url is None:
        if not await is_pooled(connection):
            return ok(what, "they are heard: no connection pooler is in between")
        text = "a connection pooler stands at DATABASE_URL: none is heard, and what is asked waits for up to a second"
        return warn(what, text, f"set {name} to the server's own address")
    place = place_of(settings.direct_url)
    try:
        direct = await _connect(settings.direct_url)
    except (ValueError, asyncpg.PostgresError, *DATABASE_AWAY) as problem:
        reason = "the address cannot be read" if isinstance(problem, ValueError) else why(problem)
        return fail(what, f"the server itself does not answer at {place} ({reason})", f"mend {name}")
    try:
        if await is_pooled(direct):
            return warn(what, f"a connection pooler stands at {place}, too", f"set {name} to the server's own address")
        if await direct.fetchval(_WHICH) != await connection.fetchval(_WHICH):
            return fail(what, f"{place} is another database than DATABASE_URL leads to", f"mend {name}")
    finally:
        direct.terminate()
    return ok(what, f"they are heard at {place}")


async def _examine(connection: asyncpg.Connection, dsn: str) -> list[Finding]:
    major = connection.get_server_version().major
    name = f"PostgreSQL {major} at {place_of(dsn)}"
    if major < OLDEST_VERSION:
        return [fail("database", f"{name} is too old", f"use PostgreSQL {OLDEST_VERSION} or newer")]
    findings = [ok("database", f"{name} answers"), await _check_clock(connection)]
    migrations = await _check_migrations(connection)
    findings.append(migrations)
    if migrations.verdict != "ok":
        return findings
    for role in ROLES:
        findings.append(await _check_role(connection, role))
    leadership = await read_leadership(connection)
    return [
        *findings,
        judge_leadership(leadership, await connection.fetchval(_OVERDUE, _OVERDUE_SECONDS, _OVERDUE_COUNTED)),
        judge_workers(await read_workers(connection), *await count_steps(connection)),
    ]


async def _check_clock(connection: asyncpg.Connection) -> Finding:
    asked_at = time.time()
    theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    half_trip = (time.time() - asked_at) / 2
    return judge_skew("clock", "the database", theirs - (asked_at + half_trip), half_trip)


async def _check_migrations(connection: asyncpg.Connection) -> Finding:
    try:
        missing = await pending_migrations(connection)
    except MigrationError as problem:
        text, _, remedy = str(problem).rpartition(";")
        return fail("migrations", text, remedy.strip())
    except asyncpg.InsufficientPrivilegeError as problem:
        return fail("migrations", str(problem), "run `orchestrator migrate` as the owner of the database")
    if missing:
        return fail("migrations", f"not applied: {', '.join(missing)}", "run `orchestrator migrate`")
    return ok("migrations", "the database is at the newest version")


async def _check_role(connection: asyncpg.Connection, role: str) -> Finding:
    found = await connection.fetchrow(_ROLE, role)
    what = f"role {role.removeprefix('orchestrator_')}"
    if found is None:
        text = f"there is no role {role}; the trigger guards the clips alone"
        return warn(what, text, "run `orchestrator migrate` once as a user who may create roles")
    if not found["usable"]:
        text = f"this login may not act as {role}; the trigger guards the clips alone"
        return warn(what, text, f"GRANT {role} TO the user in DATABASE_URL")
    if role == "orchestrator_api" and found["moves_clips"]:
        text = f"{role} may move clips; only the trigger keeps it to the rules"
        return warn(what, text, "run `orchestrator migrate`, which states its privileges anew")
    return ok(what, f"this login acts as {role}")


def judge_leadership(leadership: Leadership, overdue: int) -> Finding:
    """Whether somebody moves the clips, and keeps up with them."""
    start = "start `orchestrator monitor`"
    if not leadership.leads:
        gone = f" since {leadership.since:%Y-%m-%d %H:%M:%S} UTC" if leadership.since else ""
        return warn("monitor", f"none leads{gone}, so no clip moves", start)
    if leadership.hangs:
        age = spell_seconds(leadership.round_age_seconds or 0)
        return fail("monitor", f"the one that leads has not come round for {age}", "restart it, and look at its log")
    if overdue:
        count = f"{overdue}{' or more' if overdue >= _OVERDUE_COUNTED else ''}"
        text = f"{count} clips wait for a look for more than {_OVERDUE_SECONDS} s"
        return warn("monitor", text, "look at its log: the provider, the call budget or the database is slow")
    since = f" since {leadership.since:%Y-%m-%d %H:%M:%S} UTC" if leadership.since else ""
    return ok("monitor", f"one leads{since} and keeps up")


def judge_workers(workers: Sequence[WorkerAtWork], queued: int, running: int) -> Finding:
    """Who does the heavy steps; without workers the monitor does."""
    if not workers:
        if running:
            return warn(
                "workers",
                f"{running} steps are with workers that were not heard of",
                "nothing: in seconds the monitor takes them back",
            )
        return ok("workers", "none; the monitor does transfers itself")
    places = sum(worker.places for worker in workers)
    names = ", ".join(worker.name for worker in workers[:5]) + (", …" if len(workers) > 5 else "")
    return ok("workers", f"{len(workers)} live ({names}); {running} of {places} places are taken, {queued} steps wait")
