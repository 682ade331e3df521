"""How fast clips go through all eight statuses, against the floor that does nothing but write them in batches.

The product's monitor is the real one with the real plan and law, in a process of its own; its hands answer at once. The
floor files the next status of every clip and drains them 500 at a time over bare tables, eight times over.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.drain import BARE_DRAIN, BARE_TABLES, BATCH
from benchmarks.harness import Place, Row, at_least, medians, ratio, take_turns
from benchmarks.leading import leading
from statusutils import STREAM

LATE_SECONDS = 150.0
STEPS = STREAM.statuses[1:-1]

_FILE_BARE = """
UPDATE bare_clips SET asked = $2 WHERE id = ANY(ARRAY(
    SELECT id FROM bare_clips WHERE status = $1 ORDER BY id LIMIT $3))
"""


async def measure(place: Place) -> list[Row]:
    """Steps a second: each clip makes eight."""
    clips = place.amount(1_000, 5_000)
    async with started_server(place) as server:
        database = await make_database(server, "machine")
        owner = await asyncpg.connect(database)
        await owner.execute(BARE_TABLES)

        async def bare() -> float:
            await owner.execute(
                "TRUNCATE bare_clips, bare_events; INSERT INTO bare_clips (id, status, progress)"
                f" SELECT 'clip_' || n, '{STREAM.first.name}', 15 FROM generate_series(1, {clips}) AS n"
            )
            await owner.execute("CHECKPOINT")
            began = time.perf_counter()
            standing = STREAM.first.name
            for step in STEPS:
                for _ in range(0, clips, BATCH):
                    await owner.execute(_FILE_BARE, standing, step.name, BATCH)
                    await owner.fetchval(BARE_DRAIN, BATCH, step.min_progress)
                standing = step.name
            return float(clips * len(STEPS) / (time.perf_counter() - began))

        async def product() -> float:
            return await product_steps(owner, database, clips)

        taken = await take_turns({"bare": bare, "product": product}, rounds=place.amount(2, 5))
        await owner.close()
    figures = {f"{name} steps/s": figure for name, figure in medians(taken).items()}
    return [
        Row("eight-step machine, product to floor", ratio(taken, "product", "bare"), at_least(0.5), figures=figures)
    ]


async def product_steps(owner: asyncpg.Connection, database: str, clips: int) -> float:
    """Steps a second of the product's monitor, from so many clips' being created until all are complete."""
    await owner.execute("TRUNCATE clips, clip_events, clip_signals")
    async with leading("product", database):
        await owner.execute("CHECKPOINT")
        began = time.perf_counter()
        await owner.execute(
            "INSERT INTO clips (id, cloudflare_uid) SELECT 'clip_' || n, 'uid_' || n"
            f" FROM generate_series(1, {clips}) AS n"
        )
        async with asyncio.timeout(LATE_SECONDS):
            while await owner.fetchval("SELECT count(*) FROM clips WHERE status <> 'complete'"):
                await asyncio.sleep(0.05)
        took = time.perf_counter() - began
    moves = await owner.fetchval("SELECT count(*) FROM clip_events WHERE kind = 'moved'")
    # Two steps of one clip that are judged together are one move; no more than these two ever are.
    if not clips * (len(STEPS) - 1) <= moves <= clips * len(STEPS):
        raise RuntimeError(f"{clips} clips made {moves} moves")
    return float(moves / took)
