"""Brings a database to the newest version; safe to repeat and to race.

Numbered files are applied once, in order, each in a transaction of its own, and their hash is kept: an
edited one is refused. The law's functions and the privileges are stated again each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog

from orchestrator.storage.law import render_law_functions
from orchestrator.storage.pool import is_pooled, may_act_in

log = structlog.get_logger(__name__)

ROLES = ("orchestrator_api", "orchestrator_monitor")
# Any number, as long as nobody else uses it: one migration at a time per database.
_LOCK_KEY = 7_203_118_554
# A migration that waits longer than this for another one has met a hung session.
_LOCK_TIMEOUT = "120s"
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
        MigrationError: an applied file was edited, the database is newer than this program, or a pooler is in the way.
    """
    directory = directory or migrations_directory()
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        if await is_pooled(connection):
            raise MigrationError(
                "a connection pooler stands at this address, and a migration needs a session of its own;"
                " set DATABASE_DIRECT_URL to the server's own address"
            )
        await connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        applied = await _apply_numbered(connection, read_migrations(directory))
        await _state_the_law(connection, (directory / "law.sql").read_text("utf-8"))
        await _set_up_roles(connection, directory)
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


async def _apply_numbered(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    rows = await connection.fetch("SELECT name, sha256 FROM schema_migrations")
    applied = []
    for migration in _unapplied(migrations, {row["name"]: row["sha256"] for row in rows}):
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", migration.name, migration.sha256
            )
        log.info("migration applied", migration=migration.name)
        applied.append(migration.name)
    return applied


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


async def _state_the_law(connection: asyncpg.Connection, law: str) -> None:
    """Create the functions and triggers that refuse what the law refuses.

    They act with their owner's rights and keep the search path in force here: temporary objects stand last in it,
    so that no session can put a table of its own in the place of ours.
    """
    async with connection.transaction():
        schema = await connection.fetchval("SELECT quote_ident(current_schema())")
        await connection.execute(f"SET LOCAL search_path = {schema}, pg_temp")
        await connection.execute(render_law_functions())
        await connection.execute(law)


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
