"""What each role may do, verb by verb and column by column: what is not named here is refused."""

from __future__ import annotations

import asyncpg
import pytest

CLIPS_WRITTEN_BY_THE_API = {"processing_details"}
CLIPS_INSERTED_BY_THE_API = {
    "id", "pipeline", "cloudflare_uid", "title", "processing_details", "source_url", "upload_expires_at",
}  # fmt: skip
CLIPS_HIDDEN_FROM_THE_API = {"source_url"}

# Of clips only what both may do with whole rows; the API's columns are above.
MAY = {
    "orchestrator_api": {
        "clip_events": {"SELECT"},
        "clip_signals": {"SELECT"},
        "history_pruning": {"SELECT"},
        "monitor_lease": {"SELECT"},
        "schema_migrations": {"SELECT"},
        "call_budget": {"SELECT", "INSERT", "UPDATE"},
        "idempotency_keys": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "uploads": {"SELECT", "INSERT"},
        "artifacts": {"SELECT"},
        "webhook_deliveries": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "webhook_refusals": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "provider_calls": {"SELECT", "INSERT", "DELETE"},
        "clip_pgqueuer": {"SELECT"},
        "workers": {"SELECT"},
    },
    "orchestrator_monitor": {
        "clips": {"SELECT", "INSERT", "UPDATE"},
        "clip_events": {"SELECT", "INSERT", "DELETE"},
        "history_pruning": {"SELECT", "UPDATE"},
        "clip_signals": {"SELECT", "INSERT", "DELETE"},
        "monitor_lease": {"SELECT", "UPDATE"},
        "schema_migrations": {"SELECT"},
        "call_budget": {"SELECT", "INSERT", "UPDATE"},
        "transfers": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "transfer_parts": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "uploads": {"SELECT", "DELETE"},
        "artifacts": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "provider_calls": {"SELECT", "INSERT", "DELETE"},
        "provider_asks": {"SELECT", "INSERT", "DELETE"},
        "clip_pgqueuer": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "clip_pgqueuer_log": {"SELECT", "INSERT", "DELETE"},
        "workers": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "worker_progress": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "worker_failures": {"SELECT", "INSERT", "DELETE"},
    },
}
GENERATED = {
    ("clip_events", "id"),
    ("clip_signals", "id"),
    ("webhook_deliveries", "id"),
    ("provider_calls", "id"),
    ("worker_failures", "id"),
}
VERBS = {
    "SELECT": "SELECT {column} FROM {table} WHERE false",
    "INSERT": "INSERT INTO {table} ({column}) SELECT NULL WHERE false",
    "UPDATE": "UPDATE {table} SET {column} = NULL WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
    "TRUNCATE": "TRUNCATE {table} CASCADE",
}


async def columns_of_all_tables(connection: asyncpg.Connection) -> dict[str, list[str]]:
    rows = await connection.fetch(
        "SELECT table_name, array_agg(column_name::text) AS columns FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' GROUP BY table_name"
    )
    return {row["table_name"]: row["columns"] for row in rows}


async def is_permitted(connection: asyncpg.Connection, statement: str) -> bool:
    """Whether *statement* gets past the privileges; what it then meets does not matter, and nothing stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except asyncpg.PostgresError:
        return True
    finally:
        await transaction.rollback()
    return True


def expected(role: str, table: str, verb: str, column: str) -> bool:
    if role == "orchestrator_api" and table == "clips":
        by_column = {
            "SELECT": column not in CLIPS_HIDDEN_FROM_THE_API,
            "INSERT": column in CLIPS_INSERTED_BY_THE_API,
            "UPDATE": column in CLIPS_WRITTEN_BY_THE_API,
        }
        return by_column.get(verb, False)
    if (role, table, verb, column) == ("orchestrator_api", "uploads", "UPDATE", "used_at"):
        return True
    return verb in MAY[role].get(table, set())


@pytest.mark.parametrize("role", ["orchestrator_api", "orchestrator_monitor"])
async def test_every_verb_on_every_column_of_every_table(
    acting: asyncpg.Connection, owner: asyncpg.Connection, role: str
) -> None:
    connection = acting
    differing = []
    for table, columns in (await columns_of_all_tables(owner)).items():
        for verb, form in VERBS.items():
            for column in columns if "{column}" in form else columns[:1]:
                if (table, column) in GENERATED and verb in ("INSERT", "UPDATE"):
                    continue  # generated always: nobody writes them
                permitted = await is_permitted(connection, form.format(table=table, column=column))
                if permitted != expected(role, table, verb, column):
                    differing.append((table, column, verb, "permitted" if permitted else "refused"))
    assert differing == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE clips SET status = 'complete'",
        "UPDATE clips SET progress = 100",
        "UPDATE clips SET processing_details = '{}', status = 'complete'",
        "UPDATE clips SET r2_url = 'https://elsewhere.example/'",
        "INSERT INTO clips (id, status) VALUES ('d', 'complete')",
        "INSERT INTO clips (id, progress) VALUES ('d', 100)",
        "INSERT INTO clip_events (clip_id, kind, attempt, source) VALUES ('c', 'moved', 1, 'me')",
        "INSERT INTO clip_signals (clip_id, attempt, requested_status, source, observed)"
        " VALUES ('c', 1, 'complete', 'me', true)",
        "DELETE FROM clips",
        "DELETE FROM clip_events",
        "DELETE FROM clip_signals",
        "TRUNCATE clips",
        "UPDATE monitor_lease SET holder = 'me'",
        "ALTER TABLE clips DISABLE TRIGGER ALL",
        "DROP TRIGGER clips_obey_the_law ON clips",
        "SET session_replication_role = replica",
        "CREATE TABLE public.mine (x int)",
        "CREATE OR REPLACE FUNCTION public.status_may_move(pipeline text, old text, new text) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT true'",
        "UPDATE schema_migrations SET sha256 = ''",
    ],
)
async def test_the_api_cannot_move_a_clip_even_by_mistake(api: asyncpg.Connection, statement: str) -> None:
    await api.execute("INSERT INTO clips (id) VALUES ('c')")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await api.execute(statement)
    row = await api.fetchrow("SELECT status, progress, processing_details, version FROM clips")
    assert tuple(row) == ("uploading", 15, "{}", 1)


async def test_temporary_tables_do_not_stand_in_for_the_real_ones(
    api: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    """The triggers act with their owner's rights: what they touch must not be chosen by the session."""
    await api.execute("INSERT INTO clips (id) VALUES ('c')")
    await api.execute(
        "CREATE TEMP TABLE clip_signals (id bigint, clip_id text, attempt int, requested_status text, source text,"
        " details jsonb, insists boolean);"
        "CREATE TEMP TABLE clip_events (clip_id text, kind text, attempt int, to_status text, progress numeric,"
        " source text, details jsonb);"
        "CREATE TEMP TABLE told (who text);"
        "GRANT ALL ON told, clip_signals, clip_events TO PUBLIC;"
        "CREATE FUNCTION pg_temp.tell() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO pg_temp.told VALUES (current_user); RETURN NEW; END $$;"
        "CREATE TRIGGER tell BEFORE INSERT ON pg_temp.clip_signals FOR EACH ROW EXECUTE FUNCTION pg_temp.tell();"
        "CREATE TRIGGER tell BEFORE INSERT ON pg_temp.clip_events FOR EACH ROW EXECUTE FUNCTION pg_temp.tell()"
    )
    await api.execute('UPDATE clips SET processing_details = \'{"requested_status": "error"}\'')
    await api.execute("INSERT INTO clips (id) VALUES ('d')")
    assert await api.fetchval("SELECT count(*) FROM pg_temp.told") == 0, "the API's code ran with the owner's rights"
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 1
    assert await owner.fetchval("SELECT count(*) FROM clip_events") == 2


async def test_no_function_that_acts_for_its_owner_can_be_called_or_misled(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        "SELECT proname, prorettype = 'trigger'::regtype AS is_trigger, proconfig FROM pg_proc"
        " WHERE prosecdef AND pronamespace = current_schema()::regnamespace"
    )
    assert rows
    for row in rows:
        assert row["is_trigger"], row["proname"]
        paths = [setting for setting in row["proconfig"] or () if setting.startswith("search_path=")]
        assert [path.endswith("pg_temp") for path in paths] == [True], row["proname"]
