"""What the program needs runs out: temporary space, the database's disk, file descriptors, memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest
from house import House
from house.checking import check_acknowledged, check_database
from house.cluster import Server, make_cluster
from house.limits import (
    MIB,
    CannotLimit,
    fill,
    is_full,
    limit_files,
    limited_memory,
    open_files,
    peak_memory_bytes,
    small_disk,
)
from house.outages import Moment, Scene, open_scene
from house.traffic import Asker
from house.whole import in_background

from lanes.canaries import CANARIES
from orchestrator.storage.pool import DATABASE_AWAY

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

pytestmark = [pytest.mark.as_root, pytest.mark.on_linux]

FILES = 64
MEMORY_LIMIT_BYTES = 256 * MIB
ONE_STREAM_BYTES = 160 * MIB
FOUR_STREAMS_BYTES = 220 * MIB
SETTLE_SECONDS = 90.0
# A little below what is left of so small a disk once the cluster is on it; its log is cut to fit.
DATABASE_DISK_BYTES = 200 * MIB
SMALL_LOG = {"min_wal_size": "32MB", "max_wal_size": "64MB"}


@pytest.fixture
def stream_options() -> dict[str, Any]:
    return {
        "encode": "copy",
        "max_in_flight": 4000,
        "form_limit_bytes": 64 * 1024 * MIB,
        "rate_limit_count": 12_000,
        "api_token": CANARIES["api token"],
        "webhook_secret": CANARIES["webhook secret"],
    }


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """A place where nothing can be written."""
    try:
        with small_disk(MIB) as place:
            fill(place)
            assert is_full(place)
            yield place
    except CannotLimit as problem:
        pytest.skip(str(problem))


async def test_nothing_of_it_needs_temporary_space(
    house: House, sample: Path, full_disk: Path, figures: Figures, sometimes: Sometimes
) -> None:
    house.extra = {"TMPDIR": str(full_disk), "TMP": str(full_disk), "TEMP": str(full_disk)}
    await house.start_web()
    house.start("monitor")
    made = await house.create_upload("no room for a copy")
    await house.upload_form(made["upload_url"], sample)
    done = await house.until_complete(made["id"])
    assert await house.read(done.r2_url) == await house.read(done.mp4_url)
    assert is_full(full_disk)
    sometimes.saw("no temporary space", "a whole way")
    figures.add(ways_without_temporary_space=1)


async def test_a_full_disk_of_the_database_is_an_outage_that_ends(
    house_directory: Path,
    sample: Path,
    amount: Callable[[Any, Any], Any],
    figures: Figures,
    sometimes: Sometimes,
    stream_options: dict[str, Any],
) -> None:
    chance = random.Random(secrets.randbelow(2**32))  # noqa: S311 - faults, not secrets
    passwords = (CANARIES["bucket secret"], CANARIES["database password"])
    with contextlib.ExitStack() as disks:
        try:
            disk = disks.enter_context(small_disk(DATABASE_DISK_BYTES))
        except CannotLimit as problem:
            pytest.skip(str(problem))
        async with (
            make_cluster(house_directory, SMALL_LOG, disk) as cluster,
            open_scene(house_directory, cluster, stream_options, passwords, chance) as (scene, doors),
        ):
            asker = Asker(doors)
            await scene.until_served()
            async with in_background(scene.readiness.run(), scene.reader.run(), _ask(asker, scene)):
                for number in range(3):
                    scene.clip_ids.append(await _upload(scene.house, sample, f"before {number}"))
                for round_number in range(amount(2, 8)):
                    late = [asyncio.create_task(doors.create(f"in need {n}", sample)) for n in range(3)]
                    await _fill_for_a_while(scene, disk, crashes=bool(round_number % 2))
                    sometimes.saw("the database's disk is full", "crashed" if round_number % 2 else "refusing")
                    for made in await asyncio.gather(*late):
                        await scene.house.upload_form(made["upload_url"], sample)
                        scene.clip_ids.append(made["id"])
                await _until_all_complete(scene)
            rows = await scene.rows()
            await check_database(rows, scene.findings)
            await check_acknowledged(rows, asker.acknowledged, scene.findings)
            scene.findings.violations += scene.supervisor.complaints
            said = cluster.primary.log.read_text("utf-8", "replace")
            figures.tell(
                full_disks=scene.done["full disks"],
                writes_refused=said.count("No space left on device"),
                worst_seconds_until_work_resumed=f"{max(max(each) for each in scene.resumed_seconds.values()):.1f}",
                signals_acknowledged=len(asker.acknowledged),
                violations=len(scene.findings.violations),
            )
        assert "No space left on device" in said
        assert not scene.findings.violations, "\n".join([*scene.findings.violations[:50], scene.house.logs()[-6000:]])


async def _fill_for_a_while(scene: Scene, disk: Path, *, crashes: bool) -> None:
    """No byte is left for some seconds, and the database needs some; with *crashes* for its log, so that it dies."""
    server = scene.cluster.primary
    began = Moment.now()
    taken = fill(disk)
    try:
        await _need_space(server, for_the_log=crashes)
        await asyncio.sleep(scene.chance.uniform(2.0, 5.0))
        fill(disk)
    finally:
        taken.unlink()
    if not server.is_running:
        await server.end()
        await server.start()  # whoever watches over the server does it
    await scene.resumes("full disks", began, loses_sessions=crashes, reads_are_served=not crashes)


async def _need_space(server: Server, *, for_the_log: bool) -> None:
    """Make the database write what does not fit, as any of its other users may."""
    statement = "CREATE TABLE surplus AS SELECT repeat('x', 2000) AS x FROM generate_series(1, 100000)"
    with contextlib.suppress(*DATABASE_AWAY):
        connection = await asyncpg.connect(server.dsn(), timeout=5, command_timeout=30)
        try:
            if for_the_log:
                for _ in range(10):
                    await connection.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 8000000))")
            else:
                with pytest.raises(asyncpg.DiskFullError):
                    await connection.execute(statement)
        finally:
            connection.terminate()


async def test_few_file_descriptors_are_enough_and_a_flood_of_connections_passes(
    house: House, sample: Path, amount: Callable[[Any, Any], Any], figures: Figures, sometimes: Sometimes
) -> None:
    served = await house.start_web()
    monitor = house.start("monitor")
    for process in (served, monitor):
        limit_files(process.pid, FILES)
    clip_ids = [await _upload(house, sample, f"clip {number}") for number in range(amount(10, 60))]
    refused = await _flood(house, 3 * FILES)
    most = {"web": open_files(served.pid), "monitor": open_files(monitor.pid)}
    sometimes.saw("no file descriptor left", "web")
    ends_at = time.monotonic() + 10
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with house.http.get(f"{house.address}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                if answer.status == 200:
                    break
        assert time.monotonic() < ends_at, f"the web process did not come back\n{house.logs()[-4000:]}"
        await asyncio.sleep(0.1)
    for clip_id in clip_ids:
        done = await house.until_complete(clip_id)
        assert done.r2_url is not None
    assert served.poll() is None
    assert monitor.poll() is None
    figures.tell(file_descriptors=FILES, connections_at_once=3 * FILES, not_answered_meanwhile=refused, files_open=most)


async def _flood(house: House, connections: int) -> int:
    """Many connections that only stay open, for a while; how many calls got no answer meanwhile."""
    opened: list[asyncio.StreamWriter] = []

    async def open_one() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                opened.append((await asyncio.open_connection("127.0.0.1", house.port))[1])

    refused = 0
    try:
        await asyncio.gather(*(open_one() for _ in range(connections)))
        for _ in range(3):
            try:
                async with house.http.get(f"{house.address}/readyz", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                    refused += answer.status != 200
            except (aiohttp.ClientError, TimeoutError):
                refused += 1
            await asyncio.sleep(0.3)
    finally:
        for writer in opened:
            writer.close()
    return refused


async def test_a_gigabyte_goes_through_little_memory(
    house: House, sample: Path, tmp_path: Path, amount: Callable[[Any, Any], Any], figures: Figures
) -> None:
    size_bytes = amount(1024 * MIB, 10 * 1024 * MIB)
    kind, (peak_bytes,) = await _copy_within(house, [_enlarged(sample, tmp_path / "large.mp4", size_bytes)])
    figures.tell(memory_limit=kind, MiB_of_one_stream=peak_bytes // MIB)
    assert peak_bytes <= ONE_STREAM_BYTES


async def test_four_at_once_go_through_little_memory(
    house: House, sample: Path, tmp_path: Path, amount: Callable[[Any, Any], Any], figures: Figures
) -> None:
    each_bytes = amount(160 * MIB, 1024 * MIB)
    files = [_enlarged(sample, tmp_path / f"large-{number}.mp4", each_bytes) for number in range(4)]
    house.extra = {"MAX_TRANSFERS": "4"}
    _, peaks = await _copy_within(house, files)
    figures.tell(MiB_of_four_streams=max(peaks) // MIB)
    assert max(peaks) <= FOUR_STREAMS_BYTES


async def _copy_within(house: House, files: list[Path]) -> tuple[str, list[int]]:
    """Bring *files* home with a monitor of little memory; what held it, and the most that it took."""
    await house.start_web()
    clips = []
    for file in files:
        made = await house.create_upload(file.name, size_bytes=file.stat().st_size, protocol="tus")
        await house.upload_tus(made["upload_url"], file)
        clips.append(str(made["id"]))
    with limited_memory(MEMORY_LIMIT_BYTES) as limit:
        monitor = house.start("monitor")
        limit.add(monitor.pid)
        for clip_id, file in zip(clips, files, strict=True):
            done = await house.until_complete(clip_id)
            assert done.file_size == file.stat().st_size
            with file.open("rb") as sent:
                wanted = await asyncio.to_thread(hashlib.file_digest, sent, "sha256")
            assert await _sha256(house, done.r2_url) == wanted.hexdigest()
        assert monitor.poll() is None
        peak_bytes = peak_memory_bytes(monitor.pid)
        monitor.terminate()
        await asyncio.to_thread(monitor.wait, 10)
    return limit.name, [peak_bytes]


def _enlarged(sample: Path, path: Path, size_bytes: int) -> Path:
    """A real MP4 of that size: the sample, and behind it a box that players skip, no two blocks of which are alike."""
    head = sample.read_bytes()
    free_bytes = size_bytes - len(head)
    block = bytearray(os.urandom(MIB))
    with path.open("wb") as out:
        out.write(head)
        out.write((1).to_bytes(4, "big") + b"free" + free_bytes.to_bytes(8, "big"))
        left = free_bytes - 16
        while left:
            block[:8] = left.to_bytes(8, "big")
            left -= out.write(memoryview(block)[: min(left, MIB)])
    return path


async def _sha256(house: House, url: str | None) -> str:
    assert url is not None
    digest = hashlib.sha256()
    async with house.http.get(url) as answer:
        async for chunk in answer.content.iter_chunked(MIB):
            digest.update(chunk)
    return digest.hexdigest()


async def _upload(house: House, sample: Path, title: str) -> str:
    made = await house.create_upload(title)
    await house.upload_form(made["upload_url"], sample)
    return str(made["id"])


async def _ask(asker: Asker, scene: Scene) -> None:
    while True:
        await asyncio.sleep(0.2)
        if scene.clip_ids:
            await asker.ask(scene.chance.choice(scene.clip_ids), "queued")


async def _until_all_complete(scene: Scene) -> None:
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            rows = await scene.rows()
            left = await rows.fetchval("SELECT count(*) FROM clips WHERE status <> 'complete' OR pending > 0")
            if not left:
                return
            await asyncio.sleep(0.2)
