"""How long it takes from a signal's commit to its status's, against a bare listener that starts a bare drain.

The leader is a process of its own; who asks hears of the change by the notification that goes out with the leader's
commit, the same way for both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.drain import BARE_TABLES
from benchmarks.harness import Place, Row, at_most, percentile
from benchmarks.leading import BARE_CHANGED, WAKE_BARE, leading
from orchestrator.storage.pool import connect
from signals import CHANGED_CHANNEL, WakeUps, signal_status_update, wake

# Enough to be over long before the next one comes.
APART_SECONDS = 0.02
LATE_SECONDS = 10.0
LOADED_PER_SECOND = 1_000
CLIENTS = 8

_ASK_BARE = "UPDATE bare_clips SET asked = 'error' WHERE id = $1"

Ask = Callable[[asyncpg.Connection, str], Awaitable[object]]


class _Watch:
    """When each clip's signal was committed, and how long after it its change was told."""

    def __init__(self) -> None:
        self.began: set[str] = set()
        self.asked: dict[str, float] = {}
        self.told: dict[str, float] = {}

    def hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        now = time.perf_counter()
        for clip_id in payload.split(","):
            if clip_id in self.began:
                self.told.setdefault(clip_id, now)

    async def milliseconds(self) -> list[float]:
        """All of them, once the last has been told."""
        async with asyncio.timeout(LATE_SECONDS):
            while len(self.told.keys() & self.asked.keys()) < len(self.asked):
                await asyncio.sleep(0.01)
        return [1000 * max(self.told[clip_id] - at, 0.0) for clip_id, at in self.asked.items()]


async def measure(place: Place) -> list[Row]:
    """One after another while nothing else happens; then a thousand a second."""
    one_by_one, loaded_seconds = place.amount((100, 4), (1_000, 30))
    idle: dict[str, list[float]] = {"bare": [], "product": []}
    async with started_server(place) as server:
        database = await make_database(server, "latency")
        owner = await asyncpg.connect(database)
        await owner.execute(BARE_TABLES)
        turns = [(name, turn) for turn in range(4) for name in idle]
        for name, turn in turns:
            idle[name] += await _one_by_one(name, database, owner, f"{name}{turn}_", one_by_one // 4)
        loaded = await _under_load(database, owner, loaded_seconds)
        await owner.close()
    p50 = {name: percentile(values, 0.5) for name, values in idle.items()}
    p99 = {name: percentile(values, 0.99) for name, values in idle.items()}
    beside = {f"{name} p50 ms": round(value, 2) for name, value in p50.items()}
    return [
        Row("idle, p50 of product to bare", p50["product"] / p50["bare"], at_most(1.5), figures=beside),
        Row("idle, p99", p99["product"], at_most(10), "ms", {"bare p99 ms": round(p99["bare"], 2)}),
        Row(
            f"{LOADED_PER_SECOND} signals a second, p99",
            percentile(loaded, 0.99),
            at_most(50),
            "ms",
            {"p50 ms": round(percentile(loaded, 0.5), 1), "signals a second": round(len(loaded) / loaded_seconds)},
        ),
    ]


async def _one_by_one(name: str, database: str, owner: asyncpg.Connection, prefix: str, count: int) -> list[float]:
    ids = [f"{prefix}{number:06}" for number in range(count + 5)]
    async with _asking(name, database, owner, ids) as (watch, clients, ask, hint):
        for clip_id in ids:
            watch.began.add(clip_id)
            await ask(clients[0], clip_id)
            watch.asked[clip_id] = time.perf_counter()
            hint()
            await asyncio.sleep(APART_SECONDS)
        return (await watch.milliseconds())[5:]  # the first ones meet statements that are not prepared yet


async def _under_load(database: str, owner: asyncpg.Connection, seconds: float) -> list[float]:
    ids = [f"loaded_{number:07}" for number in range(int(LOADED_PER_SECOND * seconds))]
    async with _asking("product", database, owner, ids) as (watch, clients, ask, hint):
        began = time.perf_counter()

        async def client(number: int) -> None:
            for place in range(number, len(ids), CLIENTS):
                await asyncio.sleep(max(0.0, began + place / LOADED_PER_SECOND - time.perf_counter()))
                if time.perf_counter() - began > seconds:
                    return  # the load could not be made in time; what was asked is told beside the figure
                watch.began.add(ids[place])
                await ask(clients[number], ids[place])
                watch.asked[ids[place]] = time.perf_counter()
                hint()

        await asyncio.gather(*map(client, range(CLIENTS)))
        return await watch.milliseconds()


@asynccontextmanager
async def _asking(
    name: str, database: str, owner: asyncpg.Connection, ids: list[str]
) -> AsyncIterator[tuple[_Watch, list[asyncpg.Connection], Ask, Callable[[], None]]]:
    """A leader, somebody who hears what it changes, and *ids* as new clips."""
    is_bare = name == "bare"
    if is_bare:
        await owner.execute(
            "INSERT INTO bare_clips (id, status, progress) SELECT unnest($1::text[]), 'uploading', 15", ids
        )
    else:
        await owner.execute("INSERT INTO clips (id) SELECT unnest($1::text[])", ids)
        # Nobody looks at them, so that what is told of a clip is what became of its signal.
        await owner.execute("UPDATE clips SET look_at = clock_timestamp() + interval '1 day' WHERE id = ANY($1)", ids)
    await owner.execute("ANALYZE")
    watch = _Watch()
    role = None if is_bare else "orchestrator_api"
    async with leading(name, database):
        listener, hinter, *clients = [await connect(database, role, "benchmark") for _ in range(CLIENTS + 2)]
        await listener.add_listener(BARE_CHANGED if is_bare else CHANGED_CHANNEL, watch.hear)
        send = partial(hinter.execute, f"NOTIFY {WAKE_BARE}") if is_bare else partial(wake, hinter)
        wakeups = WakeUps(send)
        await asyncio.sleep(0.5)  # the leader looks at what is new once, and has done so
        yield watch, clients, _ask_bare if is_bare else _ask, wakeups.wake
        await wakeups.close()
        for connection in (listener, hinter, *clients):
            await connection.close()


async def _ask(client: asyncpg.Connection, clip_id: str) -> None:
    await signal_status_update(client, clip_id, "error", {}, "benchmark")


async def _ask_bare(client: asyncpg.Connection, clip_id: str) -> None:
    await client.execute(_ASK_BARE, clip_id)
