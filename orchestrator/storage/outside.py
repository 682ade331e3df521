"""Migrations outside a transaction: what PostgreSQL does in none, such as building an index beside the writers.

Such a file carries the line below among its first comments, and each of its statements may be repeated, for a crash
between two of them has the whole file run again:

    -- Runs outside a transaction.

    CREATE INDEX CONCURRENTLY IF NOT EXISTS clips_by_colour ON clips (colour);

A build that broke off leaves an index that is INVALID: it costs every write, serves no read, and by its name would be
taken for done. It is dropped before its statement runs again, and a file whose index is not valid in the end has
failed.
"""

from __future__ import annotations

import re

import asyncpg

MARK = "-- Runs outside a transaction."

# It waits for every transaction that is older than itself, and holds up nobody meanwhile: ours end within half a
# minute, a backup or a report may take its time.
_LOCK_TIMEOUT = "600s"

_BUILDS = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+([a-z_][a-z0-9_]*)\s+ON\s", re.IGNORECASE
)
_IS_INVALID = """
SELECT NOT i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE c.relname = $1 AND c.relnamespace = current_schema()::regnamespace
"""


class UnfinishedIndex(Exception):
    """An index was built and is not valid."""


def is_outside(sql: str) -> bool:
    """Whether the migration runs outside a transaction."""
    return MARK in sql.splitlines()


def statements_of(sql: str) -> list[str]:
    """The statements of such a file, without comments; a semicolon ends each, so none may hold one in a text.

    >>> statements_of("-- Two.\\nSELECT 1;\\nSELECT 2; -- and last")
    ['SELECT 1', 'SELECT 2']
    """
    plain = re.sub(r"--[^\n]*", "", sql)
    return [statement for part in plain.split(";") if (statement := part.strip())]


async def apply_outside(connection: asyncpg.Connection, sql: str) -> None:
    """Run the statements one by one; safe to repeat after a crash at any of them.

    Raises:
        UnfinishedIndex: an index that was to be built is not valid.
    """
    before = await connection.fetchval("SHOW lock_timeout")
    await connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    try:
        for statement in statements_of(sql):
            built = _BUILDS.match(statement)
            if built is not None and await connection.fetchval(_IS_INVALID, built[1]):
                await connection.execute(f"DROP INDEX CONCURRENTLY {built[1]}")
            await connection.execute(statement)
            if built is not None and await connection.fetchval(_IS_INVALID, built[1]) is not False:
                raise UnfinishedIndex(f"the index {built[1]} is not valid")
    finally:
        await connection.execute(f"SET lock_timeout = '{before}'")
