"""A clip that always fails delays no other.

The real monitor on a real database, twice with the same healthy clips: once alone, once with poison among them. Of the
poison each clip always breaks one thing, with one kind of exception; some rows are held by a session that hangs, some
carry documents as large as they may be. The healthy ones must take no longer for it, and each poisoned one must end
with its reason, or rest where its row says why.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
import structlog

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.explaining import explain
from orchestrator.monitor import failures, judging
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.pipelines.limits import Limit
from orchestrator.pipelines.stream.effects import AbandonTransfer, EnableMp4
from orchestrator.pipelines.stream.plan import DOWNLOAD, StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Effect, LookKind, Pipeline, Plan, Reports, Step
from orchestrator.storage.clips import Clip, read_clip
from orchestrator.storage.pool import connect, create_pool

HEALTHY = "h"
TRIES = 3
# Most of what the poison costs it costs at once; twice is far from both a round lost for each and from chance.
SLOWER_AT_MOST = 2.0
# Far above what any of it takes.
LIMIT_SECONDS = {"ci": 90.0, "long": 900.0}

EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "MemoryError": MemoryError,
    "InternalClientError": lambda: asyncpg.InternalClientError("got result for unknown protocol state 3"),
    "InterfaceError": lambda: asyncpg.InterfaceError("connection is closed"),
    "PostgresError": lambda: asyncpg.PostgresError("of no class at all"),
    "KeyError": lambda: KeyError("state"),
    "OSError": lambda: OSError("no such thing"),
    "TimeoutError": TimeoutError,
    "AssertionError": AssertionError,
    "UnicodeError": lambda: UnicodeError("odd"),
    "TransientError": lambda: TransientError("source_cut", "the line was cut"),
    "PermanentError": lambda: PermanentError("too_long", "longer than allowed"),
    "CancelledError": asyncio.CancelledError,
}
PLACES = ("look_kind", "observe", "plan", "capacity", "effect", "judging", "row", "document")


@dataclass(frozen=True)
class Poison:
    """What one clip breaks, and with what."""

    place: str
    exception: str

    def bite(self, place: str) -> None:
        if self.place == place:
            raise EXCEPTIONS[self.exception]()


Poisons = Mapping[str, Poison]


def poison_for(count: int) -> dict[str, Poison]:
    """Every place with every exception, over and over."""
    pairs = [
        Poison(place, exception)
        for exception in EXCEPTIONS
        for place in PLACES
        # A cancellation that a library lets escape comes out of an await.
        if exception != "CancelledError" or place in ("observe", "effect")
    ]
    random.Random(7).shuffle(pairs)  # noqa: S311 (here and below: the same each time, and no secret)
    return {f"p{n:05}": pairs[n % len(pairs)] for n in range(count)}


class PoisonedHands:
    """A provider that is done at once with healthy clips, and counts what it is asked."""

    def __init__(self, poisons: Poisons, bitten: Counter[str]) -> None:
        self.poisons = poisons
        self.bitten = bitten
        self.looks = 0

    def bite(self, clip_id: str, place: str) -> None:
        poison = self.poisons.get(clip_id)
        if poison is not None and poison.place == place:
            self.bitten[clip_id] += 1
            poison.bite(place)

    def queue_of(self, effect: Effect) -> str | None:
        return None

    def capacity(self, effect: Effect) -> int:
        self.bite(effect.clip_id, "capacity")
        return 200

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        self.looks += 1
        await asyncio.sleep(0.002)  # the least that a call takes
        for clip in clips:
            self.bite(clip.id, "observe")
        if kind == DOWNLOAD:
            return {clip.id: Download(DownloadState.READY, 100.0, "https://d/m.mp4") for clip in clips}
        ready = VideoState.READY
        return {
            clip.id: Video(clip.cloudflare_uid or "", ready, "ready", 100.0, hls_url="https://h/x") for clip in clips
        }

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        await asyncio.sleep(0.002)
        self.bite(effect.clip_id, "effect")
        if isinstance(effect, AbandonTransfer):
            return Done(details={"abandoned_in_attempt": effect.attempt})
        if isinstance(effect, EnableMp4):
            return Done(step=Step("waitformp4", "taken"))
        await reports.step(Step("r2_uploading", "first part"))
        return Done(step=Step("complete", "verified", facts={"r2_url": "https://b/k.mp4", "file_size": 7}))

    async def tidy(self) -> Mapping[str, int]:
        return {}


def poisoned_pipeline(hands: PoisonedHands) -> Pipeline:
    """The stream pipeline, whose plans break for the poisoned, and state what the database refuses."""
    stream = stream_pipeline(StreamPolicy(timedelta(milliseconds=50), timedelta(seconds=1)))

    def look_kind(clip: Clip) -> LookKind:
        hands.bite(clip.id, "look_kind")
        return stream.look_kind(clip)

    def plan(clip: Clip, seen: Any, now: datetime) -> Plan:
        hands.bite(clip.id, "plan")
        planned = stream.plan(clip, seen, now)
        poison = hands.poisons.get(clip.id)
        if poison is None or poison.place not in ("row", "document"):
            return planned
        hands.bitten[clip.id] += 1
        # What the trigger or a column refuses, and what cannot even be put into JSON.
        return replace(
            planned,
            facts={"duration": "a while"} if poison.place == "row" else {},
            details={"text": "\0"} if poison.place == "row" else {"when": now},
        )

    # A short stay, so that what the database always refuses ends within the lane.
    limits = {status: Limit(timedelta(seconds=40), tries=TRIES) for status in stream.limits}
    return replace(stream, limits=limits, look_kind=look_kind, plan=plan)


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between tries on a scale of seconds, and logs without local variables, as in production."""
    monkeypatch.setattr(failures, "FIRST_WAIT", timedelta(seconds=0.5))
    monkeypatch.setattr(failures, "LONGEST_WAIT", timedelta(seconds=2))
    monkeypatch.setattr("orchestrator.monitor.batches.SET_ASIDE_FOR", timedelta(seconds=5))
    monkeypatch.setattr("orchestrator.monitor.looking.REFUSED_WAIT", timedelta(seconds=2))
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


@pytest.fixture
def judging_breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[PoisonedHands], None]:
    """Judging breaks on the signals of those whose poison says so."""
    real = judging.settle

    def breaks_for(hands: PoisonedHands) -> None:
        def settle(table: Any, clip: Clip, signals: Any, now: datetime) -> Any:
            hands.bite(clip.id, "judging")
            return real(table, clip, signals, now)

        monkeypatch.setattr(judging, "settle", settle)

    return breaks_for


@asynccontextmanager
async def monitor_on(database: str, hands: PoisonedHands) -> AsyncIterator[asyncio.Task[None]]:
    pool = await create_pool(database, "orchestrator_monitor", "lane monitor")
    stop = asyncio.Event()
    parts = MonitorParts(
        pool,
        lambda: connect(database, "orchestrator_monitor", "lane listener"),
        {"stream": poisoned_pipeline(hands)},
        {"stream": hands},
    )
    task = asyncio.create_task(Monitor(parts).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait([task], timeout=30)
        await pool.close()


async def insert(owner: asyncpg.Connection, ids: Sequence[str]) -> None:
    await owner.execute(
        "INSERT INTO clips (id, cloudflare_uid) SELECT id, 'u' || id FROM unnest($1::text[]) AS id", list(ids)
    )


async def until_healthy_are_done(owner: asyncpg.Connection, task: asyncio.Task[None], limit_seconds: float) -> float:
    """How long it takes until every healthy clip is complete."""
    started = time.monotonic()
    left = -1
    while left != 0:
        assert not task.done(), f"the monitor has ended: {task.exception()!r}"
        if time.monotonic() - started > limit_seconds:
            unfinished = await owner.fetch(
                "SELECT id, status, look_at, tries, processing_details FROM clips"
                " WHERE id LIKE 'h%' AND status <> 'complete' LIMIT 5"
            )
            raise AssertionError(f"{left} healthy clips are not done: {unfinished}")
        await asyncio.sleep(0.1)
        left = await owner.fetchval("SELECT count(*) FROM clips WHERE id LIKE 'h%' AND status <> 'complete'")
    return time.monotonic() - started


async def fresh(postgres_server: Any, template: str) -> str:
    name = f"{postgres_server.prefix}_{secrets.token_hex(4)}"
    await postgres_server.clone(template, name)
    return str(postgres_server.dsn(name))


def seconds_for(is_long: bool) -> float:
    return LIMIT_SECONDS["long" if is_long else "ci"]


async def alone(database: str, healthy: Sequence[str], limit_seconds: float) -> float:
    """The time that the healthy ones take without poison."""
    owner = await asyncpg.connect(database)
    try:
        await insert(owner, healthy)
        async with monitor_on(database, PoisonedHands({}, Counter())) as task:
            return await until_healthy_are_done(owner, task, limit_seconds)
    finally:
        await owner.close()


async def test_a_clip_that_always_fails_delays_no_other(
    postgres_server: Any,
    database_template: str,
    judging_breaks: Callable[[PoisonedHands], None],
    amount: Any,
    is_long: bool,
    figures: Any,
    sometimes: Any,
) -> None:
    clips, poisoned = amount(1_000, 10_000), amount(104, 520)
    held, full = amount(10, 50), amount(5, 25)
    healthy = [f"{HEALTHY}{n:05}" for n in range(clips - poisoned)]
    limit = seconds_for(is_long)
    without = await alone(await fresh(postgres_server, database_template), healthy, limit)

    database = await fresh(postgres_server, database_template)
    poisons, bitten = poison_for(poisoned), Counter[str]()
    hands = PoisonedHands(poisons, bitten)
    judging_breaks(hands)
    owner = await asyncpg.connect(database)
    hung = await connect(database, "orchestrator_api", "lane hung session")
    api = await connect(database, "orchestrator_api", "lane api")
    # Poison and healthy in one order of looks, so that each stands in the way of others.
    ids = [*healthy, *poisons]
    random.Random(11).shuffle(ids)  # noqa: S311
    await insert(owner, ids)
    await fill_documents(api, [f"{HEALTHY}{n:05}" for n in range(full)])
    await insert(owner, [f"l{n:05}" for n in range(held)])
    # Else the database ends the session after a while, as it should.
    await hung.execute("SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0")
    async with hung.transaction():
        await hung.execute("SELECT 1 FROM clips WHERE id LIKE 'l%' FOR UPDATE")
        await signal_to(api, [clip_id for clip_id, poison in poisons.items() if poison.place == "judging"])
        async with monitor_on(database, hands) as task:
            among = await until_healthy_are_done(owner, task, limit * SLOWER_AT_MOST)
            await until_poison_has_ended(owner, task, hands, limit)
            epoch = await owner.fetchval("SELECT epoch FROM monitor_lease")
            ended, resting = await ends_of(owner, poisons)
            held_at = await owner.fetchval("SELECT count(*) FROM clips WHERE id LIKE 'l%' AND status = 'uploading'")
    assert held_at == held
    for clip_id, poison in poisons.items():
        assert bitten[clip_id] > 0, f"{clip_id} never met its poison {poison}"
        sometimes.saw(poison.exception, poison.place)
    for connection in (owner, hung, api):
        await connection.close()
    ratio = among / without
    figures.tell(
        healthy=len(healthy), poisoned=poisoned, locked=held, full_documents=full, seconds_alone=round(without, 1),
        seconds_among_poison=round(among, 1), times_slower=round(ratio, 2), ended_with_reason=ended,
        resting_and_explained=resting, terms=epoch,
    )  # fmt: skip
    assert epoch == 1, "poison ended a term"
    assert ratio <= SLOWER_AT_MOST


async def fill_documents(api: asyncpg.Connection, ids: Sequence[str]) -> None:
    """Documents as large as others may make them."""
    text = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=48_000))  # noqa: S311
    for clip_id in ids:
        await api.execute(
            "UPDATE clips SET processing_details = processing_details || jsonb_build_object('text', $2::text)"
            " WHERE id = $1",
            clip_id,
            text,
        )


async def signal_to(api: asyncpg.Connection, ids: Sequence[str]) -> None:
    for clip_id in ids:
        await api.execute(
            "UPDATE clips SET processing_details = processing_details || $2 WHERE id = $1",
            clip_id,
            json.dumps({"requested_status": "stream_ready"}),
        )


async def until_poison_has_ended(
    owner: asyncpg.Connection, task: asyncio.Task[None], hands: PoisonedHands, limit_seconds: float
) -> None:
    """Until each has ended or spent its time; the rest is judged by what its row says."""
    started = time.monotonic()
    while time.monotonic() - started < limit_seconds:
        assert not task.done()
        left = await owner.fetchval(
            "SELECT count(*) FROM clips WHERE id LIKE 'p%' AND status NOT IN ('error', 'complete')"
        )
        if left == 0:
            return
        await asyncio.sleep(0.2)


async def ends_of(owner: asyncpg.Connection, poisons: Poisons) -> tuple[int, int]:
    """How many poisoned clips have ended with a reason, and how many rest where their row says why."""
    ended = resting = 0
    for clip_id, poison in poisons.items():
        clip = await read_clip(owner, clip_id)
        assert clip is not None
        if clip.status == "error":
            assert clip.error_message, f"{clip_id} ended without a reason ({poison})"
            ended += 1
            continue
        assert clip.status != "complete", f"{clip_id} completed in spite of {poison}"
        now = await owner.fetchval("SELECT clock_timestamp()")
        sentence = explain(clip, now)
        assert "it met a problem" in sentence or "a signal waits" in sentence, f"{clip_id} ({poison}) rests: {sentence}"
        resting += 1
    return ended, resting
