"""The copy as a process of its own, over a real database and the bucket of `orchestrator dev`: killed, and weighed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from orchestrator.local.bucket import BucketOptions, EmbeddedBucket
from tests.orchestrator.transfer.conftest import MIB, Origin, movie

SCRIPT = Path(__file__).with_name("copying_process.py")
PROBE = 16

# The bound does not depend on the size; 1024 here repeats the figure in docs/decisions/0005.
LARGE_MIB = int(os.environ.get("TRANSFER_TEST_MIB", "192"))


class RepeatingMovie:
    """A large file that is not held: a head, and one random mebibyte over and over."""

    def __init__(self, mebibytes: int) -> None:
        self._head = movie(0)[:-8] + (mebibytes * MIB + 8).to_bytes(4, "big") + b"mdat"
        self._block = os.urandom(MIB)
        self._size = len(self._head) + mebibytes * MIB

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._size)
        found = self._head[start:stop]
        start = max(start, len(self._head)) - len(self._head)
        stop = stop - len(self._head)
        while start < stop:
            piece = self._block[start % MIB : min(MIB, start % MIB + stop - start)]
            found += piece
            start += len(piece)
        return found

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self._size, MIB):
            digest.update(self[start : start + MIB])
        return digest.hexdigest()


class Copies:
    """Starts copying processes of one clip."""

    def __init__(self, origin: Origin, dsn: str, endpoint: str, part_mib: int) -> None:
        self.uid = uuid.uuid4().hex
        self._asked = {"dsn": dsn, "endpoint": endpoint, "origin": origin.base, "source": origin.url}
        self._asked |= {"uid": self.uid, "part_mib": part_mib}

    async def start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, str(SCRIPT), json.dumps(self._asked), stdout=asyncio.subprocess.PIPE
        )

    async def finish(self) -> dict[str, float]:
        process = await self.start()
        async with asyncio.timeout(120):
            said, _ = await process.communicate()
        assert process.returncode == 0
        return json.loads(said.splitlines()[-1])


@pytest.fixture
async def rclone(tmp_path):
    options = BucketOptions("localkey0001", "localsecret0001", "clips")
    async with EmbeddedBucket(tmp_path / "bucket", options) as bucket:
        yield bucket


def stored(tmp_path: Path, uid: str) -> Path:
    return tmp_path / "bucket" / "objects" / "clips" / "videos" / f"{uid}.mp4"


async def test_killed_three_times_it_reads_at_most_three_parts_twice(origin, database, rclone, tmp_path):
    part = 5 * MIB
    origin.body = RepeatingMovie(30)
    copies = Copies(origin, database, rclone.endpoint_url, part_mib=5)
    reached = asyncio.Event()
    kill_in = [2, 4, 6]

    async def hold_in_the_middle(asked):
        if kill_in and asked.span and asked.span[0] // part + 1 == kill_in[0]:
            first, last = asked.span
            span = f"bytes {first}-{last}/{len(origin.body)}"
            await asked.head("206 Partial Content", Content_Length=str(last - first + 1), Content_Range=span)
            await asked.send(origin.body[first : first + part // 2])
            reached.set()
            await asked.writer.wait_closed()
            return True
        return None

    origin.behave = hold_in_the_middle
    while kill_in:
        reached.clear()
        process = await copies.start()
        async with asyncio.timeout(30):
            await reached.wait()
        process.kill()
        await process.communicate()
        kill_in.pop(0)
    result = await copies.finish()

    assert result["size"] == len(origin.body)
    assert hashlib.sha256(stored(tmp_path, copies.uid).read_bytes()).hexdigest() == origin.body.sha256()
    assert origin.sent_bytes == len(origin.body) + 3 * (part // 2) + 4 * PROBE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_memory_does_not_grow_with_the_file(origin, database, rclone, tmp_path, record_property):
    origin.body = RepeatingMovie(LARGE_MIB)
    copies = Copies(origin, database, rclone.endpoint_url, part_mib=16)

    result = await copies.finish()

    grown = result["peak"] - result["idle"]
    record_property("peak_above_idle_mib", grown)
    print(f"\n{LARGE_MIB} MiB: idle {result['idle']:.1f}, peak {result['peak']:.1f}, grown {grown:.1f} MiB")
    assert result["size"] == len(origin.body)
    assert grown < 60


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_without_ranges_memory_holds_one_part_more(origin, database, rclone, tmp_path):
    origin.has_ranges = False
    origin.body = RepeatingMovie(96)
    copies = Copies(origin, database, rclone.endpoint_url, part_mib=16)

    result = await copies.finish()

    grown = result["peak"] - result["idle"]
    print(f"\nwithout ranges: idle {result['idle']:.1f}, peak {result['peak']:.1f}, grown {grown:.1f} MiB")
    assert result["size"] == len(origin.body)
    assert grown < 60
