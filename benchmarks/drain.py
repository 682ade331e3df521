"""How fast a backlog of signals is judged, against the same moves without judge, guards or law.

The floor is one statement a batch over bare tables: find what is pending by a partial index, lock it, move it, clear
it, write history. The product's own `drain` does as much for as many clips of a table as large, with its trigger,
epoch and compare-and-set, and decides each move in Python.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, at_least, medians, ratio, take_turns
from orchestrator.monitor.judging import drain
from orchestrator.monitor.leadership import Lease, Term
from orchestrator.storage.pool import create_pool
from statusutils import STREAM

BARE_TABLES = """
CREATE TABLE bare_clips (id text PRIMARY KEY, status text NOT NULL, progress numeric(5, 2) NOT NULL, asked text,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 70);
CREATE INDEX bare_clips_pending ON bare_clips (id) WHERE asked IS NOT NULL;
CREATE TABLE bare_events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, clip_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), from_status text, to_status text);
CREATE INDEX bare_events_of_clip ON bare_events (clip_id, id);
"""
BARE_DRAIN = """
WITH due AS MATERIALIZED (
    SELECT id, status, asked FROM bare_clips WHERE asked IS NOT NULL ORDER BY id LIMIT $1
       FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE bare_clips c SET status = due.asked, progress = greatest(progress, $2), asked = NULL,
           updated_at = clock_timestamp()
      FROM due WHERE c.id = due.id RETURNING c.id, due.status AS was, c.status
), written AS (
    INSERT INTO bare_events (clip_id, from_status, to_status) SELECT id, was, status FROM moved
)
SELECT count(*) FROM moved
"""
BATCH = 500

# As a step of the engine's own reports what it has seen.
_SAID = {"reason": "Cloudflare says it", "facts": {"duration": 12.5}, "cloudflare_status": "ready"}
_FILE = """
INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, observed)
SELECT id, 1, $1, 'monitor', $2, true FROM clips ORDER BY id LIMIT $3
"""
_ASK_BARE = """
UPDATE bare_clips SET asked = $1 WHERE id IN (SELECT id FROM bare_clips ORDER BY id LIMIT $2)
"""


async def measure(place: Place) -> list[Row]:
    """Clips a second, by rounds that each take the whole backlog one status further."""
    clips, backlog = place.amount((20_000, 5_000), (100_000, 20_000))
    async with started_server(place) as server:
        database = await make_database(server, "drain")
        async with _ground(database, clips) as (owner, pool, lease, term):
            bare_steps, steps = (iter(STREAM.statuses[1:-1]) for _ in range(2))

            async def bare() -> float:
                status = next(bare_steps)
                await owner.execute(_ASK_BARE, status.name, backlog)
                await owner.execute("CHECKPOINT")
                began = time.perf_counter()
                while await owner.fetchval(BARE_DRAIN, BATCH, status.min_progress) == BATCH:
                    pass
                return float(backlog / (time.perf_counter() - began))

            async def product() -> float:
                status = next(steps).name
                await owner.execute(_FILE, status, json.dumps(_SAID), backlog)
                await owner.execute("CHECKPOINT")
                await lease.renew(term, 0.0)
                began = time.perf_counter()
                moves = await drain(pool, term, lambda: datetime.now(UTC))
                took = time.perf_counter() - began
                if len(moves) != backlog or any(move.after.status != status for move in moves):
                    raise RuntimeError(f"{len(moves)} of {backlog} clips were moved")
                return float(backlog / took)

            taken = await take_turns({"bare": bare, "product": product}, rounds=place.amount(5, 7))
    figures = {f"{name} clips/s": figure for name, figure in medians(taken).items()}
    return [Row("backlog drain, product to bare", ratio(taken, "product", "bare"), at_least(0.7), figures=figures)]


@asynccontextmanager
async def _ground(database: str, clips: int) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Pool, Lease, Term]]:
    owner = await asyncpg.connect(database)
    await owner.execute(BARE_TABLES)
    await owner.execute(
        "INSERT INTO clips (id, cloudflare_uid, title) SELECT id, md5(id), 'A title' FROM unnest($1::text[]) AS id",
        list(_ids(clips)),
    )
    await owner.execute("INSERT INTO bare_clips (id, status, progress) SELECT id, status, progress FROM clips")
    await owner.execute("VACUUM ANALYZE")
    pool = await create_pool(database, "orchestrator_monitor", "benchmark")
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    if term is None:
        raise RuntimeError("another monitor leads")
    try:
        yield owner, pool, lease, term
    finally:
        await pool.close()
        await owner.close()


def _ids(count: int) -> Iterator[str]:
    return (f"clip_{number:08}" for number in range(count))
