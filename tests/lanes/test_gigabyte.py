"""A gigabyte is on its way into the bucket when the monitor is killed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.transfer import TransferLimits

if TYPE_CHECKING:
    from house import House

    from lanes.conftest import Figures

GIB = 1024**3
PART_BYTES = TransferLimits().part_floor_bytes
# What the kernel, the socket buffers and one read ahead may hold beside the part itself.
SLACK_BYTES = 8 * 1024**2
MEMORY_LIMIT_BYTES = 150 * 1024**2


@pytest.fixture
def stream_options() -> dict[str, Any]:
    return {"encode": "copy", "form_limit_bytes": 2 * GIB}


@pytest.fixture(scope="module")
def large(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real MP4 of one gibibyte: the sample, and behind it a box of bytes that players skip."""
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    head = sample.read_bytes()
    free_bytes = GIB - len(head)
    with path.open("wb") as out:
        out.write(head)
        out.write((1).to_bytes(4, "big") + b"free" + free_bytes.to_bytes(8, "big"))
        left = free_bytes - 16
        while left:
            block = os.urandom(min(left, 4 * 1024**2))
            out.write(block)
            left -= len(block)
    assert path.stat().st_size == GIB
    return path


async def test_it_resumes_and_reads_at_most_one_part_twice(house: House, large: Path, figures: Figures) -> None:
    await house.start_web()
    monitor = house.start("monitor")
    clip = await house.create_upload("a gigabyte", size_bytes=GIB, protocol="tus")
    await house.upload_tus(clip["upload_url"], large)
    await house.until(clip["id"], lambda seen: seen.status == "mp4downloading")
    idle_bytes = _status_bytes(monitor.pid, "VmRSS")
    await house.until(clip["id"], lambda seen: seen.status == "r2_uploading" and seen.progress >= 97)
    peak_bytes = _status_bytes(monitor.pid, "VmHWM")
    monitor.kill()
    monitor.wait()

    killed_at = await house.until(clip["id"], lambda _: True)
    assert killed_at.status == "r2_uploading"
    house.start("monitor")
    done = await house.until_complete(clip["id"])

    served = house.stream.traffic.of(clip["cloudflare_uid"]).bytes_sent
    twice = served - GIB
    figures.tell(MiB_read_twice=f"{twice / 1024**2:.1f}", MiB_above_idle=f"{(peak_bytes - idle_bytes) / 1024**2:.0f}")
    assert 0 <= twice <= PART_BYTES + SLACK_BYTES
    assert peak_bytes - idle_bytes <= MEMORY_LIMIT_BYTES
    assert done.file_size == GIB
    assert await _sha256(house, done.r2_url) == hashlib.sha256(large.read_bytes()).hexdigest()
    progress = [event.progress for event in await house.history(clip["id"]) if event.progress is not None]
    assert progress == sorted(progress)


async def _sha256(house: House, url: str | None) -> str:
    assert url is not None
    digest = hashlib.sha256()
    async with house.http.get(url) as answer:
        async for chunk in answer.content.iter_chunked(1024**2):
            digest.update(chunk)
    return digest.hexdigest()


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)
