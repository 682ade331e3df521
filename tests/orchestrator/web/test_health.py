"""Alive and ready: what supervisors see of a process, its database and the monitor behind it."""

from __future__ import annotations

import pytest

from orchestrator.storage import pool
from orchestrator.web import health


async def test_a_process_is_alive_also_when_its_database_rests(client, place):
    await place.services.pool.close()
    answer = await client.get("/healthz")
    assert (answer.status, (await answer.json())["status"]) == (200, "ok")


async def test_it_is_ready_and_tells_the_age_of_the_monitors_last_round(client, place):
    assert (await (await client.get("/readyz")).json())["monitor_round_age_seconds"] is None
    await place.owner.execute("UPDATE monitor_lease SET round_at = clock_timestamp() - interval '90 s'")
    answer = await client.get("/readyz")
    ready = await answer.json()
    assert (answer.status, ready["status"], ready["migrations"]) == (200, "ready", "applied")
    assert 90 <= ready["monitor_round_age_seconds"] < 120


async def test_it_is_not_ready_without_its_database(client, place):
    await place.services.pool.close()
    answer = await client.get("/readyz")
    assert (answer.status, (await answer.json())["code"]) == (503, "not-ready-yet")


def test_a_probe_is_told_within_three_seconds_that_the_database_is_silent():
    """What the question may take, and giving its connection back: most probes wait no longer."""
    assert health._TIMEOUT_SECONDS + pool._RELEASE_SECONDS <= 3.0


async def test_it_is_not_ready_on_a_database_that_takes_no_writes(client, place):
    """So it is with a standby that is not promoted yet."""
    name = await place.owner.fetchval("SELECT quote_ident(current_database())")
    await place.owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        await place.services.pool.expire_connections()
        answer = await client.get("/readyz")
        told = await answer.json()
        assert (answer.status, told["code"], told["detail"]) == (503, "not-ready-yet", "The database takes no writes")
    finally:
        await place.owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await place.services.pool.expire_connections()
    assert (await client.get("/readyz")).status == 200


async def test_it_is_not_ready_while_a_migration_is_pending(client, place):
    name, sha256 = await place.owner.fetchrow("SELECT name, sha256 FROM schema_migrations ORDER BY name DESC LIMIT 1")
    await place.owner.execute("DELETE FROM schema_migrations WHERE name = $1", name)
    try:
        answer = await client.get("/readyz")
        assert answer.status == 503
        assert name in (await answer.json())["detail"]
    finally:
        await place.owner.execute("INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", name, sha256)


async def test_it_stays_ready_while_a_newer_program_has_already_migrated(client, place):
    await place.owner.execute("INSERT INTO schema_migrations (name, sha256) VALUES ('9999_from_the_future.sql', 'x')")
    try:
        answer = await client.get("/readyz")
        assert (answer.status, (await answer.json())["migrations"]) == (200, "differ")
    finally:
        await place.owner.execute("DELETE FROM schema_migrations WHERE name LIKE '9999%'")


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/api/openapi.json", "/api/docs", "/", "/favicon.ico"]
)
async def test_a_head_is_answered_like_a_get_without_its_body(client, path):
    answer = await client.head(path)
    assert (answer.status, await answer.read()) == (200, b"")
