"""How fast signals are taken, against the bare UPDATE that merges a document; eight clients, one commit each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, at_least, medians, ratio, take_turns
from orchestrator.storage.pool import connect
from signals import signal_status_update

CLIENTS = 8
CLIPS = 2_000  # a client's share of signals for one clip stays far below the thousand that may wait

_BARE_TABLE = """
CREATE TABLE bare_documents (id text PRIMARY KEY, processing_details jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 70)
"""
_BARE = "UPDATE bare_documents SET processing_details = processing_details || $2 WHERE id = $1"
_DETAILS = {"mp4_status": "inprogress", "mp4_percent_complete": 40.0}


async def measure(place: Place) -> list[Row]:
    """Signals a second, by rounds of a few seconds each."""
    seconds = place.amount(1.0, 5.0)
    async with started_server(place) as server:
        database = await make_database(server, "asking")
        owner = await asyncpg.connect(database)
        ids = [f"clip_{number:08}" for number in range(CLIPS)]
        await owner.execute(_BARE_TABLE)
        await owner.execute("INSERT INTO bare_documents (id) SELECT unnest($1::text[])", ids)
        await owner.execute("INSERT INTO clips (id) SELECT unnest($1::text[])", ids)
        await owner.execute("VACUUM ANALYZE")
        clients = [await connect(database, "orchestrator_api", "benchmark") for _ in range(CLIENTS)]
        bare_clients = [await asyncpg.connect(database) for _ in range(CLIENTS)]

        async def bare_one(client: asyncpg.Connection, clip_id: str) -> None:
            await client.execute(_BARE, clip_id, json.dumps({**_DETAILS, "requested_status": "waitformp4"}))

        async def product_one(client: asyncpg.Connection, clip_id: str) -> None:
            await signal_status_update(client, clip_id, "waitformp4", _DETAILS, "benchmark")

        async def bare() -> float:
            return await _rate(bare_clients, ids, bare_one, seconds)

        async def product() -> float:
            await owner.execute("DELETE FROM clip_signals; UPDATE clips SET pending = 0")
            return await _rate(clients, ids, product_one, seconds)

        taken = await take_turns({"bare": bare, "product": product}, rounds=place.amount(5, 9))
        for connection in (owner, *clients, *bare_clients):
            await connection.close()
    figures = {f"{name} signals/s": figure for name, figure in medians(taken).items()}
    return [Row("one signal, product to bare UPDATE", ratio(taken, "product", "bare"), at_least(0.8), figures=figures)]


async def _rate(
    clients: list[asyncpg.Connection],
    ids: list[str],
    ask: Callable[[asyncpg.Connection, str], Awaitable[None]],
    seconds: float,
) -> float:
    """What all clients together get done in a second; each keeps to clips of its own."""
    ends = time.perf_counter() + seconds

    async def one(number: int, client: asyncpg.Connection) -> int:
        own, done = ids[number::CLIENTS], 0
        while time.perf_counter() < ends:
            await ask(client, own[done % len(own)])
            done += 1
        return done

    began = time.perf_counter()
    done = await asyncio.gather(*(one(number, client) for number, client in enumerate(clients)))
    return sum(done) / (time.perf_counter() - began)
