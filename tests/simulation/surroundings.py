"""Everything around clips in the lanes of provider and bucket faults: both services, the real drivers, virtual time.

def cell(around):                       in a world of its own, in virtual time
    clip = await around.clip().run()
in_surroundings(cell, seed=1)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar

from aiohttp import web

from orchestrator.drivers.budget import BudgetSettings
from orchestrator.drivers.cloudflare import CloudflareSettings, CloudflareStream
from orchestrator.drivers.egress import EgressPolicy
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import STREAM_PIPELINE
from orchestrator.storage.clips import Clip
from orchestrator.transfer import HttpSource
from simulation.bucket import BucketOptions, SimulatedBucket, boto_through
from simulation.clocks import in_charge
from simulation.cloudflare import SimulatedStream, StreamOptions
from simulation.faults import Scripted
from simulation.memory import MemoryBudget, MemoryCheckpoints
from simulation.network import NetworkedLoop
from simulation.nodes import Node, wall_clock
from simulation.one_clip import OneClip
from simulation.scale import PART_BYTES, small_parts
from simulation.videos import Fate

T = TypeVar("T")

_STREAM_ORIGIN, _BUCKET_ORIGIN = "http://provider:80", "http://bucket:80"
_SOURCE_URL = "https://videos.example.com/canary0in0an0address0x1a9d.mp4"
#: Quick, since every cell of a matrix passes through it.
QUICK = Fate(downloading_seconds=2, queued_seconds=3, encoding_seconds=8, mp4_seconds=6)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the drivers are told."""

    api_token: str
    bucket_secret: str


class Surroundings:
    """One world: a provider, a bucket, and any number of programs with their clips."""

    def __init__(self, loop: NetworkedLoop, secrets: Secrets, budget: BudgetSettings | None = None) -> None:
        self.loop = loop
        self.fate = QUICK
        self.stream_faults, self.bucket_faults = Scripted(), Scripted()
        options = StreamOptions(
            api_token=secrets.api_token, delivery_origin=_STREAM_ORIGIN, upload_origin=_STREAM_ORIGIN
        )
        self.stream = SimulatedStream(
            self.now, loop.draw("provider"), self.stream_faults, options, fate=lambda _: self.fate
        )
        self.bucket = SimulatedBucket(
            self.now, loop.draw("bucket"), self.bucket_faults, BucketOptions(part_least_bytes=PART_BYTES)
        )
        self.checkpoints = MemoryCheckpoints(self.now)
        self.clips: list[OneClip] = []
        self._secrets = secrets
        self._budget = MemoryBudget(budget)

    def now(self) -> datetime:
        """The moment by the true clock."""
        return datetime.fromtimestamp(wall_clock(self.loop.now), UTC)

    async def listen(self) -> None:
        """Open both services."""
        for host, app in (("provider", self.stream.application()), ("bucket", self.bucket.application())):
            await self.loop.spawn(Node(host), _serve(app), f"serve {host}")

    @contextlib.asynccontextmanager
    async def hands(self) -> AsyncIterator[StreamHands]:
        """The hands of one program, with the real drivers on the services; closed at the end."""
        secrets = self._secrets
        stream = CloudflareStream(
            CloudflareSettings("acc", secrets.api_token, f"{_STREAM_ORIGIN}/client/v4"),
            self._budget,
            jitter=self.loop.draw("jitter").random,
        )
        store = ObjectStore(
            ObjectStoreSettings(
                _BUCKET_ORIGIN, self.bucket.options.access_key_id, secrets.bucket_secret, "clips", "https://media.test"
            )
        )
        source = HttpSource(EgressPolicy.allowing([_STREAM_ORIGIN]))
        pool: Any = SimpleNamespace(acquire=_one_address)
        try:
            yield StreamHands(stream, store, source, self.checkpoints, pool, max_transfers=4)
        finally:
            await stream.close()
            await store.close()
            await source.close()

    def copied_clip(self, hands: StreamHands, name: str = "clip-1") -> OneClip:
        """A clip that is fetched from an address."""
        return self._clip(hands, name, processing_details={"has_source_url": True})

    def _clip(self, hands: StreamHands, name: str, **values: Any) -> OneClip:
        now = self.now()
        empty: dict[str, Any] = dict.fromkeys(Clip.__slots__)
        row: dict[str, Any] = {
            **empty,
            "id": name,
            "pipeline": "stream",
            "status": "uploading",
            "progress": 0.0,
            "processing_details": {},
            "attempt": 1,
            "created_at": now,
            "updated_at": now,
            "status_since": now,
            "look_at": now,
            "tries": 0,
            "pending": 0,
            "epoch": 1,
            "version": 1,
        }
        one = OneClip(Clip(**{**row, **values}), STREAM_PIPELINE, hands, self.now, self.loop.draw("looks"))
        self.clips.append(one)
        return one

    # --- What must be so in the end -------------------------------------------------------------------

    async def check(self, hands: StreamHands) -> None:
        """Hold every promise that does not depend on what went wrong against what is so."""
        for one in self.clips:
            assert not one.broke, f"an effect broke: {one.broke!r}"
            if one.clip.status == "complete":
                self._check_complete(one.clip)
        assert not [call for call in self.stream.calls if call.limited], "the provider's limit was passed"
        for video in [*self.stream.videos.values(), *self.stream.gone.values()]:
            assert video.mp4_repeats == 0, "an MP4 was asked for although there was one"
        makers = [video.creator for video in [*self.stream.videos.values(), *self.stream.gone.values()]]
        assert len(makers) == len(set(makers)), "the same copy was asked for twice"
        await self.sweep(hands)
        assert not self.bucket.unfinished(), "an upload is left after the sweep"

    def _check_complete(self, clip: Clip) -> None:
        key = clip.processing_details["r2_key"]
        video = self.stream.find(clip.cloudflare_uid or "")
        assert video is not None
        body = self.bucket.get(key)
        assert body is not None, "complete, and nothing is in the bucket"
        assert body in video.files, "complete, and the bucket holds other bytes than were delivered"
        assert clip.r2_url == f"https://media.test/{key}"
        assert clip.file_size == len(body)

    async def sweep(self, hands: StreamHands) -> None:
        """Let a day pass and what crashes have left be cleared."""
        self.stream_faults.heal()
        self.bucket_faults.heal()
        await self._wait(timedelta(hours=25))
        await hands.tidy()

    async def _wait(self, span: timedelta) -> None:
        waited = self.loop.create_future()
        self.loop.after(span.total_seconds(), lambda: waited.set_result(None))
        await waited


def in_surroundings(
    cell: Callable[[Surroundings], Awaitable[T]],
    secrets: Secrets,
    seed: int = 1,
    part_bytes: int = PART_BYTES,
    max_bytes: int | None = None,
) -> T:
    """What *cell* returns, run in a world of its own in virtual time."""
    loop = NetworkedLoop(seed)
    with in_charge(loop):
        around = Surroundings(loop, secrets)

        async def run() -> T:
            await around.listen()
            return await cell(around)

        with boto_through(around.bucket), small_parts(part_bytes, max_bytes):
            try:
                return loop.run_until_complete(loop.spawn(Node("program"), run()))
            finally:
                loop.bury()


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()  # noqa: S104 - a host of the simulation


@contextlib.asynccontextmanager
async def _one_address(**_: Any) -> AsyncIterator[Any]:
    """A pool whose connection knows one thing: where a clip is fetched from."""

    async def fetchval(*_: Any) -> str:
        return _SOURCE_URL

    yield SimpleNamespace(fetchval=fetchval)
