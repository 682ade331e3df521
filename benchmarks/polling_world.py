"""A day at the provider on a simulated clock: the real monitor, plan, hands, driver and budget over thousands of clips.

The clock, the database and the provider are the simulation's (`tests/simulation`); between them there is no network,
and a file is copied by waiting for as long as that takes, since neither costs a call. What the provider does to a clip
is drawn here:

    length       two minutes in the middle, most between half a minute and ten, some an hour (lognormal, sigma 1.1)
    sending      8 Mbit of file a second of video, over a line of 20 Mbit/s in the middle (lognormal, sigma 0.7)
    queue        five seconds on average, as long as there is room
    encoding     ten seconds and 0.3 of the length, each time by another factor (lognormal, sigma 0.3)
    renditions   of one in five the last ones come 5 to 60 s after `ready`
    MP4          three seconds and a tenth of the length, by another factor; one in a hundred fails and is made again
    private      one in twenty

No source gives such figures for the provider. They are chosen: what people upload is mostly short with a long tail,
an encoder is some times faster than real time, and repackaging a few times faster than that. One in five is fetched
from an address, the others are sent. They come one by one, at random moments, 0.8 a second: with as many the provider's
120 places for encoding are two thirds full.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from urllib.parse import urlsplit

import structlog
from simulation.clocks import in_charge
from simulation.cloudflare import SimulatedStream, StreamOptions, refused
from simulation.database import PromptWire, SimulatedDatabase
from simulation.network import NetworkedLoop
from simulation.nodes import EPOCH
from simulation.videos import Fate, SimulatedVideo

from benchmarks.polling_baseline import FixedHands, at_fixed_intervals
from benchmarks.polling_day import Day, Seen
from orchestrator.drivers.budget import BudgetSettings, SharedCallBudget
from orchestrator.drivers.cloudflare import CloudflareSettings, CloudflareStream
from orchestrator.drivers.cloudflare_answers import Operation, Reply
from orchestrator.drivers.cloudflare_calls import CloudflareCalls
from orchestrator.drivers.cloudflare_models import parse_webhook_video
from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.rate_headers import retry_after_seconds
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.pipelines.stream.effects import TransferToBucket
from orchestrator.pipelines.stream.foresight import Foresight
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Reports, Step
from orchestrator.transfer import NotYetThereError
from orchestrator.web.creation import NewRow, insert_clip
from orchestrator.web.webhooks import signal_of
from signals.together import signal_status_updates

ACCOUNT, TOKEN = "acc", "simulated-token-of-the-account"
CLIPS_A_SECOND = 0.8
# The usual way to a service that answers within a tenth of a second.
ANSWER_SECONDS = 0.1
# Finished clips the database keeps: the history that is learned from reaches back to two hundred.
KEPT_CLIPS = 300
SAMPLE_SECONDS = 10.0
# A run that has not ended so long after the last clip came would never end: the slowest line may send until the address
# it was given expires, and the file is taken on from there.
PATIENCE_SECONDS = 7 * 3600.0


def draw_fate(chance: Random) -> Fate:
    """What the provider does to one clip; see above."""
    length = min(7200.0, max(3.0, 120 * chance.lognormvariate(0, 1.1)))
    is_early = chance.random() < 0.2
    return Fate(
        downloading_seconds=2 + length * 8 / 200,
        queued_seconds=chance.expovariate(1 / 5),
        encoding_seconds=(10 + 0.3 * length) * chance.lognormvariate(0, 0.3),
        ready_percent=chance.uniform(30, 95) if is_early else 100.0,
        full_after_seconds=chance.uniform(5, 60) if is_early else 0.0,
        mp4_seconds=(3 + 0.1 * length) * chance.lognormvariate(0, 0.3),
        mp4_failures=int(chance.random() < 0.01),
        size_bytes=200,
        duration_seconds=length,
        is_private=chance.random() < 0.05,
    )


class World:
    """One day, from the first clip to the end of the last."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.seen = Seen()
        self.loop = NetworkedLoop(day.seed)
        self.loop._step_limit = 10**12
        self.chance = Random(day.seed)
        options = StreamOptions(account_id=ACCOUNT, api_token=TOKEN, delivery_origin="https://delivery.example")
        self.stream = SimulatedStream(self.now, Random(day.seed), options=options, fate=draw_fate)
        self.database = SimulatedDatabase(self.now)
        self.database.on_commit = self._committed
        self.pool: Any = self.database.pool("monitor", PromptWire())
        self.blocked_until = -1.0
        self._ended: list[str] = []
        self._videos: dict[str, SimulatedVideo] = {}
        self._marks: dict[str, set[str]] = {}

    def now(self) -> datetime:
        return datetime.fromtimestamp(EPOCH + self.loop.now, UTC)

    def run(self) -> Seen:
        with in_charge(self.loop):
            asyncio.set_event_loop(self.loop)
            try:
                self.loop.run_until_complete(self.loop.create_task(self._live()))
            finally:
                self.loop.bury()
        return self.seen

    async def _live(self) -> None:
        stop = asyncio.Event()
        monitor = asyncio.create_task(Monitor(self._parts()).run(stop))
        beside = [asyncio.create_task(each) for each in (self._sample(), self._notify())]
        at_web = self._driver()
        coming: list[asyncio.Task[None]] = []
        for number in range(self.day.clips):
            await asyncio.sleep(self.chance.expovariate(CLIPS_A_SECOND))
            coming.append(asyncio.create_task(self._bring(number, at_web)))
            if number == self.day.clips // 2 and self.day.block_seconds:
                self.blocked_until = self.loop.now + self.day.block_seconds
        until = self.loop.now + PATIENCE_SECONDS
        while sum(self.seen.ends.values()) < self.day.clips and self.loop.now < until:
            if monitor.done():
                monitor.result()
            await asyncio.sleep(1.0)
        self.seen.seconds = self.loop.now
        stop.set()
        await monitor
        for task in (*beside, *coming):
            task.cancel()
        self.seen.doubled = sum(len(video.mp4_repeated_at) for video in self._videos.values())
        self._take_calls()

    def _parts(self) -> MonitorParts:
        foresight = Foresight()
        kind = FixedHands if self.day.fixed else StreamHands
        hands = _hands(kind, self, self._driver(), foresight)
        pipeline = stream_pipeline(StreamPolicy(), foresight.outlook)
        return MonitorParts(
            pool=self.pool,
            connect=partial(self.database.connect, "monitor", PromptWire()),
            pipelines={"stream": at_fixed_intervals(pipeline) if self.day.fixed else pipeline},
            hands={"stream": hands},
            clock=self.now,
            monotonic=self.loop.time,
        )

    def _driver(self) -> CloudflareStream:
        """The driver of one process, with its own view of the budget they share."""
        settings = CloudflareSettings(ACCOUNT, TOKEN, "https://api.example/client/v4")
        budget = SharedCallBudget(self.pool, BudgetSettings(), ACCOUNT)
        driver = CloudflareStream(settings, budget)
        driver._calls = _Calls(self, settings, budget)
        return driver

    # --- What others do ------------------------------------------------------------------------------

    async def _bring(self, number: int, stream: CloudflareStream) -> None:
        """A clip by a person who sends it, or, one in five, by its address."""
        clip_id = f"clip-{number}"
        if self.chance.random() < 0.2:
            details = {"created_by": "api", "origin": "url", "has_source_url": True}
            await self._insert(NewRow(clip_id, None, details, source_url="https://owner.example/clip.mp4"))
            return
        line = 20 * self.chance.lognormvariate(0, 0.7)
        while True:
            try:
                upload = await stream.create_direct_upload(3600, f"{clip_id}.1", {"clip_id": clip_id})
                break
            except TransientError as problem:
                await asyncio.sleep(max(1.0, problem.retry_after or 0.0))
        expires_at = self.now() + timedelta(hours=6)
        self.stream.videos[upload.uid].expires_at = expires_at
        size = int(self.stream.videos[upload.uid].fate.duration_seconds * 1e6)
        details = {"created_by": "api", "origin": "upload", "upload_size_bytes": size}
        await self._insert(NewRow(clip_id, None, details, upload.uid, upload_expires_at=expires_at))
        await asyncio.sleep(size * 8 / 1e6 / line)
        self.stream.receive(upload.uid, size)

    async def _insert(self, row: NewRow) -> None:
        async with self.pool.acquire(timeout=5) as connection:
            await insert_clip(connection, row)

    async def _notify(self) -> None:
        """The provider's webhooks, within two seconds, where there are any."""
        while self.day.webhooks:
            await asyncio.sleep(0.5)
            for told in self.stream.due_notifications():
                signal = signal_of(parse_webhook_video(told.body), "webhook")
                if signal is not None:
                    async with self.pool.acquire(timeout=5) as connection:
                        await signal_status_updates(connection, [signal])

    # --- What is measured ----------------------------------------------------------------------------

    def _committed(self, table: str, before: Any, after: Any) -> None:
        if table != "clips" or after is None or (before is not None and before["status"] == after["status"]):
            return
        uid, status = after["cloudflare_uid"], after["status"]
        video = self.stream.videos.get(uid) if uid else None
        if video is not None:
            self._videos[uid] = video
            self._measure(video, after["id"], status)
        if status in ("complete", "error"):
            self.seen.ends[f"{status} in attempt {after['attempt']}"] += 1
            # The commit is not over yet.
            self.loop.call_soon(self._ended_clip, after["id"], uid)

    def _measure(self, video: SimulatedVideo, clip_id: str, status: str) -> None:
        """How late each fact was found that this status says, the first time that one says it."""
        order = ("queued", "processing", "stream_ready", "waitformp4", "mp4_processing", "mp4downloading")
        rank = order.index(status) if status in order else -1
        fate, arrived = video.fate, video.arrived_at
        facts: list[tuple[int, str, datetime | None]] = [(5, "MP4 made", _made_at(video))]
        if arrived is not None:
            queued_until = arrived + timedelta(seconds=fate.queued_seconds)
            facts += [(1, "encoding begun", queued_until), (2, "playable", video.encoded_at)]
            if video.source_url is None:
                facts.append((0, "bytes arrived", arrived))
        marks = self._marks.setdefault(clip_id, set())
        for least, name, at in facts:
            if rank >= least and at is not None and name not in marks:
                marks.add(name)
                self.seen.delays.setdefault(name, []).append(max(0.0, (self.now() - at).total_seconds()))

    def _ended_clip(self, clip_id: str, uid: str | None) -> None:
        """Keep the tables as small as one that is pruned: what a statement costs here grows with them."""
        self._marks.pop(clip_id, None)
        self.stream.videos.pop(uid or "", None)
        self._ended.append(clip_id)
        if len(self._ended) > KEPT_CLIPS:
            oldest = self._ended.pop(0)
            self.database.put("clips", oldest, None)
            for table in ("clip_events", "provider_asks"):
                for key in [key for key, row in self._rows_of(table) if row["clip_id"] == oldest]:
                    self.database.put(table, key, None)
        if len(self.stream.calls) > 5000:
            self._take_calls()

    def _rows_of(self, table: str) -> list[tuple[Any, Any]]:
        return list(self.database._server.tables[table].rows.items())

    def _take_calls(self) -> None:
        for call in self.stream.calls:
            self.seen.call_times.append(call.at.timestamp() - EPOCH)
            self.seen.calls[call.name] += 1
            self.seen.limited += call.limited
        self.stream.calls.clear()

    async def _sample(self) -> None:
        settings = BudgetSettings()
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            row = self.database.row("call_budget", ACCOUNT)
            if row is not None:
                since = max(0.0, (self.now() - row["refilled_at"]).total_seconds())
                tokens = min(settings.burst, row["tokens"] + settings.rate * since)
                self.seen.tokens.append((self.loop.now, tokens / settings.burst))


def _made_at(video: SimulatedVideo) -> datetime | None:
    if video.mp4_enabled_at is None:
        return None
    made_at: datetime = video.mp4_enabled_at + timedelta(seconds=video.fate.mp4_seconds)
    return made_at


class _Calls(CloudflareCalls):
    """The real way to the API, but that nothing is sent over a network."""

    def __init__(self, world: World, *args: Any) -> None:
        super().__init__(*args)
        self._world = world

    async def _send(self, operation: Operation, request: Any) -> Reply:
        await asyncio.sleep(ANSWER_SECONDS)
        world = self._world
        if world.loop.now < world.blocked_until:
            world.seen.limited += 1
            said = refused(429, 971, "Please wait and consider throttling your request rate", {"Retry-After": "1"})
        else:
            headers = {"Authorization": f"Bearer {TOKEN}", **request.all_headers()}
            path, body = urlsplit(request.url).path, b"{}"
            if request.payload is not None:
                body = json.dumps(request.payload).encode()
            said = world.stream.ask(operation.method, path, request.query or {}, headers, body)
        return Reply(said.status, said.headers, said.body, retry_after_seconds(said.headers, EPOCH + world.loop.now))


class _Host:
    """The delivery host: what is there and what is not."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def probe(self, address: str) -> None:
        await asyncio.sleep(ANSWER_SECONDS)
        self._world.seen.probes += 1
        video = self._world.stream.videos.get(urlsplit(address).path.split("/")[1])
        if video is None or not video.is_served(self._world.now()):
            raise NotYetThereError("mp4_not_yet_there", "The source answered 404.")


def _hands(kind: type[StreamHands], world: World, stream: Any, foresight: Foresight) -> StreamHands:
    class Hands(kind):  # type: ignore[misc, valid-type]
        """A file of a megabyte a second of video at 50 MB/s, and no bucket."""

        async def _transfer(self, effect: TransferToBucket, reports: Reports) -> Done:
            await self._readable_address(effect)
            await asyncio.sleep(1 + (effect.duration_seconds or 0) / 50)
            return Done(step=Step("complete", "The file is in the bucket", {"r2_url": "https://media.example/x.mp4"}))

        async def tidy(self) -> Mapping[str, int]:
            swept: Mapping[str, int] = await self._ghosts.sweep()
            return swept

    return Hands(stream, None, _Host(world), None, world.pool, 32, clock=world.now, foresight=foresight)


def live_through(day: Day) -> Seen:
    """The figures of one day; for a process of its own, whose clocks it takes over."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return World(day).run()
