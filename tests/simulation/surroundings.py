"""Everything around clips in the lanes of provider, delivery and bucket faults: both services, a database, a program.

The program is the real monitor with the real drivers; it runs on virtual time, in a world of its own for each cell.

    async def cell(around):
        async with around.program():
            row = await around.until_rest(await around.copied_clip())
        await around.check()

    in_surroundings(cell, secrets)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from unittest import mock

from aiohttp import web

from orchestrator.drivers.budget import BudgetSettings, SharedCallBudget
from orchestrator.drivers.cloudflare import CloudflareSettings, CloudflareStream
from orchestrator.drivers.egress import EgressPolicy
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.monitor import leadership
from orchestrator.monitor import loop as monitor_loop
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import STREAM_PIPELINE
from orchestrator.storage.clips import read_clip
from orchestrator.transfer import HttpSource, PostgresCheckpoints
from orchestrator.web.creation import NewRow, insert_clip
from signals import signal_retry, wake
from simulation.bucket import BucketOptions, SimulatedBucket, boto_through
from simulation.clocks import in_charge
from simulation.cloudflare import SimulatedStream, StreamOptions
from simulation.database import PromptWire, SimulatedDatabase
from simulation.faults import Scripted
from simulation.network import NetworkedLoop
from simulation.nodes import Node, wall_clock
from simulation.scale import PART_BYTES, small_parts
from simulation.videos import Fate, SimulatedVideo
from statusutils import STREAM

T = TypeVar("T")
Row = Mapping[str, Any]

_STREAM_ORIGIN, _BUCKET_ORIGIN = "http://provider:80", "http://bucket:80"
_MEDIA_URL = "https://media.example.com"
#: Quick, since every cell of a matrix passes through it.
QUICK = Fate(downloading_seconds=2, queued_seconds=3, encoding_seconds=8, mp4_seconds=6)
#: How often the monitor comes round without being woken, and renews its lease: on virtual time only rounds cost
#: anything, and a look that comes ten seconds late changes nothing that is judged here.
_RARE_ROUNDS = {"SWEEP_SECONDS": 10.0, "TICK_SECONDS": 60.0, "PROBE_SECONDS": 600.0, "RENEWAL_SECONDS": 60.0}
_LONG_LEASE = {"LEASE_SECONDS": 200.0, "RENEWAL_SECONDS": 60.0}


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What the program is told, and nobody may find again: nor in the words of a test that failed."""

    api_token: str
    bucket_secret: str
    source_address: str


class Surroundings:
    """One world: a provider, a bucket, a database, and any number of programs."""

    def __init__(self, loop: NetworkedLoop, secrets: Secrets) -> None:
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
        self.database = SimulatedDatabase(self.now)
        #: Moves by what they were, for budgets and oracles.
        self.moves: Counter[tuple[str, str]] = Counter()
        self.database.on_commit = self._committed
        #: How a file may be asked for twice: cells in which the provider hides the MP4 it is making.
        self.mp4_may_be_asked_twice = False
        #: Everything may have been asked for before, as far as anybody knows, and has to be looked for.
        self.notes_are_lost = False
        self._secrets = secrets
        self._programs = 0
        self._asking = self.database.pool("web", PromptWire())

    def now(self) -> datetime:
        """The moment by the true clock."""
        return datetime.fromtimestamp(wall_clock(self.loop.now), UTC)

    # --- Programs -------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Open both services."""
        for host, app in (("provider", self.stream.application()), ("bucket", self.bucket.application())):
            await self.loop.spawn(Node(host), _serve(app), f"serve {host}")

    @contextlib.asynccontextmanager
    async def program(self, max_transfers: int = 4) -> AsyncIterator[Node]:
        """A monitor with its drivers, running meanwhile; stopped in good order at the end unless it was killed."""
        self._programs += 1
        node = Node(f"monitor-{self._programs}")
        node.on_crash += [lambda: self.loop.network.crashed(node), lambda: self.database.drop(node.name)]
        stop = asyncio.Event()
        running = self.loop.spawn(node, self._run(node, stop, max_transfers), node.name)
        try:
            yield node
        finally:
            if not node.is_dead:
                stop.set()
                await running

    async def _run(self, node: Node, stop: asyncio.Event, max_transfers: int) -> None:
        async with self.hands(node.name, max_transfers) as hands:
            parts = MonitorParts(
                pool=self.database.pool(node.name, PromptWire()),
                connect=lambda: self.database.connect(node.name, PromptWire()),
                pipelines={"stream": STREAM_PIPELINE},
                hands={"stream": hands},
            )
            await Monitor(parts).run(stop)

    @contextlib.asynccontextmanager
    async def hands(self, name: str = "hands", max_transfers: int = 4) -> AsyncIterator[StreamHands]:
        """The hands of one program, with the real drivers on the services; closed at the end."""
        pool: Any = self.database.pool(name, PromptWire())
        stream = self.driver(pool)
        store = ObjectStore(
            ObjectStoreSettings(
                _BUCKET_ORIGIN,
                self.bucket.options.access_key_id,
                self._secrets.bucket_secret,
                self.bucket.options.name,
                _MEDIA_URL,
            )
        )
        source = HttpSource(EgressPolicy.allowing([_STREAM_ORIGIN]))
        try:
            checkpoints = PostgresCheckpoints(pool)
            hands = StreamHands(stream, store, source, checkpoints, pool, max_transfers, clock=self.now)
            if self.notes_are_lost:
                hands._asks_first = _nobody_knows  # type: ignore[method-assign]
            yield hands
        finally:
            await stream.close()
            await store.close()
            await source.close()

    def driver(self, pool: Any = None) -> CloudflareStream:
        """The provider's driver on the budget that all programs share; to be closed."""
        pool = pool or self.database.pool("driver", PromptWire())
        settings = CloudflareSettings("acc", self._secrets.api_token, f"{_STREAM_ORIGIN}/client/v4")
        return CloudflareStream(settings, SharedCallBudget(pool, BudgetSettings(), "acc"))

    # --- Clips ----------------------------------------------------------------------------------------

    async def copied_clip(self, name: str = "clip-1", **details: object) -> str:
        """A clip that the provider fetches from an address."""
        details = {"has_source_url": True, **details}
        return await self._insert(NewRow(name, None, details, source_url=self._secrets.source_address))

    async def known_clip(self, name: str = "clip-1") -> str:
        """A clip whose video is at the provider already, its last byte just received."""
        video = self.stream.make("direct_upload", f"{name}.1", {})
        self.stream.receive(video.uid)
        return await self._insert(NewRow(name, None, {}, cloudflare_uid=video.uid))

    async def made_clip(self, name: str = "clip-1") -> str:
        """A clip whose MP4 is ready, and whose transfer nobody has begun."""
        clip_id = await self.copied_clip(name)
        async with self.program(max_transfers=0):
            await self.until_status(clip_id, "mp4downloading")
        return clip_id

    async def forgotten_clip(self, name: str = "clip-1") -> str:
        """A clip whose upload address nobody ever sends anything to."""
        video = self.stream.make("direct_upload", f"{name}.1", {})
        video.expires_at = self.now() + timedelta(minutes=30)
        row = NewRow(name, None, {}, cloudflare_uid=video.uid, upload_expires_at=video.expires_at)
        return await self._insert(row)

    async def _insert(self, row: NewRow) -> str:
        async with self._asking.acquire() as connection:
            await insert_clip(connection, row)
            await wake(connection)
        return row.clip_id

    def clip(self, clip_id: str = "clip-1") -> dict[str, Any]:
        """The row as it is committed, its document as an object."""
        row = self.database.row("clips", clip_id)
        assert row is not None
        said = row["processing_details"]
        return {**row, "processing_details": json.loads(said) if isinstance(said, str) else said}

    def video(self, clip_id: str = "clip-1") -> SimulatedVideo:
        """The clip's video, deleted ones too."""
        found = self.stream.find(self.clip(clip_id)["cloudflare_uid"])
        assert found is not None
        return found

    async def until_rest(self, clip_id: str = "clip-1", limit: timedelta = timedelta(days=8)) -> dict[str, Any]:
        """The row once nothing more follows for it. Raises AssertionError when that takes longer than *limit*."""
        until = self.now() + limit
        pause_seconds = 1.0
        while True:
            row = self.clip(clip_id)
            if row["status"] in ("complete", "error") and row["look_at"] is None:
                return row
            assert self.now() < until, f"after {limit} it still stands at {row['status']}: {row['processing_details']}"
            await self.wait(pause_seconds)
            pause_seconds = min(pause_seconds * 1.1, 60.0)

    async def until_status(self, clip_id: str, status: str, limit: timedelta = timedelta(days=8)) -> dict[str, Any]:
        """The row once the clip stands there or beyond."""
        until, pause_seconds = self.now() + limit, 0.5
        while STREAM[self.clip(clip_id)["status"]].order < STREAM[status].order:
            assert self.now() < until, f"after {limit} it has not reached {status}"
            await self.wait(pause_seconds)
            pause_seconds = min(1.05 * pause_seconds, 20.0)
        return self.clip(clip_id)

    async def retry(self, clip_id: str = "clip-1") -> None:
        """A person asks for a new attempt, and it has begun."""
        attempt = self.clip(clip_id)["attempt"]
        async with self._asking.acquire() as connection:
            clip = await read_clip(connection, clip_id)
            assert clip is not None
            resume = STREAM_PIPELINE.resume_status(clip)
            assert resume is not None, "nothing to try again from"
            await signal_retry(connection, clip_id, resume, "dashboard")
            await wake(connection)
        for _ in range(60):
            if self.clip(clip_id)["attempt"] > attempt:
                return
            await self.wait(1.0)
        raise AssertionError("the new attempt never began")

    async def wait(self, seconds: float) -> None:
        """Let so much true time pass."""
        passed = self.loop.create_future()
        self.loop.after(seconds, lambda: passed.done() or passed.set_result(None))
        await passed

    def _committed(self, table: str, before: Any, after: Any) -> None:
        if table == "clips" and before is not None and after is not None and before["status"] != after["status"]:
            self.moves[before["status"], after["status"]] += 1

    # --- What must be so in the end -------------------------------------------------------------------

    async def check(self) -> None:
        """Hold every promise that does not depend on what went wrong against what is so; the programs have ended."""
        for row in self.database.rows("clips"):
            if row["status"] == "complete":
                self._check_complete(self.clip(str(row["id"])))
        assert not [call for call in self.stream.calls if call.limited], "the provider's limit was passed"
        videos = [*self.stream.videos.values(), *self.stream.gone.values()]
        if not self.mp4_may_be_asked_twice:
            assert not any(video.mp4_repeated_at for video in videos), "an MP4 was asked for although there was one"
        makers = [video.creator for video in videos]
        assert len(makers) == len(set(makers)), f"the same video was asked for twice: {makers}"
        await self.sweep()
        assert not self.bucket.unfinished(), "an upload is left after the sweep"

    def _check_complete(self, clip: Row) -> None:
        key = clip["processing_details"]["r2_key"]
        video = self.stream.find(clip["cloudflare_uid"])
        assert video is not None
        body = self.bucket.get(key)
        assert body is not None, "complete, and nothing is in the bucket"
        assert body in video.files, "complete, and the bucket holds other bytes than were delivered"
        assert clip["r2_url"] == f"{_MEDIA_URL}/{key}"
        assert clip["file_size"] == len(body)

    async def sweep(self) -> None:
        """Let a day pass without faults, and what crashes have left be cleared."""
        self.stream_faults.heal()
        self.bucket_faults.heal()
        await self.wait(timedelta(hours=25).total_seconds())
        async with self.hands("sweeper") as hands:
            await hands.tidy()


async def _nobody_knows(*_: str) -> bool:
    return False


def in_surroundings(
    cell: Callable[[Surroundings], Awaitable[T]],
    secrets: Secrets,
    seed: int = 1,
    part_bytes: int = PART_BYTES,
    max_bytes: int | None = None,
    deadline_seconds: float | None = None,
) -> T:
    """What *cell* returns, run in a world of its own in virtual time."""
    loop = NetworkedLoop(seed)
    with in_charge(loop), _rare_rounds(), small_parts(part_bytes, max_bytes, deadline_seconds):
        around = Surroundings(loop, secrets)

        async def run() -> T:
            await around.listen()
            return await cell(around)

        with boto_through(around.bucket):
            try:
                return loop.run_until_complete(loop.spawn(Node("lane"), run()))
            finally:
                loop.bury()


@contextlib.contextmanager
def _rare_rounds() -> Iterator[None]:
    """Within, the monitor comes round more rarely: what it does is the same, and hours pass at a tenth of the cost."""
    with mock.patch.multiple(monitor_loop, **_RARE_ROUNDS), mock.patch.multiple(leadership, **_LONG_LEASE):
        yield


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()  # noqa: S104 - a host of the simulation
