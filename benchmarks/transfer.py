"""Bringing finished files into the bucket: the product against bare pumps and boto3, real bytes to a real S3 server.

The bucket is rclone's, the source a file server on loopback; each transfer runs in a process of its own. What
the product does beside the pump: a part at a time to presigned addresses, checkpoints in PostgreSQL, an MD5 of each
part and a SHA-256 of the whole, and the verification of the object in the bucket.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, Subject, at_least, at_most, call, medians, take_turns
from benchmarks.movie_source import write_movie
from benchmarks.web_processes import ROOT, free_port, served
from orchestrator.local.bucket import BucketOptions, EmbeddedBucket

_MIB = 1024 * 1024
_BARE = ("thread", "aiohttp")
_LIMIT_SECONDS = 300.0
# All of it stays on loopback.
_WITHOUT_PROXIES = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@dataclass
class Ground:
    """What a pump is told, and what became of each."""

    job: Mapping[str, Any]
    size_bytes: int
    told: dict[tuple[str, int], list[Any]] = field(default_factory=lambda: defaultdict(list))
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def pump(self, kind: str, at_once: int) -> float:
        """MiB a second of *at_once* transfers by *kind*, in a process of its own."""
        job = {**self.job, "kind": kind, "at_once": at_once, "name": f"t{next(self.numbers)}"}
        command = [sys.executable, "-m", "benchmarks.pumps"]
        said = await call(command, _LIMIT_SECONDS, json.dumps(job).encode(), cwd=ROOT, env=_WITHOUT_PROXIES)
        one = json.loads(said.splitlines()[-1])
        self.told[kind, at_once].append(one)
        return float(at_once * self.size_bytes / _MIB / one["seconds"])


async def measure(place: Place) -> list[Row]:
    """Rows of the goals: speed at 1, 2 and 4 at a time, and memory above idle."""
    size_bytes = place.amount(48, 512) * _MIB
    movie, small = place.directory / "movie.mp4", place.directory / "small.mp4"
    write_movie(movie, size_bytes)
    write_movie(small, _MIB)
    options = BucketOptions("benchmark", "a-secret-for-what-is-measured", "clips")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(started_server(place))
        bucket = await stack.enter_async_context(EmbeddedBucket(place.directory / "bucket", options))
        addresses = []
        for file in (movie, small):
            port = free_port()
            arguments = ["-m", "benchmarks.movie_source", str(file), str(port)]
            await stack.enter_async_context(served(arguments, port, "/", {}, place.directory))
            addresses.append(f"http://127.0.0.1:{port}/movie.mp4")
        job = {
            "source": addresses[0], "small": addresses[1], "endpoint": bucket.endpoint_url, "bucket": options.name,
            "access_key_id": options.access_key_id, "secret_access_key": options.secret_access_key,
            "database": await make_database(server, "transfer"),
        }  # fmt: skip
        ground = Ground(job, size_bytes)
        rows = []
        for at_once in (1, 2, 4):
            rows += await _compared(ground, at_once, place.amount(1, 5))
        await ground.pump("product", 8)
        rows += [_memory(ground, 1, at_most(40)), _memory(ground, 8, at_most(100))]
    movie.unlink()
    return rows


async def _compared(ground: Ground, at_once: int, rounds: int) -> list[Row]:
    kinds = ("product", *_BARE, "boto3")
    taken = await take_turns({kind: _subject(ground, kind, at_once) for kind in kinds}, rounds)
    figures = {f"{kind}_MiB_a_second": value for kind, value in medians(taken).items()}
    best: Sequence[float] = [max(pair) for pair in zip(*(taken[kind] for kind in _BARE), strict=True)]
    against_best, against_boto3 = _middle(taken["product"], best), _middle(taken["product"], taken["boto3"])
    return [
        Row(f"{at_once} at a time against the best bare pump", against_best, at_least(0.9), "", figures),
        Row(f"{at_once} at a time against boto3's upload_fileobj", against_boto3, at_least(1.2)),
    ]


def _subject(ground: Ground, kind: str, at_once: int) -> Subject:
    pump: Callable[[str, int], Any] = ground.pump
    return lambda: pump(kind, at_once)


def _middle(one: Sequence[float], other: Sequence[float]) -> float:
    return median(a / b for a, b in zip(one, other, strict=True))


def _memory(ground: Ground, at_once: int, goal: Any) -> Row:
    above = max(one["above_idle_bytes"] for one in ground.told["product", at_once]) / 1000**2
    figures = {"file_MiB": ground.size_bytes // _MIB}
    if boto3 := ground.told.get(("boto3", at_once)):
        figures["boto3_peak_MB"] = round(max(one["peak_bytes"] for one in boto3) / 1000**2)
    return Row(f"memory above idle, {at_once} at once", above, goal, "MB", figures)
