"""What passed with the provider is read and forgotten by index, however much of it there is."""

from __future__ import annotations

import re

import asyncpg
import pytest

from orchestrator.storage import clips, deliveries, provider_calls

_ROWS = 20_000


@pytest.fixture
async def full(database: str):
    """A database in which as much passed as is kept of some thousand clips."""
    connection = await asyncpg.connect(database)
    await connection.execute("TRUNCATE webhook_deliveries, provider_calls, clip_events RESTART IDENTITY")
    await connection.execute(
        "INSERT INTO webhook_deliveries (clip_id, cloudflare_uid, signature, outcome, size_bytes, body_sha256, body)"
        f" SELECT 'c' || n % 5000, 'u' || n % 5000, 'valid', 'recorded', 1, sha256(n::text::bytea), '{{}}'"
        f" FROM generate_series(1, {_ROWS}) n"
    )
    await connection.execute(
        "INSERT INTO provider_calls (cloudflare_uid, at, operation, call_class, try, waited_ms, took_ms)"
        f" SELECT 'u' || n % 5000, now(), 'get', 'progress', 1, 0, 0 FROM generate_series(1, {_ROWS}) n"
    )
    await connection.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, source)"
        f" SELECT 'c' || n % 5000, 'refused', 1, 'x' FROM generate_series(1, {_ROWS}) n"
    )
    await connection.execute("ANALYZE webhook_deliveries, provider_calls, clip_events")
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        f"{deliveries._READ} ORDER BY received_at DESC, id DESC LIMIT 20",
        f"{deliveries._READ} AND id = 4711",
        deliveries._TRIM,
        deliveries._FORGET,
        provider_calls._FORGET,
        "SELECT * FROM provider_calls WHERE cloudflare_uid = $1 ORDER BY id DESC LIMIT 50",
        f"{clips._EVENTS} ORDER BY id DESC LIMIT 200",
    ],
)
async def test_no_statement_looks_at_every_row(full: asyncpg.Connection, statement: str) -> None:
    one, some = "'c7'", "ARRAY['c7', 'c8']::text[]"
    planned = statement.replace("$1::text[]", some).replace("$1", one)
    plan = "\n".join(row[0] for row in await full.fetch(f"EXPLAIN {planned}"))
    assert not re.search(r"Seq Scan on (webhook_deliveries|provider_calls|clip_events)", plan), plan


async def test_a_clip_keeps_its_newest_and_others_keep_theirs(full: asyncpg.Connection) -> None:
    await full.execute(
        "INSERT INTO webhook_deliveries (clip_id, cloudflare_uid, received_at, signature, outcome, size_bytes,"
        " body_sha256, body) SELECT 'c7', 'u7', now() + n * interval '1 s', 'valid', 'recorded', 1,"
        " sha256(('x' || n)::bytea), n::text FROM generate_series(1, 50) n"
    )
    await full.execute(deliveries._TRIM, ["c7"])
    kept = await deliveries.read_deliveries(full, "c7")
    assert [each.body for each in kept] == [str(n) for n in range(50, 50 - deliveries.KEPT_PER_CLIP, -1)]
    assert len(await deliveries.read_deliveries(full, "c8")) == _ROWS // 5000
