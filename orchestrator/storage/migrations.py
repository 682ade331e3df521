"""Brings a database to the newest version; safe to repeat and to race, and beside everything that runs.

Numbered files are applied once, in order, each in a transaction of its own, and their hash is kept: an
edited one is refused. The law's functions and the privileges are stated again each time.

No step holds up a running house for long: one that has to wait for a lock gives up after `LOCK_SECONDS`, lets pass
who queued behind it, and tries again. What cannot be done in a transaction (an index that is built beside the writers)
stands in a file of its own, see `outside`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import asyncpg
import structlog

from orchestrator.storage.law import render_law_functions
from orchestrator.storage.outside import UnfinishedIndex, apply_outside, is_outside
from orchestrator.storage.pool import is_pooled, may_act_in

log = structlog.get_logger(__name__)

T = TypeVar("T")

ROLES = ("orchestrator_api", "orchestrator_monitor")
# Any number, as long as nobody else uses it: one migration at a time per database.
_LOCK_KEY = 7_203_118_554
# A migration that waits longer than this for another one has met a hung session, or a large index that is being built.
_TURN_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.2
# Who wants a table for itself has everybody queue behind it until it gets it. Two seconds of that are felt by nobody
# who waits up to five for a lock himself; a running autovacuum gives way after one.
LOCK_SECONDS = 2.0
# Between two tries: what was held up in the meantime goes through. Thirty tries are over within two minutes.
_PAUSE_SECONDS = 1.0
_TRIES = 30
# Setting up the roles takes milliseconds: twenty turns let a dozen databases of one server be migrated at once.
_TURNS = 20
_LONGEST_PAUSE_SECONDS = 0.1


class MigrationError(Exception):
    """The database cannot be brought to the newest version; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The fingerprint by which an edit is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_directory() -> Path:
    """Where the SQL lies: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def read_migrations(directory: Path | None = None) -> list[Migration]:
    """The numbered files in order."""
    directory = directory or migrations_directory()
    return [Migration(path.name, path.read_text("utf-8")) for path in sorted(directory.glob("[0-9]*.sql"))]


async def migrate(dsn: str, directory: Path | None = None) -> list[str]:
    """Bring the database at *dsn* to the newest version; the names of what was applied now.

    Raises:
        MigrationError: an applied file was edited, the database is newer than this program, a pooler is in the way, or
            somebody else is.
    """
    directory = directory or migrations_directory()
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        if await is_pooled(connection):
            raise MigrationError(
                "a connection pooler stands at this address, and a migration needs a session of its own;"
                " set DATABASE_DIRECT_URL to the server's own address"
            )
        await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS:g}s'")
        await _take_turn(connection)
        applied = await _apply_numbered(connection, read_migrations(directory))
        law = [(directory / name).read_text("utf-8") for name in ("law.sql", "history.sql")]
        await _patiently("the law", lambda: _state_the_law(connection, law))
        await _patiently("the roles", lambda: _set_up_roles(connection, directory))
        return applied
    finally:
        await connection.close(timeout=10)


async def pending_migrations(connection: asyncpg.Connection, directory: Path | None = None) -> list[str]:
    """The names not applied yet; readiness wants none.

    Raises:
        MigrationError: as `migrate`.
    """
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return [migration.name for migration in read_migrations(directory)]
    rows = await connection.fetch("SELECT name, sha256 FROM schema_migrations")
    return [each.name for each in _unapplied(read_migrations(directory), {row["name"]: row["sha256"] for row in rows})]


async def _take_turn(connection: asyncpg.Connection) -> None:
    """Be the one that migrates this database. Asks again and again: a statement that waited for it would hold on to
    what it saw, an index that is built beside it would wait for that, and both for each other.
    """

    until = time.monotonic() + _TURN_SECONDS
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
        if time.monotonic() > until:
            raise MigrationError(
                f"another migration has been under way for {_TURN_SECONDS:.0f} s; let it end, then run this again"
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _patiently(what: str, step: Callable[[], Awaitable[T]]) -> T:
    """Do *step*, a transaction, again when a lock was not to be had in time.

    Raises:
        MigrationError: it never was.
    """
    for left in reversed(range(_TRIES)):
        try:
            return await step()
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if not left:
                break
            log.info("a lock was not to be had; the others go first", step=what, tries_left=left)
            await asyncio.sleep(_PAUSE_SECONDS)
    raise MigrationError(
        f"{what}: a lock was not to be had in {_TRIES} tries;"
        " some session keeps a transaction open, pg_stat_activity shows which; end it and run this again"
    )


async def _apply_numbered(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    rows = await connection.fetch("SELECT name, sha256 FROM schema_migrations")
    applied = []
    for migration in _unapplied(migrations, {row["name"]: row["sha256"] for row in rows}):
        if is_outside(migration.sql):
            await _patiently(migration.name, partial(_apply_outside, connection, migration))
        else:
            await _patiently(migration.name, partial(_apply_inside, connection, migration))
        log.info("migration applied", migration=migration.name)
        applied.append(migration.name)
    return applied


async def _apply_inside(connection: asyncpg.Connection, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql)
        await _note(connection, migration)


async def _apply_outside(connection: asyncpg.Connection, migration: Migration) -> None:
    try:
        await apply_outside(connection, migration.sql)
    except UnfinishedIndex as problem:
        raise MigrationError(f"{migration.name}: {problem}; run this again, it is built anew") from problem
    await _note(connection, migration)


async def _note(connection: asyncpg.Connection, migration: Migration) -> None:
    """Keep that it was applied, and as which text."""
    await connection.execute(
        "INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", migration.name, migration.sha256
    )


def _unapplied(migrations: list[Migration], known: dict[str, str]) -> list[Migration]:
    for migration in migrations:
        if known.get(migration.name, migration.sha256) != migration.sha256:
            raise MigrationError(
                f"{migration.name} was edited after it had been applied here;"
                " restore the file and put the change into a new migration"
            )
    unknown = sorted(set(known) - {migration.name for migration in migrations})
    if unknown:
        raise MigrationError(
            f"the database is newer than this program: it has {', '.join(unknown)}; install a newer version"
        )
    return [migration for migration in migrations if migration.name not in known]


async def _state_the_law(connection: asyncpg.Connection, law: Sequence[str]) -> None:
    """Create the functions and triggers that refuse what the law refuses.

    They act with their owner's rights and keep the search path in force here: temporary objects stand last in it,
    so that no session can put a table of its own in the place of ours.
    """
    async with connection.transaction():
        schema = await connection.fetchval("SELECT quote_ident(current_schema())")
        await connection.execute(f"SET LOCAL search_path = {schema}, pg_temp")
        for text in (render_law_functions(), *law):
            await connection.execute(text)


async def _set_up_roles(connection: asyncpg.Connection, directory: Path) -> None:
    """Create the roles and state their privileges; where that is not allowed, say so: the trigger holds alone."""
    schema = await connection.fetchval("SELECT quote_ident(current_schema())")
    privileges = (directory / "privileges.sql").read_text("utf-8").replace(":schema", schema)
    try:
        await _in_turn(connection, _create_roles)
        await _in_turn(connection, lambda db: db.execute(privileges))
    except asyncpg.InsufficientPrivilegeError as problem:
        log.warning(
            "the roles orchestrator_api and orchestrator_monitor could not be set up; the trigger holds alone",
            reason=str(problem),
        )
        return
    try:
        await _in_turn(connection, lambda db: db.execute((directory / "limits.sql").read_text("utf-8")))
    except asyncpg.InsufficientPrivilegeError as problem:
        log.info("the roles' time limits are left to whoever made the roles", reason=str(problem))


async def _create_roles(connection: asyncpg.Connection) -> None:
    """Create the roles that are missing, and let this login act in those it has made."""
    for role in ROLES:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        if not await may_act_in(connection, role):
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):  # then its administrator says who may
                async with connection.transaction():
                    await connection.execute(f"GRANT {role} TO CURRENT_USER")


async def _in_turn(connection: asyncpg.Connection, work: Callable[[asyncpg.Connection], Awaitable[object]]) -> None:
    """Do *work* in a transaction, again when another database of the same server changed the roles meanwhile.

    Roles belong to the whole server, and our lock to one database.
    """
    for left in reversed(range(_TURNS)):
        try:
            async with connection.transaction():
                await work(connection)
            return
        except (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.InternalServerError):
            if not left:
                raise
            await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))  # noqa: S311 - apart, not secret
