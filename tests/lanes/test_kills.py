"""Two monitors and two web processes are killed, stopped and ended at random while they bring clips home."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from house import House
from house.checking import Findings, Ratchet, check_acknowledged, check_database, check_objects
from house.observing import leader
from house.supervising import Place, Supervisor
from house.traffic import Asker, Doors, EventReader, poll
from house.whole import digester, in_background, open_whole, until_judged

from lanes.canaries import CANARIES
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.transfer import PostgresCheckpoints, sweep_orphans

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

# Longer than a lease: the other monitor has to take over.
LONG_STOP_SECONDS = 12.0
# What is left when the last fault is over: seconds of work for a few dozen clips, on a machine that may be busy.
SETTLE_SECONDS = 90.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything."""

    clips: int
    large_clips: int
    kills: int
    stops: int
    long_stops: int
    terms: int
    longest_stop_seconds: float


CI = Amounts(200, 6, 60, 10, 2, 10, 8.0)
RELEASE = Amounts(2000, 20, 600, 100, 20, 100, 30.0)


@dataclass
class Run:
    """One run: what it works on, and what it has seen."""

    house: House
    supervisor: Supervisor
    chance: random.Random
    sometimes: Sometimes
    done: Counter[str] = field(default_factory=Counter)
    clip_ids: list[str] = field(default_factory=list)
    faults_left: int = 0

    async def leading(self) -> str | None:
        """The place whose process leads now; a lease that a dead one has left behind is nobody's."""
        epoch, login = await leader(self.house.rows)
        return next((place.name for place in self.supervisor.places if login and place.has_led(epoch)), None)

    async def note(self, fault: str, place: Place) -> None:
        """Tell where the fault was met: which process, and what its clips were doing."""
        role = "leader" if place.name == await self.leading() else place.command
        self.done[fault] += 1
        with (self.house.directory / "faults.csv").open("a") as told:
            told.write(f"{datetime.now(UTC).isoformat()},{fault},{place.name},{role}\n")
        self.sometimes.saw(fault, role)
        if role == "leader":
            for row in await self.house.rows.fetch("SELECT status, count(*) FROM clips GROUP BY status"):
                self.sometimes.saw(f"{fault} of the leader", row["status"])


async def test_nothing_is_lost_and_nothing_goes_back(
    database: str,
    house_directory: Path,
    sample: Path,
    amount: Callable[[Any, Any], Any],
    figures: Figures,
    sometimes: Sometimes,
    commit: str,
) -> None:
    seed = int(os.environ.get("LANE_SEED") or secrets.randbelow(2**32))
    print(f"lane=kills seed={seed} commit={commit}; to repeat: LANE_SEED={seed} python3 run.py lanes kills", flush=True)
    amounts: Amounts = amount(CI, RELEASE)
    chance = random.Random(seed)  # noqa: S311 - faults, not secrets
    files = [sample] * (amounts.clips - amounts.large_clips) + [
        _enlarged(sample, house_directory)
    ] * amounts.large_clips
    chance.shuffle(files)
    findings = Findings()
    started = time.monotonic()
    async with open_whole(database, house_directory, chance, CANARIES) as whole:
        run, doors = Run(whole.house, whole.supervisor, chance, sometimes), whole.doors
        enabled = _count_enables(run.house)
        asker = Asker(doors)
        ratchets = [Ratchet(name, findings) for name in ("a poller", "another poller", "a stream", "all streams")]
        readers = [
            EventReader(doors, ratchets[2], run.clip_ids[:0]),
            EventReader(doors, ratchets[3]),
        ]
        async with in_background(
            poll(doors, run.clip_ids, ratchets[0], 0.1),
            poll(doors, run.clip_ids, ratchets[1], 0.1),
            _follow(readers[0], run.clip_ids),
            readers[1].run(),
            _ask_for_ever(asker, run),
        ):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_beat(run, amounts))
                tasks.create_task(_feed(run, doors, files, amounts))
            beaten_seconds = time.monotonic() - started
            await _settle(run, len(files))
        settled_seconds = time.monotonic() - started - beaten_seconds
        await until_judged(run.house)
        await check_database(run.house.rows, findings)
        await check_objects(run.house.rows, digester(run.house), findings)
        await check_acknowledged(run.house.rows, asker.acknowledged, findings)
        orphans = await _sweep(run.house, findings)
        findings.violations += run.supervisor.complaints
        again = sum(count - 1 for count in enabled.values())
        # An answer is lost when whoever asked dies; else a look at the provider comes before each request.
        findings.claim(again <= run.done["SIGKILL"] + run.done["SIGSTOP"], f"I9: {again} MP4s were asked for again")
        figures.tell(
            clips=findings.clips,
            kills=run.done["SIGKILL"],
            stops=run.done["SIGSTOP"],
            SIGTERMs=run.done["SIGTERM"],
            terms_of_leadership=await run.house.rows.fetchval("SELECT count(*) FROM observer.terms"),
            violations=len(findings.violations),
            moves=findings.moves,
            writes_checked=findings.writes,
            objects_compared=findings.objects,
            acknowledged_signals=len(asker.acknowledged),
            client_answers=sum(ratchet.answers for ratchet in ratchets),
            calls_lost=doors.lost,
            stream_reconnects=sum(reader.connections for reader in readers),
            orphans_swept=orphans,
            MP4s_asked_for_again=again,
            slowest_SIGTERM=f"{run.supervisor.slowest_stop_seconds:.1f} s",
            beaten_for=f"{beaten_seconds:.0f} s",
            settled_in=f"{settled_seconds:.0f} s",
            seed=seed,
        )
    assert not findings.violations, "\n".join(findings.violations[:50])
    assert run.done["SIGKILL"] >= amounts.kills
    assert run.done["SIGSTOP"] >= amounts.stops
    assert findings.objects == findings.clips == amounts.clips


async def test_a_second_sigterm_ends_a_process_at_once(house: House, figures: Figures) -> None:
    """The first one waits for what cannot be hurried: a lease row that somebody holds, a call that is not whole."""
    slowest_seconds = 0.0
    monitor = house.start("monitor")
    async with asyncio.timeout(60):
        while not await house.rows.fetchval("SELECT expires_at > clock_timestamp() FROM monitor_lease"):
            await asyncio.sleep(0.05)
    async with house.rows.transaction():
        await house.rows.execute("SELECT FROM monitor_lease FOR UPDATE")
        slowest_seconds = max(slowest_seconds, await _end_twice(monitor))
    web = await house.start_web()
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"POST /api/clips HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 100\r\n\r\n{")
    await writer.drain()
    # Answered behind it on the same process: the unfinished call has been taken up by then.
    assert (await house.api("GET", "/readyz"))[0] == 200
    slowest_seconds = max(slowest_seconds, await _end_twice(web))
    writer.close()
    figures.tell(second_SIGTERM_ended_within=f"{slowest_seconds:.2f} s")
    assert slowest_seconds < 2


async def _end_twice(process: subprocess.Popen[bytes]) -> float:
    """SIGTERM, and once more while it still stops; how long the second one took."""
    process.terminate()
    await asyncio.sleep(1)
    assert process.poll() is None, "there was nothing to hurry"
    process.terminate()
    told_at = time.monotonic()
    async with asyncio.timeout(30):
        while process.poll() is None:
            await asyncio.sleep(0.01)
    assert process.returncode == -signal.SIGTERM
    return time.monotonic() - told_at


async def _beat(run: Run, amounts: Amounts) -> None:
    """All faults in a random order, a moment apart."""
    faults = ["SIGKILL"] * amounts.kills + ["SIGTERM"] * amounts.terms
    faults += ["SIGSTOP"] * (amounts.stops - amounts.long_stops) + ["long SIGSTOP"] * amounts.long_stops
    run.chance.shuffle(faults)
    run.faults_left = len(faults)
    async with asyncio.TaskGroup() as under_way:
        for fault in faults:
            await asyncio.sleep(run.chance.uniform(0.6, 2.4))
            place = await _target(run, fault)
            await run.note(fault.removeprefix("long "), place)
            run.faults_left -= 1
            match fault:
                case "SIGKILL":
                    run.supervisor.kill(place)
                case "SIGTERM":
                    under_way.create_task(_terminate(run, place))
                case "SIGSTOP":
                    seconds = run.chance.uniform(5.0, amounts.longest_stop_seconds)
                    under_way.create_task(run.supervisor.stop(place, seconds))
                case _:
                    under_way.create_task(run.supervisor.stop(place, LONG_STOP_SECONDS))


async def _target(run: Run, fault: str) -> Place:
    """Whom the fault hits: a monitor more often than a web process; the leader when it is to outlast the lease."""
    command = "monitor" if fault == "long SIGSTOP" or run.chance.random() < 0.6 else "serve"
    while True:
        standing = [place for place in run.supervisor.places if place.command == command and place.is_hittable]
        if fault != "SIGKILL":
            standing = [place for place in standing if place.is_up]
        if fault == "long SIGSTOP":
            leading = await run.leading()
            standing = [place for place in standing if place.name == leading]
        if standing:
            return run.chance.choice(standing)
        await asyncio.sleep(0.1)


async def _terminate(run: Run, place: Place) -> None:
    """SIGTERM; the lease, if it was held, is free when the process has ended."""
    epoch, login = await leader(run.house.rows)
    led = login is not None and place.has_led(epoch)
    await run.supervisor.terminate(place)
    if not led:
        return
    released = await run.house.rows.fetchval("SELECT released FROM observer.terms WHERE epoch = $1", epoch)
    if not released and (await leader(run.house.rows))[0] == epoch:
        run.supervisor.complaints.append(f"L9: {place.name} ended and kept the lease of epoch {epoch}")


async def _feed(run: Run, doors: Doors, files: list[Path], amounts: Amounts) -> None:
    """Clips made and uploaded as the faults go on, so that the work lasts as long as they do."""
    total = amounts.kills + amounts.stops + amounts.terms
    gate = asyncio.Semaphore(6)
    persons = set(run.chance.sample(range(len(files)), max(1, len(files) // 25)))

    async def send(number: int) -> None:
        async with gate:
            made = await doors.create(f"clip {number}", files[number])
            await run.house.upload_form(made["upload_url"], files[number])
        run.clip_ids.append(str(made["id"]))
        if number in persons:
            await _change_ones_mind(doors, str(made["id"]), run.chance)

    async with asyncio.TaskGroup() as tasks:
        for number in range(len(files)):
            while run.faults_left and number > 8 + len(files) * (1 - run.faults_left / total):
                await asyncio.sleep(0.1)
            tasks.create_task(send(number))


async def _change_ones_mind(doors: Doors, clip_id: str, chance: random.Random) -> None:
    """Somebody ends the clip, and tries it again in a new attempt."""
    await asyncio.sleep(chance.uniform(0, 6))
    while True:
        clip = await doors.insist("GET", f"/api/clips/{clip_id}", 200)
        if clip["attempt"] > 1:
            return
        if clip["status"] == "error":
            await doors.try_once("POST", f"/api/clips/{clip_id}/retry", json={})
        else:
            await doors.try_once("POST", f"/api/clips/{clip_id}/signals", json={"requested_status": "error"})
        await asyncio.sleep(1)


async def _ask_for_ever(asker: Asker, run: Run) -> None:
    """Claims of every kind about any clip, several for the same one now and then."""
    claims = ("queued", "processing", "stream_ready", "waitformp4", "mp4_processing", "r2_uploading", "complete")
    while True:
        await asyncio.sleep(0.15)
        if run.clip_ids:
            clip_id = run.chance.choice(run.clip_ids[-40:])
            await asyncio.gather(
                *(asker.ask(clip_id, run.chance.choice(claims)) for _ in range(run.chance.choice((1, 3))))
            )


async def _follow(reader: EventReader, clip_ids: list[str]) -> None:
    """The stream of the first clips, once there are some."""
    while len(clip_ids) < 5:
        await asyncio.sleep(0.1)
    reader.clip_ids = clip_ids[:5]
    await reader.run()


async def _settle(run: Run, clips: int) -> None:
    """Without further faults everything ends well."""
    ends_at = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = await run.house.rows.fetch("SELECT status, count(*) AS n FROM clips GROUP BY status")
        if {row["status"]: row["n"] for row in rows} == {"complete": clips}:
            return
        if time.monotonic() > ends_at:
            stuck = await run.house.rows.fetch(
                "SELECT id, status, attempt, look_at - clock_timestamp() AS look_in, tries, pending, processing_details"
                "  FROM clips WHERE status <> 'complete' LIMIT 5"
            )
            pytest.fail(f"L1: not everything came home: {rows}; {stuck}\n{run.house.logs()}")
        await asyncio.sleep(0.2)


async def _sweep(house: House, findings: Findings) -> int:
    """What the deaths left in the bucket goes by one sweep; how many uploads that were."""
    store = ObjectStore(
        ObjectStoreSettings(house.bucket.endpoint_url, "stories", house.bucket_secret, "clips", house.bucket.public_url)
    )
    try:
        unfinished = await house.rows.fetchval("SELECT count(*) FROM transfers t WHERE finished_at IS NULL")
        findings.claim(unfinished == 0, f"L8: {unfinished} transfers are unfinished though every clip is complete")
        swept = await sweep_orphans(store, PostgresCheckpoints(_OneConnection(house.rows)), timedelta(seconds=-60))
        left = await store.list_uploads("videos/")
        findings.claim(not left, f"L8: {len(left)} unfinished uploads are left after a sweep")
        return swept
    finally:
        await store.close()


class _OneConnection:
    """One connection where a pool is asked for."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self, **_: Any) -> AsyncIterator[Any]:
        yield self._connection


def _count_enables(house: House) -> Counter[str]:
    """How often the provider was asked to make each video's MP4."""
    downloads = house.stream.parts.downloads
    counts: Counter[str] = Counter()
    enable = downloads.enable

    def counted(uid: str, kind: str) -> Any:
        counts[uid] += 1
        return enable(uid, kind)

    downloads.enable = counted  # type: ignore[method-assign]
    return counts


def _enlarged(sample: Path, directory: Path) -> Path:
    """The sample with a box of bytes behind it that players skip: three parts of a multipart upload."""
    path = directory / "large.mp4"
    head = sample.read_bytes()
    free_bytes = 36 * MIB
    path.write_bytes(head + free_bytes.to_bytes(4, "big") + b"free" + os.urandom(free_bytes - 8))
    return path
