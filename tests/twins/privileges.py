"""Who may do what: every verb on every column, and every way round them, tried out by logins of the two roles.

Tables, columns, functions and sequences come from the catalogue, so what is added later is tried, too; what may be
done is written down here, and everything else has to be refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg

ROLES = ("orchestrator_api", "orchestrator_monitor")

#: Whole tables, by role. Of clips the API has columns only.
MAY = {
    "orchestrator_api": {
        "clip_events": "SELECT",
        "clip_signals": "SELECT",
        "history_pruning": "SELECT",
        "monitor_lease": "SELECT",
        "schema_migrations": "SELECT",
        "call_budget": "SELECT INSERT UPDATE",
        "idempotency_keys": "SELECT INSERT UPDATE DELETE",
        "uploads": "SELECT INSERT",
        "artifacts": "SELECT",
        "webhook_deliveries": "SELECT INSERT UPDATE DELETE",
        "webhook_refusals": "SELECT INSERT UPDATE DELETE",
        "provider_calls": "SELECT INSERT DELETE",
        "clip_pgqueuer": "SELECT",
        "workers": "SELECT",
    },
    "orchestrator_monitor": {
        "clips": "SELECT INSERT UPDATE",
        # What of it may really go is the trigger's to say.
        "clip_events": "SELECT INSERT DELETE",
        "history_pruning": "SELECT UPDATE",
        "clip_signals": "SELECT INSERT DELETE",
        "monitor_lease": "SELECT UPDATE",
        "schema_migrations": "SELECT",
        "call_budget": "SELECT INSERT UPDATE",
        "transfers": "SELECT INSERT UPDATE DELETE",
        "transfer_parts": "SELECT INSERT UPDATE DELETE",
        "uploads": "SELECT DELETE",
        "artifacts": "SELECT INSERT UPDATE DELETE",
        "provider_calls": "SELECT INSERT DELETE",
        "provider_asks": "SELECT INSERT DELETE",
        "clip_pgqueuer": "SELECT INSERT UPDATE DELETE",
        "clip_pgqueuer_log": "SELECT INSERT DELETE",
        "workers": "SELECT INSERT UPDATE DELETE",
        "worker_progress": "SELECT INSERT UPDATE DELETE",
        "worker_failures": "SELECT INSERT DELETE",
    },
}
#: What the API may update of a table that is not its own.
API_WRITES = {"clips": {"processing_details"}, "uploads": {"used_at"}}
API_INSERTS = {
    "id", "pipeline", "cloudflare_uid", "title", "processing_details", "source_url", "upload_expires_at",
}  # fmt: skip
API_NEVER_READS = {"source_url"}

_BY_COLUMN = {
    "SELECT": ("SELECT {column} FROM {table}", "SELECT FROM {table} WHERE {column} IS NULL",
               "SELECT FROM {table} ORDER BY {column}", "SELECT count({column}) FROM {table}"),
    "INSERT": ("INSERT INTO {table} ({column}) SELECT NULL WHERE false",),
    "UPDATE": ("UPDATE {table} SET {column} = NULL WHERE false", "UPDATE {table} SET {column} = DEFAULT WHERE false"),
}  # fmt: skip
_BY_TABLE = {
    "DELETE": ("DELETE FROM {table}", "DELETE FROM {table} WHERE false"),
    "TRUNCATE": ("TRUNCATE {table}", "TRUNCATE {table} CASCADE", "TRUNCATE {table} RESTART IDENTITY CASCADE"),
}
#: What nobody but the owner may do to a table.
_OWNERS = (
    "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "ALTER TABLE {table} DISABLE TRIGGER USER",
    "ALTER TABLE {table} ADD COLUMN mine text",
    "ALTER TABLE {table} OWNER TO {role}",
    "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE {table} RENAME TO mine",
    "DROP TABLE {table} CASCADE",
    "CREATE INDEX mine ON {table} ((1))",
    "CREATE TRIGGER mine BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE mine AS ON UPDATE TO {table} DO INSTEAD NOTHING",
    "CREATE POLICY mine ON {table} USING (true)",
    "COMMENT ON TABLE {table} IS 'mine'",
    "CREATE TABLE mine () INHERITS ({table})",
    "CREATE VIEW mine AS SELECT 1",
)
#: Ways round everything, at once.
_WAYS_ROUND = (
    "SET session_replication_role = replica",
    "SELECT set_config('session_replication_role', 'replica', false)",
    "SET SESSION AUTHORIZATION {owner}",
    "SET ROLE {owner}",
    "SET ROLE {other}",
    "GRANT {other} TO {login}",
    "ALTER ROLE {login} SUPERUSER",
    "ALTER ROLE {role} SUPERUSER",
    "ALTER ROLE {role} LOGIN",
    "ALTER ROLE {role} SET lock_timeout = 0",
    "CREATE ROLE mine",
    "ALTER SYSTEM SET fsync = off",
    "CREATE SCHEMA mine",
    "CREATE TABLE public.mine (x int)",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION plperlu",
    "CREATE LANGUAGE plpython3u",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION public.mine()",
    "DROP TRIGGER clips_obey_the_law ON clips",
    "DROP FUNCTION check_document(jsonb, boolean) CASCADE",
    "COPY clips FROM PROGRAM 'true'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY clips (id) FROM '/etc/passwd'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{owner}' AND pid <> pg_backend_pid()",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = '{owner}' AND pid <> pg_backend_pid()",
    "SELECT pg_reload_conf()",
    "SELECT rolpassword FROM pg_authid",
    "SELECT FROM pg_subscription WHERE subconninfo IS NULL",
    "UPDATE pg_class SET relname = relname",
    "UPDATE pg_proc SET prosrc = 'SELECT true' WHERE proname = 'status_may_move'",
)
_LOCKS = {  # by the privilege that any one of suffices
    "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE": {"UPDATE", "DELETE", "TRUNCATE"},
    "LOCK TABLE {table} IN SHARE MODE": {"UPDATE", "DELETE", "TRUNCATE"},
}
_ROW_LOCKS = ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One statement of one role, and whether it may."""

    role: str
    statement: str
    may: bool


def attempts(role: str, tables: dict[str, list[str]], names: dict[str, str]) -> Iterator[Attempt]:
    """Everything that is tried in *role*: *tables* with the columns they have, *names* to be filled in."""
    for table, columns in tables.items():
        known = {**names, "role": role, "table": table}
        for verb, forms in _BY_COLUMN.items():
            for column in columns:
                for form in forms:
                    if verb == "SELECT" or not _is_generated(table, column):
                        yield Attempt(role, form.format(**known, column=column), may(role, table, verb, column))
        for verb, forms in _BY_TABLE.items():
            for form in forms:
                yield Attempt(role, form.format(**known), may(role, table, verb, ""))
        for form, suffice in _LOCKS.items():
            yield Attempt(role, form.format(**known), bool(suffice & set(_whole(role, table))))
        for strength in _ROW_LOCKS:
            yield Attempt(role, f"SELECT FROM {table} {strength}", may_lock_rows(role, table))
        for form in _OWNERS:
            yield Attempt(role, form.format(**known), False)
    other = next(one for one in ROLES if one != role)
    for form in _WAYS_ROUND:
        yield Attempt(role, form.format(**names, role=role, other=other), False)


def may(role: str, table: str, verb: str, column: str) -> bool:
    """Whether *role* may do *verb* to that column, or to the table."""
    if role == "orchestrator_api" and verb == "UPDATE" and table in API_WRITES:
        return column in API_WRITES[table]
    if role == "orchestrator_api" and table == "clips":
        return {"SELECT": column not in API_NEVER_READS, "INSERT": column in API_INSERTS}.get(verb, False)
    return verb in _whole(role, table)


def may_lock_rows(role: str, table: str) -> bool:
    """Whether *role* may hold rows of *table*: one column that it may update suffices."""
    return "UPDATE" in _whole(role, table) or _writes_a_column(role, table)


def _writes_a_column(role: str, table: str) -> bool:
    return role == "orchestrator_api" and table in API_WRITES


def _whole(role: str, table: str) -> list[str]:
    return MAY[role].get(table, "").split()


def _is_generated(table: str, column: str) -> bool:
    """Columns that the database fills itself: everybody's value is refused for that."""
    filled = ("clip_events", "clip_signals", "webhook_deliveries", "provider_calls", "worker_failures")
    return table in filled and column == "id"


async def tables_of(connection: Any) -> dict[str, list[str]]:
    """Every table and view of the schema, with its columns."""
    rows = await connection.fetch(
        "SELECT c.relname AS name, array_agg(quote_ident(a.attname) ORDER BY a.attnum) AS columns FROM pg_class AS c"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        " GROUP BY c.relname ORDER BY c.relname"
    )
    return {row["name"]: list(row["columns"]) for row in rows}


async def is_permitted(connection: Any, statement: str) -> bool:
    """Whether *statement* gets past the privileges; what it then meets does not matter, and nothing of it stays."""
    if statement.startswith("ALTER SYSTEM"):  # no transaction may hold it
        return not await _is_insufficient(connection, statement)
    trial = connection.transaction()
    await trial.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except asyncpg.PostgresError as problem:
        # "must be superuser" has other codes, too; what is not there cannot be had, either.
        return not isinstance(problem, asyncpg.FeatureNotSupportedError | asyncpg.UndefinedFileError)
    finally:
        await trial.rollback()
    return True


async def _is_insufficient(connection: Any, statement: str) -> bool:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False
