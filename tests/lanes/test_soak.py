"""The whole program at a fifth of its load, with a fault each minute, for three quarters of an hour: nothing grows."""

from __future__ import annotations

import asyncio
import csv
import os
import random
import secrets
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from house.checking import Findings, Ratchet, check_acknowledged, check_database, check_objects
from house.observing import leader
from house.supervising import Place
from house.traffic import Asker, EventReader, poll
from house.whole import Whole, digester, in_background, open_whole, until_judged

from lanes.canaries import CANARIES

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

# SOAK_MINUTES tries it for less; growth is judged only where there is enough of it to tell from noise.
MINUTES = float(os.environ.get("SOAK_MINUTES") or 45)
WARM_UP_MINUTES = min(10.0, MINUTES / 3)
JUDGED_FROM_MINUTES = 20.0
SAMPLE_SECONDS = 5.0
# A fifth of what the machine brings home when pressed: two clips a second.
SECONDS_PER_CLIP = 2.5
FAULT_SECONDS = 60.0 if MINUTES >= 10 else 20.0
# These live through all of it, so that their growth can be seen; the others are killed, too.
WATCHED = ("monitor-1", "web-1")
SLOPE_LIMIT_MIB = 1.0
# Descriptors and threads come and go with the work; what leaks is more than this by the end.
STEADY_WITHIN = 12
# Autovacuum runs at a fifth of a table and 50 rows; a few times that in between.
DEAD_TUPLES_MAX = 20_000
MIB = 1024 * 1024
SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment; *connections* are its sessions at the database."""

    seconds: float
    process: str
    pid: int
    rss_bytes: int
    descriptors: int
    threads: int
    connections: int


async def test_nothing_grows(
    database: str, house_directory: Path, sample: Path, figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    seed = int(os.environ.get("LANE_SEED") or secrets.randbelow(2**32))
    print(f"lane=soak seed={seed} commit={commit}; LANE_SEED={seed} python3 run.py lanes soak --long", flush=True)
    chance = random.Random(seed)  # noqa: S311 - faults, not secrets
    findings = Findings()
    samples: list[Sample] = []
    dead_tuples: list[int] = []
    clip_ids: list[str] = []
    async with (
        open_whole(database, house_directory, chance, CANARIES) as whole,
        _watching(database) as rows,
        _watching(database) as rows_of_leaders,
    ):
        asker = Asker(whole.doors)
        everything = EventReader(whole.doors, Ratchet("all streams", findings))
        async with in_background(
            _measure(whole, rows, house_directory / "samples.csv", samples, dead_tuples),
            _ask_for_ever(asker, clip_ids, chance),
            poll(whole.doors, clip_ids, Ratchet("a poller", findings), 0.5),
            everything.run(),
        ):
            ends_at = time.monotonic() + MINUTES * 60
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_have_led(whole, rows_of_leaders, WATCHED[0]))
                tasks.create_task(_feed(whole, sample, clip_ids, ends_at))
                tasks.create_task(_disturb(whole, chance, sometimes, ends_at))
            await _settle(whole)
        await until_judged(whole.house)
        await check_database(whole.house.rows, findings)
        await check_objects(whole.house.rows, digester(whole.house), findings)
        await check_acknowledged(whole.house.rows, asker.acknowledged, findings)
        findings.violations += whole.supervisor.complaints
    slopes = {name: _slope_mib(_of(samples, name)) for name in WATCHED}
    drifts = {f"{name} {what}": _drift(_of(samples, name), what) for name in WATCHED for what in _STEADY}
    figures.tell(
        minutes=MINUTES,
        clips=findings.clips,
        violations=len(findings.violations),
        moves=findings.moves,
        acknowledged_signals=len(asker.acknowledged),
        samples=len(samples),
        **{f"MiB_in_ten_minutes_of_{name}": f"{slope:+.2f}" for name, slope in slopes.items()},
        largest_drift=f"{max(drifts.values()):+.0f} ({max(drifts, key=lambda name: drifts[name])})",
        most_dead_tuples=max(dead_tuples),
        seed=seed,
    )
    assert not findings.violations, "\n".join(findings.violations[:50])
    assert findings.objects == findings.clips == len(clip_ids)
    assert max(dead_tuples) <= DEAD_TUPLES_MAX
    if JUDGED_FROM_MINUTES <= MINUTES:
        assert all(slope < SLOPE_LIMIT_MIB for slope in slopes.values()), slopes
        assert all(drift <= STEADY_WITHIN for drift in drifts.values()), drifts


_WATCHING = "soak"


@asynccontextmanager
async def _watching(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for one of those who look on; it is spared when all others are ended."""
    connection = await asyncpg.connect(database, server_settings={"application_name": _WATCHING})
    try:
        yield connection
    finally:
        await connection.close()


_STEADY = ("descriptors", "threads", "connections")


async def _have_led(whole: Whole, rows: asyncpg.Connection, name: str) -> None:
    """Have that monitor lead while all warms up: a leader loads what a standby has no need of, and keeps it."""
    watched = next(place for place in whole.supervisor.places if place.name == name)
    async with asyncio.timeout(WARM_UP_MINUTES * 60):
        while True:
            epoch, login = await leader(rows)
            if login and watched.has_led(epoch):
                return
            for place in whole.supervisor.places:
                if login and place.is_up and place.has_led(epoch):
                    await whole.supervisor.terminate(place)
            await asyncio.sleep(1)


async def _feed(whole: Whole, sample: Path, clip_ids: list[str], ends_at: float) -> None:
    async def send() -> None:
        made = await whole.doors.create(f"clip {len(clip_ids)}", sample)
        await whole.house.upload_form(made["upload_url"], sample)
        clip_ids.append(str(made["id"]))

    async with asyncio.TaskGroup() as tasks:
        while time.monotonic() < ends_at:
            tasks.create_task(send())
            await asyncio.sleep(SECONDS_PER_CLIP)


async def _ask_for_ever(asker: Asker, clip_ids: list[str], chance: random.Random) -> None:
    while True:
        await asyncio.sleep(0.5)
        if clip_ids:
            await asker.ask(chance.choice(clip_ids[-50:]), chance.choice(("queued", "stream_ready", "r2_uploading")))


async def _disturb(whole: Whole, chance: random.Random, sometimes: Sometimes, ends_at: float) -> None:
    """One fault after the other, in an order of chance, each once before one comes again."""
    left: list[str] = []
    async with asyncio.TaskGroup() as under_way:
        while time.monotonic() + FAULT_SECONDS < ends_at:
            await asyncio.sleep(FAULT_SECONDS)
            left = left or chance.sample(_FAULTS, len(_FAULTS))
            fault = left.pop()
            sometimes.saw(fault, "soak")
            under_way.create_task(_do(whole, fault, chance))


_PROVIDER_FAULTS: dict[str, dict[str, object]] = {
    "api_5xx": {"times": 10},
    "api_answer_lost": {"times": 3},
    "api_slow": {"times": 10, "seconds": 2.0},
    "mp4_truncated": {"times": 2, "share": 0.5},
    "mp4_late": {"times": 3, "seconds": 3.0},
    "webhook_lost": {"times": 10},
    "webhook_duplicated": {"times": 10, "copies": 5},
}
_FAULTS = (*_PROVIDER_FAULTS, "SIGKILL", "SIGTERM", "SIGSTOP", "terminated connections")


async def _do(whole: Whole, fault: str, chance: random.Random) -> None:
    if fault in _PROVIDER_FAULTS:
        whole.house.stream.faults.update(**{fault: _PROVIDER_FAULTS[fault]})
        return
    if fault == "terminated connections":
        await whole.house.rows.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> $1",
            _WATCHING,
        )
        return
    standing = [place for place in whole.supervisor.places if place.is_hittable and place.is_up]
    if fault == "SIGSTOP":
        await whole.supervisor.stop(chance.choice(standing), chance.uniform(5, 15))
        return
    place = chance.choice([each for each in standing if each.name not in WATCHED])
    if fault == "SIGKILL":
        whole.supervisor.kill(place)
    else:
        await whole.supervisor.terminate(place)


async def _settle(whole: Whole) -> None:
    whole.house.stream.faults.clear()
    async with asyncio.timeout(SETTLE_SECONDS):
        while await whole.house.rows.fetchval("SELECT count(*) FROM clips WHERE status <> 'complete'"):
            await asyncio.sleep(0.5)


async def _measure(
    whole: Whole, rows: asyncpg.Connection, file: Path, samples: list[Sample], dead_tuples: list[int]
) -> None:
    """Every process every few seconds, into *file* too."""
    started = time.monotonic()
    with file.open("w", newline="") as opened:
        out = csv.writer(opened)
        out.writerow([field.name for field in fields(Sample)])
        while True:
            sessions = await rows.fetch("SELECT usename, count(*) AS n FROM pg_stat_activity GROUP BY usename")
            by_login = {row["usename"]: row["n"] for row in sessions}
            for place in whole.supervisor.places:
                connections = by_login.get(whole.logins.login_of(place.name), 0)
                if one := _sample(place, time.monotonic() - started, connections):
                    samples.append(one)
                    out.writerow(astuple(one))
            opened.flush()
            dead = "SELECT coalesce(max(n_dead_tup), 0) FROM pg_stat_user_tables WHERE schemaname = 'public'"
            dead_tuples.append(int(await rows.fetchval(dead)))
            await asyncio.sleep(SAMPLE_SECONDS)


def _sample(place: Place, seconds: float, connections: int) -> Sample | None:
    """None when it ends this very moment."""
    if place.process is None:
        return None
    directory = Path(f"/proc/{place.process.pid}")
    try:
        status = dict(line.split(":", 1) for line in (directory / "status").read_text().splitlines() if ":" in line)
        rss_bytes = int(status["VmRSS"].split()[0]) * 1024
        descriptors = len(list((directory / "fd").iterdir()))
    except (OSError, KeyError):
        return None
    return Sample(
        round(seconds, 1), place.name, place.process.pid, rss_bytes, descriptors, int(status["Threads"]), connections
    )


def _of(samples: Sequence[Sample], name: str) -> list[Sample]:
    """What was measured of a process after it had warmed up."""
    return [one for one in samples if one.process == name and one.seconds > WARM_UP_MINUTES * 60]


def _slope_mib(samples: Sequence[Sample]) -> float:
    """By how many MiB it grows in ten minutes: the line through its lowest figure of each minute.

    The lowest, since what is freed at the end of a piece of work is no growth.
    """
    lowest: defaultdict[int, float] = defaultdict(lambda: float("inf"))
    for one in samples:
        minute = int(one.seconds // 60)
        lowest[minute] = min(lowest[minute], one.rss_bytes / MIB)
    if len(lowest) < 2:
        return 0.0
    return statistics.linear_regression(list(lowest), list(lowest.values())).slope * 10


def _drift(samples: Sequence[Sample], what: str) -> float:
    """How much more there is in the last third than in the first, in the middle of each."""
    third = max(1, len(samples) // 3)
    first, last = ([getattr(one, what) for one in part] for part in (samples[:third], samples[-third:]))
    return float(statistics.median(last) - statistics.median(first))
