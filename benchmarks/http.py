"""The web process: signals and notifications against a bare handler that shares commits, reads against a bare SELECT.

Both processes are called by the same lean sender over the same number of connections, in turns, on one durable
PostgreSQL. The product does all it ever does: tokens, signatures, checks, the law's trigger, the inbox, the headers.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import asyncpg

from benchmarks.bare_web import TABLES
from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, Subject, at_least, at_most, medians, ratio, take_turns
from benchmarks.web_processes import Served, bare, get, notice_call, product, send, signal_call

CLIPS = 2_000
# Enough to fill commits; with more, the time to the answer only tells how many wait before one.
CONNECTIONS = 32
_IDS = [f"clip-{number:04}" for number in range(CLIPS)]
_UIDS = [f"{number:032x}" for number in range(CLIPS)]


@dataclass
class Ground:
    """The two processes, and a connection that puts their tables back."""

    product: Served
    bare: Served
    rows: asyncpg.Connection
    seconds: float

    async def reset(self) -> None:
        """Documents empty, nothing pending, no dead rows, no write-ahead log to be written: each turn starts alike."""
        await self.rows.execute("SET session_replication_role = replica")
        await self.rows.execute("TRUNCATE clip_signals; UPDATE clips SET processing_details = '{}', pending = 0")
        await self.rows.execute("UPDATE bare_clips SET processing_details = '{}'")
        for statement in ("VACUUM clips", "VACUUM bare_clips", "CHECKPOINT"):
            await self.rows.execute(statement)


async def measure(place: Place) -> list[Row]:
    """Rows of the goals: signals, notifications, status, 304, and the idle process."""
    async with started_server(place) as server:
        dsn = await make_database(server, "web")
        rows = await asyncpg.connect(dsn)
        await rows.execute(TABLES)
        pairs = list(zip(_IDS, _UIDS, strict=True))
        await rows.executemany("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", pairs)
        await rows.executemany("INSERT INTO bare_clips (id, uid) VALUES ($1, $2)", pairs)
        await rows.execute("VACUUM ANALYZE")
        async with product(dsn, place.directory) as shipped, bare(dsn, place.directory) as ceiling:
            found = await _idle(shipped, place.amount(5, 60))
            ground = Ground(shipped, ceiling, rows, place.amount(0.7, 4.0))
            rounds = place.amount(3, 9)
            found += await _writes(ground, "HTTP signal", [signal_call(*one) for one in _numbered(_IDS)], rounds)
            found += await _writes(ground, "webhook with signature", _notices, rounds)
            found += await _reads(ground, rounds)
        await rows.close()
    return found


async def _idle(process: Served, seconds: float) -> list[Row]:
    """What it costs when nobody calls."""
    await asyncio.sleep(2)  # the end of its start
    before = process.cpu_seconds()
    await asyncio.sleep(seconds)
    percent = 100 * (process.cpu_seconds() - before) / seconds
    memory = process.resident_bytes() / 1000**2
    return [
        Row("idle web process: of one core", percent, at_most(0.5), "%", {"seconds": seconds}),
        Row(
            "idle web process: memory", memory, at_most(60), "MB", {"private_MB": round(process.private_bytes() / 1e6)}
        ),
    ]


Requests = Sequence[str] | Callable[[], Sequence[str]]


async def _writes(ground: Ground, what: str, requests: Requests, rounds: int) -> list[Row]:
    told: dict[str, list[Any]] = defaultdict(list)
    subjects = {name: _subject(ground, name, process, requests, told) for name, process in _both(ground).items()}
    taken = await take_turns(subjects, rounds)
    p99 = median(one["p99_ms"] for one in told["product"][1:])
    return [
        Row(f"{what} against the bare shared transaction", ratio(taken, "product", "bare"), at_least(0.8), "",
            {"connections": CONNECTIONS, **_a_second(taken), **_processor(told)}),
        Row(f"{what}: p99 at the most it takes", p99, at_most(15), "ms",
            {"bare_p99_ms": round(median(one["p99_ms"] for one in told["bare"][1:]), 1)}),
    ]  # fmt: skip


async def _reads(ground: Ground, rounds: int) -> list[Row]:
    told: dict[str, list[Any]] = defaultdict(list)
    status = [get(f"/api/clips/{clip_id}/status") for clip_id in _IDS]
    subjects = {name: _subject(ground, name, process, status, told) for name, process in _both(ground).items()}
    taken = await take_turns(subjects, rounds)
    rows = [
        Row("status read against the bare SELECT", ratio(taken, "product", "bare"), at_least(0.8), "",
            {**_a_second(taken), **_processor(told)}),
    ]  # fmt: skip
    whole = [get(f"/api/clips/{clip_id}") for clip_id in _IDS]
    versions = dict(await ground.rows.fetch("SELECT id, version FROM clips"))
    known = [get(f"/api/clips/{clip_id}", f'If-None-Match: "v{versions[clip_id]}"') for clip_id in _IDS]
    told = defaultdict(list)
    subjects = {
        "full": _subject(ground, "full", ground.product, whole, told, resets=False),
        "not_modified": _subject(ground, "not_modified", ground.product, known, told, resets=False),
    }
    taken = await take_turns(subjects, rounds)
    answers = {status for one in told["not_modified"] for status in one["statuses"]}
    assert answers == {"304"}, answers
    value = ratio(taken, "not_modified", "full")
    rows.append(
        Row("304 against a full read of the clip", value, at_least(2), "", {**_a_second(taken), **_processor(told)})
    )
    return rows


def _both(ground: Ground) -> dict[str, Served]:
    return {"product": ground.product, "bare": ground.bare}


def _subject(
    ground: Ground,
    name: str,
    process: Served,
    requests: Requests,
    told: Mapping[str, list[Any]],
    *,
    resets: bool = True,
) -> Subject:
    async def take() -> float:
        if resets:
            await ground.reset()
        ready = requests() if callable(requests) else requests
        before = process.cpu_seconds()
        one = await send(process, ready, ground.seconds, CONNECTIONS, random.randrange(CLIPS))
        one["cpu_us"] = (process.cpu_seconds() - before) / one["count"] * 1e6
        assert all(status < "400" for status in one["statuses"]), one["statuses"]
        told[name].append(one)
        return float(one["per_second"])

    return take


def _notices() -> list[str]:
    return [notice_call(*one) for one in _numbered(_UIDS)]


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, number) for number, name in enumerate(names)]


def _a_second(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {f"{name}_a_second": value for name, value in medians(taken).items()}


def _processor(told: Mapping[str, list[Any]]) -> dict[str, int]:
    """What a call costs each process: what a busy neighbour changes least."""
    return {f"{name}_cpu_us": round(median(one["cpu_us"] for one in every[1:])) for name, every in told.items()}
