"""What a monitor costs while there is nothing to do, and how soon after its start it has had its first round."""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import sys
import time
from pathlib import Path

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, at_most

START_SECONDS = 20.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


async def measure(place: Place) -> list[Row]:
    """The shipped command as a process of its own; nobody asks it anything."""
    starts, seconds = place.amount((3, 8.0), (5, 120.0))
    async with started_server(place) as server:
        database = await make_database(server, "idle")
        owner = await asyncpg.connect(database)
        took: list[float] = []
        share = megabytes = 0.0
        for number in range(starts):
            began = time.perf_counter()
            process = await _started(database, place.directory / "monitor.log")
            try:
                await _first_round(owner, process)
                took.append(time.perf_counter() - began)
                if number == starts - 1:
                    await asyncio.sleep(5)  # what is done once after a start is over
                    share, megabytes = await _cost(process.pid, seconds)
            finally:
                process.terminate()
                await process.wait()
        await owner.close()
    return [
        Row("idle monitor, share of a core", 100 * share, at_most(0.5), "%"),
        Row("idle monitor, resident memory", megabytes, at_most(60), "MB"),
        Row("start to first round", statistics.median(took), at_most(1), "s"),
    ]


async def _started(database: str, log: Path) -> asyncio.subprocess.Process:
    # The account and the bucket are never asked: no clip is there.
    settings = {
        "DATABASE_URL": database,
        "CLOUDFLARE_ACCOUNT_ID": "benchmark",
        "CLOUDFLARE_API_TOKEN": "benchmark",
        "R2_ENDPOINT_URL": "http://127.0.0.1:9",
        "R2_ACCESS_KEY_ID": "benchmark",
        "R2_SECRET_ACCESS_KEY": "benchmark",
        "R2_BUCKET_NAME": "benchmark",
    }
    with log.open("ab") as told:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "monitor",
            env={**os.environ, **settings}, stdout=told, stderr=told, cwd=log.parent,
        )  # fmt: skip


async def _first_round(owner: asyncpg.Connection, process: asyncio.subprocess.Process) -> None:
    """Until this process leads and has told of a round: who led before it has given up its lease."""
    before = await owner.fetchval("SELECT epoch FROM monitor_lease")
    async with asyncio.timeout(START_SECONDS):
        while not await owner.fetchval("SELECT epoch > $1 AND round_at IS NOT NULL FROM monitor_lease", before):
            if process.returncode is not None:
                raise RuntimeError("the monitor ended; monitor.log says why")
            await asyncio.sleep(0.005)


async def _cost(pid: int, seconds: float) -> tuple[float, float]:
    """The share of a core (0-1) over *seconds*, and the megabytes resident after them."""
    before, began = _processor_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (_processor_seconds(pid) - before) / (time.perf_counter() - began)
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return share, int(resident[1]) / 1000 if resident else 0.0


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
