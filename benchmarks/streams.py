"""Event streams: how soon a thousand clients know of a change, and what each costs the web process.

The crowd is the one of the lane *streams*. Half of it follows all clips, a quarter one clip, a quarter a page of
fifty; clips are moved as the monitor does it, five at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, at_most
from benchmarks.web_processes import ROOT, TOKEN, product
from signals import CHANGED_CHANNEL

CLIENTS = 1_000
_CLIPS = [f"clip-{number:02}" for number in range(50)]
_TICK_SECONDS = 0.25
_LIMIT_SECONDS = 120.0

Do = Callable[..., Coroutine[Any, Any, Any]]


async def measure(place: Place) -> list[Row]:
    """Rows of the goals: delay of a change, memory of a client."""
    async with started_server(place) as server:
        dsn = await make_database(server, "streams")
        rows = await asyncpg.connect(dsn)
        await rows.executemany("INSERT INTO clips (id) VALUES ($1)", [(clip_id,) for clip_id in _CLIPS])
        await rows.execute("SET ROLE orchestrator_monitor")
        async with product(dsn, place.directory) as shipped, _crowd(shipped.port) as do:
            await do("open", group="warm", count=50)
            await do("close", group="warm")
            await asyncio.sleep(2)
            before = shipped.private_bytes()
            await do("open", group="one", count=CLIENTS // 4, clips=_CLIPS[:1])
            await do("open", group="page", count=CLIENTS // 4, clips=_CLIPS)
            await do("open", group="all", count=CLIENTS // 2)
            await _move(rows, 2)
            await do("report")
            each_kib = (shipped.private_bytes() - before) / CLIENTS / 1024
            used, started = shipped.cpu_seconds(), time.monotonic()
            await _move(rows, place.amount(10, 60))
            await asyncio.sleep(1)
            report = await do("report")
            busy = 100 * (shipped.cpu_seconds() - used) / (time.monotonic() - started)
        await rows.close()
    figures = {"clients": CLIENTS, "p50_ms": round(report["p50_ms"]), "received": report["measured"],
               "cut": report["cut"], "processor_percent": round(busy)}  # fmt: skip
    return [
        Row("change to client, p99", report["p99_ms"], at_most(500), "ms", figures),
        Row("memory of a client", each_kib, at_most(25), "KiB"),
    ]


async def _move(rows: asyncpg.Connection, seconds: float) -> None:
    """Move clips as the monitor does: a batch a transaction, one hint for all of them."""
    chance, ends = random.Random(1), time.monotonic() + seconds
    while time.monotonic() < ends:
        some = chance.sample(_CLIPS, 5)
        async with rows.transaction():
            await rows.execute(
                "UPDATE clips SET progress = progress + 0.01 WHERE id = ANY($1) AND progress < 29.9", some
            )
            await rows.execute("SELECT pg_notify($1, $2)", CHANGED_CHANNEL, ",".join(some))
        await asyncio.sleep(_TICK_SECONDS)


@asynccontextmanager
async def _crowd(port: int) -> AsyncIterator[Do]:
    """The crowd of the lanes, in a process of its own; what is yielded gives it a command and returns its answer."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wire.crowd", "127.0.0.1", str(port), TOKEN,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, limit=16 * 1024 * 1024,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def do(what: str, **arguments: Any) -> Any:
        stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        async with asyncio.timeout(_LIMIT_SECONDS):
            line = await stdout.readline()
        if not line:
            raise RuntimeError(f"the crowd has ended at {what}")
        return json.loads(line)

    try:
        yield do
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
