"""A steady load for half a minute, in full for an hour: what grows that should not?

Five hundred signals a second through the public asking functions, over eight connections, for clips that fail and are
tried again without end; a real monitor and a real web process with readers of pages and event streams. Every ten
seconds sizes, dead rows, memory, descriptors, connections and the time from asking to moved are noted in `steady.csv`,
drawn in `steady.svg`, and held against a trend.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.drawing import draw
from benchmarks.harness import Place, Row, at_least, at_most
from benchmarks.sampling import Sampler, flatness, write_csv
from orchestrator.storage.pool import create_pool
from signals import WakeUps, signal_retry, signal_status_update, wake

SIGNALS_A_SECOND = 500
CONNECTIONS = 8
# Each clip is signalled every four seconds: it has been judged long before the next.
CLIPS = 2_000
EVENT_STREAMS = 4
PAGES_A_SECOND = 5
SAMPLE_SECONDS = 10.0
# As docs/growth.md advises for such a load.
SERVER = {"autovacuum_naptime": "15s", "autovacuum_vacuum_cost_limit": "2000"}
# Pools fill, caches warm, the first vacuums come by: a quarter of the time, and no more than ten minutes.
_WARM_UP_SHARE, _WARM_UP_MAX_SECONDS = 0.25, 600.0
_STARTED_SECONDS = 30.0
_CLAIMS = ("queued", "processing", "stream_ready", "waitformp4", "mp4_processing", "queued")
_PATHS = ("/api/clips?limit=50", "/api/clips/{clip}", "/api/clips/{clip}/status", "/api/clips/{clip}/events", "/")


async def measure(place: Place) -> list[Row]:
    """Run the load, keep the samples, and tell what was flat."""
    seconds = place.amount(30.0, 3600.0)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(started_server(place, SERVER))
        dsn = await make_database(server, "steady")
        house = await stack.enter_async_context(_started(place.directory, dsn))
        load = await stack.enter_async_context(_loaded(dsn, house.url))
        owner = await asyncpg.connect(dsn)
        server_pid = await _postmaster(owner)
        sampler = Sampler(owner, {"monitor": house.monitor.pid, "web": house.web.pid, "postgres": server_pid})
        samples = []
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(SAMPLE_SECONDS)
            load.check()
            samples.append(await sampler.sample(time.monotonic() - began))
        rate = load.signals / (time.monotonic() - began)
        await owner.close()
    warm_up = min(_WARM_UP_SHARE * seconds, _WARM_UP_MAX_SECONDS)
    write_csv(place.directory / "steady.csv", samples)
    (place.directory / "steady.svg").write_text(draw(samples, warm_up))
    asked = {"pages": load.pages, "events of streams": load.heard, "minutes": round(seconds / 60)}
    rows = [Row("signals a second against what was meant", rate / SIGNALS_A_SECOND, at_least(0.95), figures=asked)]
    for found in flatness(samples, warm_up):
        figures = {"middle": round(found.middle, 1), "grew by": round(found.growth, 1)}
        rows.append(Row(f"{found.name}: growth since the warm-up against what is allowed",
                        max(0.0, found.growth) / found.allowed, at_most(1.0), figures=figures))  # fmt: skip
    return rows


@dataclass(frozen=True, slots=True)
class _House:
    """The two processes of the product, and where the pages are."""

    monitor: subprocess.Popen[bytes]
    web: subprocess.Popen[bytes]
    url: str


@asynccontextmanager
async def _started(directory: Path, dsn: str) -> AsyncIterator[_House]:
    """A monitor and a web process; neither has anybody to call, as no clip here has a video."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "DATABASE_URL": dsn, "HOST": "127.0.0.1", "PORT": str(port), "CLOUDFLARE_ACCOUNT_ID": "steady",
        "CLOUDFLARE_API_TOKEN": "t" * 20, "CLOUDFLARE_API_URL": "http://127.0.0.1:1",
        "R2_ENDPOINT_URL": "http://127.0.0.1:1", "R2_ACCESS_KEY_ID": "k" * 20, "R2_SECRET_ACCESS_KEY": "s" * 20,
        "R2_BUCKET_NAME": "steady",
    }  # fmt: skip
    running = []
    try:
        for name in ("monitor", "serve"):
            running.append(_start(name, environment, directory / f"{name}.log"))
        url = f"http://127.0.0.1:{port}"
        await _until_ready(url)
        yield _House(running[0], running[1], url)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            await asyncio.to_thread(process.wait, 20)


def _start(name: str, environment: dict[str, str], said: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "orchestrator", name]
    with said.open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(_STARTED_SECONDS):
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


@dataclass
class _Load:
    """Who asks and who looks, each a task of its own."""

    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    signals: int = 0
    pages: int = 0
    heard: int = 0

    def check(self) -> None:
        """Raise what ended a task."""
        for task in self.tasks:
            if task.done():
                task.result()
                raise RuntimeError(f"{task.get_name()} has ended")

    async def ask(self, pool: Any, wakeups: WakeUps, clips: list[str], first: float) -> None:
        """Signal one clip after the other at a steady rate, each through the same way again and again."""
        apart = CONNECTIONS / SIGNALS_A_SECOND
        number, due = 0, first
        async with pool.acquire() as connection:
            while True:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                turn, which = divmod(number, len(clips))
                # Not in step: at each moment some clips are anywhere on their way.
                await _signal(connection, clips[which], (turn + which) % (len(_CLAIMS) + 2))
                wakeups.wake()
                self.signals += 1
                number, due = number + 1, due + apart

    async def read(self, session: aiohttp.ClientSession, url: str, clips: list[str]) -> None:
        """Ask for one page after the other."""
        while True:
            path = _PATHS[self.pages % len(_PATHS)].format(clip=clips[self.pages % len(clips)])
            async with session.get(url + path) as answer:
                answer.raise_for_status()
                await answer.read()
            self.pages += 1
            await asyncio.sleep(1 / PAGES_A_SECOND)

    async def follow(self, session: aiohttp.ClientSession, url: str) -> None:
        """Hear of every change; a stream that was cut off is opened again, as a browser does."""
        while True:
            async with session.get(f"{url}/api/events", timeout=aiohttp.ClientTimeout(total=None)) as answer:
                async for line in answer.content:
                    self.heard += line.startswith(b"event:")
            await asyncio.sleep(1)


async def _signal(connection: asyncpg.Connection, clip_id: str, step: int) -> None:
    """The claims in turn, which are noted or refused; then a person's error, then another attempt."""
    asked_at = {"asked_at": datetime.now(UTC).isoformat()}
    if step < len(_CLAIMS):
        await signal_status_update(connection, clip_id, _CLAIMS[step], asked_at, "steady")
    elif step == len(_CLAIMS):
        await signal_status_update(connection, clip_id, "error", asked_at, "steady", insists=True)
    else:
        await signal_retry(connection, clip_id, "uploading", "steady")


@asynccontextmanager
async def _loaded(dsn: str, url: str) -> AsyncIterator[_Load]:
    """The load, until the block ends."""
    pool = await create_pool(dsn, "orchestrator_api", "benchmark load", max_size=CONNECTIONS + 1)
    clips = [f"steady{number:05d}" for number in range(CLIPS)]
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO clips (id) SELECT unnest($1::text[])", clips)

    async def send() -> Any:
        async with pool.acquire(timeout=1) as connection:
            await wake(connection)

    wakeups = WakeUps(send)
    load = _Load()
    async with aiohttp.ClientSession() as session:
        start = asyncio.create_task
        now = time.monotonic()
        for number in range(CONNECTIONS):
            mine = load.ask(pool, wakeups, clips[number::CONNECTIONS], now + number / SIGNALS_A_SECOND)
            load.tasks.append(start(mine, name=f"asker {number}"))
        load.tasks.append(start(load.read(session, url, clips), name="reader"))
        load.tasks += [start(load.follow(session, url), name=f"stream {n}") for n in range(EVENT_STREAMS)]
        try:
            yield load
        finally:
            for task in load.tasks:
                task.cancel()
            await asyncio.gather(*load.tasks, return_exceptions=True)
    await wakeups.close()
    await pool.close()


async def _postmaster(owner: asyncpg.Connection) -> int:
    """The id of the server's first process, whose children are all others."""
    directory = await owner.fetchval("SHOW data_directory")
    return int((Path(directory) / "postmaster.pid").read_text().split()[0])
