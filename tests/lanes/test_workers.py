"""Three workers and two monitors, each on a host of its own, are killed in turn while clips stream into the bucket."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from house import House
from house.checking import Findings, check_database, check_objects
from house.fixtures import open_house
from house.hosts import hosts, missing_tool
from house.observing import leader, logins, observe
from house.supervising import Place, Supervisor, supervised
from house.whole import digester, in_background, until_judged

from lanes.canaries import CANARIES
from orchestrator.transfer import TransferLimits

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

MONITORS = ("monitor-1", "monitor-2")
WORKERS = ("worker-1", "worker-2", "worker-3")
MIB = 1024 * 1024
PART_BYTES = TransferLimits().part_floor_bytes
# A part and a bit, and a source that takes seconds over it: whoever is killed, is killed in the midst of it.
FILE_BYTES = 20 * MIB
SOURCE_BYTES_PER_SECOND = 3 * MIB
PLACES = 2
# Throughput is what the workers make of it: none is idle while nobody leads, in which time each place is through with
# two clips, nobody says that these are complete, and so no new ones come. Some more are on their way to the workers.
UNFINISHED = 3 * len(WORKERS) * PLACES + 4
# What is on its way when a process dies, and the first bytes of each start.
SLACK_BYTES = 4 * MIB
# The promise. Throughput is back when bytes flow at this share of what they did before, and a clip has come home.
BACK_SECONDS, SHARE = 15.0, 0.7
WINDOW_SECONDS = 3.0
SETTLE_SECONDS = 90.0


@dataclass
class Fleet:
    """What is at work, and what was seen of it."""

    house: House
    # Several at once ask here.
    rows: asyncpg.Pool
    supervisor: Supervisor
    chance: random.Random
    clip_ids: list[str] = field(default_factory=list)
    uids: list[str] = field(default_factory=list)
    samples: list[tuple[float, int]] = field(default_factory=list)
    back_after: dict[str, float] = field(default_factory=dict)
    # Clips whose first part was in the bucket when the worker that was at them was killed.
    begun: set[str] = field(default_factory=set)
    is_fed: bool = True

    async def add_clip(self, file: Path) -> None:
        """A clip whose bytes are at the provider."""
        number, stream = len(self.clip_ids), self.house.stream
        headers = {"Authorization": f"Bearer {stream.api_token}"}
        url = f"{stream.url}/accounts/{stream.account_id}/stream/direct_upload"
        async with self.house.http.post(url, json={"maxDurationSeconds": 600}, headers=headers) as answer:
            made = (await answer.json())["result"]
        await self.house.upload_form(made["uploadURL"], file)
        await self.rows.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", f"clip-{number}", made["uid"])
        self.clip_ids.append(f"clip-{number}")
        self.uids.append(made["uid"])

    async def feed(self, file: Path) -> None:
        """A new clip whenever one has come home."""
        while self.is_fed:
            done = await self.rows.fetchval("SELECT count(*) FROM clips WHERE status = 'complete'")
            if len(self.clip_ids) - done < UNFINISHED:
                await self.add_clip(file)
            await asyncio.sleep(0.1)

    async def measure(self) -> None:
        """How much has left the provider, several times a second."""
        while True:
            sent = sum(self.house.stream.traffic.of(uid).bytes_sent for uid in self.uids)
            self.samples.append((time.monotonic(), sent))
            await asyncio.sleep(0.25)

    def rate(self, seconds: float) -> float:
        """Bytes a second in the last so many seconds."""
        now, sent = self.samples[-1]
        then, before = next(sample for sample in self.samples if sample[0] >= now - seconds)
        return (sent - before) / max(now - then, 0.001)

    async def completed(self) -> int:
        return int(await self.rows.fetchval("SELECT count(*) FROM clips WHERE status = 'complete'"))

    async def until_back(self, name: str, killed_at: float, rate_before: float, completed_before: int) -> None:
        """Wait until throughput is what it was, and note how long that took."""
        while True:
            await asyncio.sleep(0.25)
            seconds = time.monotonic() - killed_at
            flows = seconds > WINDOW_SECONDS and self.rate(WINDOW_SECONDS) >= SHARE * rate_before
            if (flows and await self.completed() > completed_before) or seconds > 3 * BACK_SECONDS:
                self.back_after[name] = seconds
                return

    async def in_the_midst(self, place: Place) -> None:
        """Wait until that worker is at a clip whose first part is in the bucket, and the last is not."""
        statement = """
        SELECT t.clip_id FROM clip_pgqueuer q JOIN workers w ON w.id = q.queue_manager_id
          JOIN transfers t ON t.clip_id = split_part(q.dedupe_key, '/', 1) AND t.finished_at IS NULL
          JOIN transfer_parts p ON p.clip_id = t.clip_id AND p.number = 1
         WHERE q.status = 'picked' AND w.name LIKE '%:' || $1
        """
        assert place.process is not None
        async with asyncio.timeout(60):
            while not (found := await self.rows.fetch(statement, str(place.process.pid))):
                await asyncio.sleep(0.02)
        self.begun |= {row["clip_id"] for row in found}


async def test_each_is_killed_in_turn_and_nothing_is_lost_or_doubled(
    database: str, house_directory: Path, sample: Path, figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    seed = int(os.environ.get("LANE_SEED") or secrets.randbelow(2**32))
    print(f"lane=workers seed={seed} commit={commit}; to repeat: LANE_SEED={seed} python3 run.py lanes workers")
    findings, file = Findings(), _enlarged(sample, house_directory)
    async with open_fleet(database, house_directory, random.Random(seed)) as (fleet, workers):  # noqa: S311
        async with in_background(fleet.feed(file), fleet.measure()):
            async with asyncio.timeout(90):
                while await fleet.completed() < 2 * PLACES:
                    await asyncio.sleep(0.2)
            order = [*MONITORS, *WORKERS]
            fleet.chance.shuffle(order)
            for name in order:
                await _kill(fleet, name, sometimes)
            fleet.is_fed = False
            await _settle(fleet)
        # Before the objects are compared, which reads everything once more, and fast.
        sent = [fleet.house.stream.traffic.of(uid).bytes_sent for uid in fleet.uids]
        again = {clip_id: each - FILE_BYTES for clip_id, each in zip(fleet.clip_ids, sent, strict=True)}
        fleet.house.stream.faults.clear()
        await until_judged(fleet.house)
        await check_database(fleet.house.rows, findings, workers)
        await check_objects(fleet.house.rows, digester(fleet.house), findings)
        await _check_nothing_doubled(fleet, findings, workers)
        findings.violations += fleet.supervisor.complaints
        figures.tell(
            clips=findings.clips,
            objects_compared=findings.objects,
            violations=len(findings.violations),
            killed_behind_the_first_part=len(fleet.begun),
            most_MiB_of_these_read_again=f"{max(again[clip_id] for clip_id in fleet.begun) / MIB:.1f}",
            most_MiB_of_all_read_again=f"{max(again.values()) / MIB:.1f}",
            **{f"back_after_{name}": f"{seconds:.1f} s" for name, seconds in fleet.back_after.items()},
            in_namespaces=missing_tool() is None,
            seed=seed,
        )
    assert not findings.violations, "\n".join(findings.violations[:50])
    assert max(again.values()) <= PART_BYTES + SLACK_BYTES
    for clip_id in fleet.begun:
        assert again[clip_id] <= FILE_BYTES - PART_BYTES + SLACK_BYTES, "a checkpoint was not used"
    assert max(fleet.back_after.values()) <= BACK_SECONDS, fleet.back_after


async def _kill(fleet: Fleet, name: str, sometimes: Sometimes) -> None:
    """SIGKILL in the midst of work; then wait until all is as it was, and the place is filled again."""
    place = fleet.supervisor.place(name)
    await asyncio.sleep(fleet.chance.uniform(4.0, 6.0))
    if place.command == "worker":
        await fleet.in_the_midst(place)
    epoch, login = await leader(fleet.rows)
    role = "leader" if login and place.has_led(epoch) else place.command
    rate = fleet.rate(8.0)
    fleet.supervisor.kill(place)
    killed_at = time.monotonic()
    sometimes.saw("SIGKILL", role)
    # Counted when it is dead: what it had just completed is no sign of its successor.
    await fleet.until_back(name, killed_at, rate, await fleet.completed())
    async with asyncio.timeout(60):
        while place.process is None or place.process.poll() is not None or not place.is_up:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["drained", "killed"])
async def test_when_the_last_worker_goes_the_monitor_goes_on_from_its_checkpoint(
    database: str, house_directory: Path, sample: Path, figures: Figures, end: signal.Signals
) -> None:
    file = _enlarged(sample, house_directory)
    async with open_house(house_directory, database, _stream_options()) as house:
        house.extra = {"CLOUDFLARE_CALLS": "6000"}
        worker = house.start("worker")
        house.stream.faults.set(mp4_slow={"bytes_per_second": SOURCE_BYTES_PER_SECOND})
        async with asyncio.timeout(30):
            while not await house.rows.fetchval("SELECT count(*) FROM workers"):
                await asyncio.sleep(0.05)
        house.start("monitor")
        fleet = Fleet(house, house.rows, Supervisor(house, []), random.Random(0))  # noqa: S311 - nothing is drawn
        await fleet.add_clip(file)
        async with asyncio.timeout(60):
            while not await house.rows.fetchval("SELECT count(*) FROM transfer_parts"):
                await asyncio.sleep(0.02)
        ended_at = time.monotonic()
        worker.send_signal(end)
        await asyncio.to_thread(worker.wait, 10)
        stopped_seconds = time.monotonic() - ended_at
        if end == signal.SIGTERM:
            assert worker.returncode == 0
            assert await house.rows.fetchval("SELECT count(*) FROM clip_pgqueuer WHERE status = 'picked'") == 0
        done = await house.until_complete(fleet.clip_ids[0])
        again = house.stream.traffic.of(fleet.uids[0]).bytes_sent - file.stat().st_size
        figures.tell(**{f"{end.name}_of_the_last:_stopped_in": f"{stopped_seconds:.1f} s"})
        figures.tell(**{f"{end.name}_of_the_last:_complete_after": f"{time.monotonic() - ended_at:.1f} s"})
        assert await house.read(done.r2_url) == file.read_bytes()
        assert 0 <= again <= FILE_BYTES - PART_BYTES + SLACK_BYTES, "the checkpoint was not used"
        assert await house.rows.fetchval("SELECT count(*) FROM clip_pgqueuer") == 0


@asynccontextmanager
async def open_fleet(
    database: str, directory: Path, chance: random.Random
) -> AsyncIterator[tuple[Fleet, Sequence[str]]]:
    """The fleet at work, and the logins of its workers."""
    names = (*MONITORS, *WORKERS)
    async with AsyncExitStack() as stack:
        opened = open_house(directory, database, _stream_options(), CANARIES["bucket secret"])
        house = await stack.enter_async_context(opened)
        house.extra = {"CLOUDFLARE_CALLS": "6000", "MAX_TRANSFERS": str(PLACES)}
        house.stream.faults.set(mp4_slow={"bytes_per_second": SOURCE_BYTES_PER_SECOND})
        await observe(house.rows)
        known = await stack.enter_async_context(logins(house.rows, database, names, CANARIES["database password"]))
        ports = [int(urlsplit(url).port or 0) for url in (house.stream.url, house.bucket.endpoint_url)]
        inside: dict[str, list[str]] = {}
        if missing_tool() is None:
            inside = await stack.enter_async_context(hosts(names, directory / "hosts", ports))
        stack.push_async_callback(house.close)  # before hosts and logins go: they are in use until then
        places = [
            Place(name, name.partition("-")[0], {"DATABASE_URL": known.by_name[name]}, inside=inside.get(name, []))
            for name in names
        ]
        supervisor = await stack.enter_async_context(supervised(house, places))
        pool = await stack.enter_async_context(asyncpg.create_pool(database, min_size=1, max_size=6))
        yield Fleet(house, pool, supervisor, chance), [known.login_of(name) for name in WORKERS]


def _stream_options() -> dict[str, Any]:
    return {"encode": "copy", "webhook_url": None, "rate_limit_count": 6000, "max_in_flight": 1000}


async def _settle(fleet: Fleet) -> None:
    ends_at = time.monotonic() + SETTLE_SECONDS
    while await fleet.completed() < len(fleet.clip_ids):
        if time.monotonic() > ends_at:
            stuck = await fleet.rows.fetch("SELECT id, status, look_at, tries FROM clips WHERE status <> 'complete'")
            jobs = await fleet.rows.fetch("SELECT dedupe_key, status, heartbeat FROM clip_pgqueuer")
            pytest.fail(f"L1: not everything came home: {stuck} {jobs}\n{fleet.house.logs()}")
        await asyncio.sleep(0.2)


async def _check_nothing_doubled(fleet: Fleet, findings: Findings, workers: Sequence[str]) -> None:
    """Each transfer was ended once, by a worker that held it, and no job, upload or failure is left."""
    rows = fleet.house.rows
    ends = await rows.fetch(
        "SELECT clip_id, count(*) AS n, bool_and(login = ANY($1::text[])) AS by_workers FROM observer.reports"
        " WHERE requested_status = 'complete' GROUP BY clip_id",
        list(workers),
    )
    findings.claim(len(ends) == len(fleet.clip_ids), f"{len(ends)} of {len(fleet.clip_ids)} transfers were ended")
    for row in ends:
        findings.claim(row["n"] == 1, f"I9: the transfer of {row['clip_id']} was ended {row['n']} times")
        findings.claim(row["by_workers"], f"{row['clip_id']} was transferred by a monitor though workers lived")
    for table in ("clip_pgqueuer", "worker_failures", "transfer_parts"):
        left = await rows.fetchval(f"SELECT count(*) FROM {table}")
        findings.claim(left == 0, f"L8: {left} rows are left in {table}")


def _enlarged(sample: Path, directory: Path) -> Path:
    """The sample with a box of bytes behind it that players skip."""
    path = directory / "large.mp4"
    head = sample.read_bytes()
    free_bytes = FILE_BYTES - len(head)
    path.write_bytes(head + free_bytes.to_bytes(4, "big") + b"free" + os.urandom(free_bytes - 8))
    return path
