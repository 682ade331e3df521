"""Signals in bulk: through HTTP, tokens and signatures into a database that waits for its disk; none is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from wire.programs import load

from lanes.canaries import CANARIES
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.storage.migrations import migrate

if TYPE_CHECKING:
    from house import House

    from lanes.conftest import Figures

TOKEN, SECRET = CANARIES["operator token"], CANARIES["webhook secret"]
# Of what is sent each second two thirds are calls of the API, one third notifications.
SIGNALS, NOTICES = 400, 200
# The goal is 500 a second with a p99 under 100 ms; a shared machine may miss it, but not by more than this.
LEAST_PER_SECOND, MOST_P99_MS = 200, 500
WITH_VIDEO = 100


@pytest.fixture
async def database(lane_directory: Path) -> AsyncIterator[str]:
    """A server of this lane's own that waits for the disk, as in production."""
    # Not the lane's directory: root's server runs as somebody who could not enter it.
    directory = Path(tempfile.mkdtemp(prefix="clip-load-"))
    directory.chmod(0o711)
    server = EmbeddedPostgres(directory / "postgres", PostgresOptions())
    try:
        await server.start()
        await migrate(server.dsn())
        yield server.dsn()
        shutil.copy(directory / "postgres" / "server.log", lane_directory / "postgres.log")
    finally:
        await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def stream_options() -> dict[str, Any]:
    # The clips stay where they are; only what is said of them moves.
    return {"webhook_url": None, "rate_limit_count": 1_000_000}


async def test_no_acknowledged_signal_is_lost(house: House, figures: Figures, amount: Any) -> None:
    house.extra = {"API_TOKENS": TOKEN, "CLOUDFLARE_WEBHOOK_SECRET": SECRET, "LOOK_INTERVAL_SECONDS": "5"}
    web = await house.start_web()
    clips = [f"clip-{number:04}" for number in range(amount(1000, 5000) - WITH_VIDEO)]
    await house.rows.executemany("INSERT INTO clips (id) VALUES ($1)", [(clip_id,) for clip_id in clips])
    uids = await asyncio.gather(*(_with_video(house, number) for number in range(WITH_VIDEO)))
    monitor = house.start("monitor")
    seconds = amount(20, 600)
    rounds = asyncio.create_task(_longest_pause(house.database))
    common: dict[str, Any] = {"port": house.port, "seconds": seconds}
    signals, notices = await asyncio.gather(
        load(kind="signals", connections=16, rate=SIGNALS, token=TOKEN, clips=clips, **common),
        load(kind="notices", connections=8, rate=NOTICES, secret=SECRET, uids=uids, **common),
    )
    judged_after = await _judged(house)
    rounds.cancel()
    longest = await rounds
    count = len(signals["acknowledged"]) + len(notices["acknowledged"])
    # What a busy neighbour changes least: the work itself.
    web_ms, monitor_ms = (_cpu_seconds(process.pid) * 1000 / count for process in (web, monitor))
    per_second = signals["per_second"] + notices["per_second"]
    p99 = max(signals["p99_ms"], notices["p99_ms"])
    lost = await _lost(house, signals, notices)
    figures.tell(
        signals=count, a_second=round(per_second),
        p99_ms=round(p99, 1), lost=lost, active_clips=len(clips) + WITH_VIDEO,
        judged_after_seconds=f"{judged_after:.1f}", longest_round_seconds=f"{longest:.1f}",
        ms_of_the_web_a_signal=f"{web_ms:.2f}", ms_of_the_monitor_a_signal=f"{monitor_ms:.2f}",
    )  # fmt: skip
    assert set(signals["statuses"]) == {"202"}
    assert set(notices["statuses"]) == {"200"}
    assert lost == 0
    assert per_second >= LEAST_PER_SECOND
    assert p99 <= MOST_P99_MS


def _cpu_seconds(pid: int) -> float:
    """What a process has used of the processors; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _with_video(house: House, number: int) -> str:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = {"source": "upload", "title": f"video {number}", "size_bytes": 200_000}
    status, made = await house.api("POST", "/api/clips", json=body, headers=headers)
    assert status == 201, made
    return str(made["cloudflare_uid"])


async def _lost(house: House, signals: dict[str, Any], notices: dict[str, Any]) -> int:
    """Acknowledged signals without a line of history, and lines that nobody asked for."""
    rows = await house.rows.fetch(
        "SELECT details ->> 'number' AS number FROM clip_events WHERE source = 'api' AND kind <> 'created'"
    )
    told = [int(row["number"]) for row in rows]
    of_notices = await house.rows.fetchval("SELECT count(*) FROM clip_events WHERE source = 'webhook'")
    assert len(told) == len(set(told)), "a signal stands twice in the history"
    return len(set(signals["acknowledged"]) ^ set(told)) + abs(of_notices - len(notices["acknowledged"]))


async def _judged(house: House) -> float:
    started = time.monotonic()
    async with asyncio.timeout(120):
        while await house.rows.fetchval("SELECT count(*) FROM clip_signals"):
            await asyncio.sleep(0.1)
    return time.monotonic() - started


async def _longest_pause(database: str) -> float:
    """The longest time between two ends of the monitor's rounds, until it is cancelled."""
    connection = await asyncpg.connect(database)
    longest = 0.0
    try:
        while True:
            age = await connection.fetchval(
                "SELECT extract(epoch FROM clock_timestamp() - round_at)::float8 FROM monitor_lease"
            )
            longest = max(longest, age or 0.0)
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return longest
    finally:
        await connection.close()
