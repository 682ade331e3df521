"""The whole loop on a real database, with scripted hands in place of the provider."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from house.relay import BLACK_HOLE, Relay, Upstream
from structlog.testing import capture_logs

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.fencing import changing
from orchestrator.monitor import effects, leadership
from orchestrator.monitor import loop as loop_module
from orchestrator.monitor.judging import drain
from orchestrator.monitor.looking import read_due
from orchestrator.monitor.loop import Monitor, MonitorParts, _wait
from orchestrator.pipelines.limits import TRIES
from orchestrator.pipelines.stream.effects import AbandonTransfer, EnableMp4, TransferToBucket
from orchestrator.pipelines.stream.plan import DELIVERY, DOWNLOAD, StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Effect, LookKind, Reports, Step
from orchestrator.storage.clips import Clip, read_clip, read_events
from orchestrator.storage.pool import connect, create_pool
from signals import signal_retry, signal_status_update, wake

# Far above what any of these takes; only a hang meets it.
LIMIT_SECONDS = 20


# What has only just come to its status needs no look.
HAVE_STOOD = "UPDATE clips SET status_since = status_since - interval '1 min'"


class ScriptedHands:
    """A provider that is always done at once, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.batches: list[int] = []
        self.looks: Counter[str] = Counter()
        self.video_state = VideoState.READY
        self.transfer_problems: list[Exception] = []
        self.transfer_gate: asyncio.Event | None = None

    def queue_of(self, effect: Effect) -> str | None:
        return None

    def capacity(self, effect: Effect) -> int:
        return 50

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        self.batches.append(len(clips))
        self.looks.update(clip.id for clip in clips)
        if kind in (DOWNLOAD, DELIVERY):
            return {
                clip.id: Download(DownloadState.READY, 100.0, f"https://d/{clip.cloudflare_uid}.mp4") for clip in clips
            }
        return {
            clip.id: Video(
                clip.cloudflare_uid or "", self.video_state, self.video_state.value, 100.0, hls_url="https://h/x.m3u8"
            )
            for clip in clips
        }

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        self.asked[type(effect).__name__] += 1
        if isinstance(effect, AbandonTransfer):
            return Done(details={"abandoned_in_attempt": effect.attempt})
        if isinstance(effect, EnableMp4):
            return Done(step=Step("waitformp4", "taken"))
        assert isinstance(effect, TransferToBucket)
        if self.transfer_gate is not None:
            reports.progress("mp4downloading", 50.0)
            await self.transfer_gate.wait()
        if self.transfer_problems:
            raise self.transfer_problems.pop(0)
        await reports.step(Step("r2_uploading", "first part"))
        return Done(step=Step("complete", "verified", facts={"r2_url": "https://b/k.mp4", "file_size": 7}))

    async def tidy(self) -> Mapping[str, int]:
        self.asked["tidy"] += 1
        return {"swept": 1}


class SlowHands(ScriptedHands):
    """A provider that answers no look before the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.is_looking = asyncio.Event()
        self.most_at_once = self._at_once = 0

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.is_looking.set()
        await self.gate.wait()
        self._at_once -= 1
        return await super().observe(kind, clips)


@asynccontextmanager
async def monitor_on(
    database: str,
    hands: ScriptedHands,
    tries: int = TRIES,
    listening_at: str | None = None,
    prune: Callable[[], Awaitable[Mapping[str, int]]] | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    stream = stream_pipeline(StreamPolicy(timedelta(milliseconds=50), timedelta(seconds=1)))
    limits = {status: replace(limit, tries=tries) for status, limit in stream.limits.items()}
    pool = await create_pool(database, "orchestrator_monitor", "test monitor")
    parts = MonitorParts(
        pool=pool,
        connect=lambda: connect(listening_at or database, "orchestrator_monitor", "test listener"),
        pipelines={"stream": replace(stream, limits=limits)},
        hands={"stream": hands},
        prune=prune,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(Monitor(parts).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT_SECONDS)
        await pool.close()


async def insert(api: asyncpg.Connection, clip_id: str) -> None:
    await api.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", clip_id, f"uid{clip_id}")


async def until(api: asyncpg.Connection, clip_id: str, holds: Callable[[Clip], bool]) -> Clip:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            clip = await read_clip(api, clip_id)
            if clip is not None and holds(clip):
                return clip
            await asyncio.sleep(0.02)


async def test_a_clip_nobody_signals_for_goes_all_the_way(database: str, api: asyncpg.Connection) -> None:
    hands = ScriptedHands()
    await insert(api, "a")
    async with monitor_on(database, hands):
        clip = await until(api, "a", lambda clip: clip.status == "complete" and clip.look_at is None)
    assert hands.asked == {"EnableMp4": 1, "TransferToBucket": 1}
    assert (clip.progress, clip.r2_url, clip.file_size) == (100.0, "https://b/k.mp4", 7)
    moves = [event for event in await read_events(api, "a") if event.kind == "moved"]
    assert [move.to_status for move in moves][-1] == "complete"
    assert [move.from_status for move in moves] == ["uploading", *[move.to_status for move in moves[:-1]]]
    assert all(move.details.get("reason") and move.source for move in moves)
    progress = [move.progress for move in moves]
    assert progress == sorted(progress)


async def test_an_outside_claim_is_looked_at_before_it_is_believed(database: str, api: asyncpg.Connection) -> None:
    hands = ScriptedHands()
    hands.video_state = VideoState.QUEUED
    await insert(api, "a")
    async with monitor_on(database, hands):
        await until(api, "a", lambda clip: clip.status == "queued")
        await signal_status_update(api, "a", "stream_ready", {}, "webhook")
        await wake(api)
        clip = await until(api, "a", lambda clip: clip.pending == 0)
        assert clip.status == "queued"
        kinds = [event.kind for event in await read_events(api, "a")]
        assert "noted" in kinds
        hands.video_state = VideoState.READY
        await until(api, "a", lambda clip: clip.status == "complete")


async def test_a_failing_transfer_is_tried_again_and_counted(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.monitor.failures.FIRST_WAIT", timedelta(milliseconds=20))
    hands = ScriptedHands()
    hands.transfer_problems = [TransientError("part_failed", "the line was cut"), ValueError("a bug of ours")]
    await insert(api, "a")
    async with monitor_on(database, hands):
        await until(api, "a", lambda clip: clip.status == "complete")
    assert hands.asked["TransferToBucket"] == 3
    tries = [event for event in await read_events(api, "a") if event.kind == "failed-try"]
    assert [event.details["code"] for event in tries] == ["part_failed", "internal"]


async def test_what_always_fails_ends_in_error_and_a_retry_opens_the_next_attempt(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.monitor.failures.FIRST_WAIT", timedelta(milliseconds=5))
    hands = ScriptedHands()
    hands.transfer_problems = [TransientError("part_failed", "the line was cut") for _ in range(3)]
    await insert(api, "a")
    async with monitor_on(database, hands, tries=3):
        failed = await until(api, "a", lambda clip: clip.status == "error")
        assert "retry_at" in failed.processing_details
        assert failed.error_message == "the line was cut"
        assert 85 <= failed.progress < 100
        resume = stream_pipeline(StreamPolicy()).resume_status(failed)
        assert resume == "mp4downloading"
        await signal_retry(api, "a", resume, "test")
        clip = await until(api, "a", lambda clip: clip.status == "complete")
    assert (clip.attempt, clip.error_message) == (2, None)
    assert hands.asked["EnableMp4"] == 1


async def test_progress_moves_while_a_transfer_runs_and_error_stops_it(database: str, api: asyncpg.Connection) -> None:
    hands = ScriptedHands()
    hands.transfer_gate = asyncio.Event()
    await insert(api, "a")
    async with monitor_on(database, hands):
        clip = await until(api, "a", lambda clip: clip.progress > 85)
        assert clip.status == "mp4downloading"
        assert clip.progress == pytest.approx(90, abs=0.1)
        await signal_status_update(api, "a", "error", {"error_message": "stopped by hand"}, "person", insists=True)
        clip = await until(api, "a", lambda clip: clip.status == "error")
        assert clip.error_message == "stopped by hand"
        assert clip.progress == pytest.approx(90, abs=0.1)
        hands.transfer_gate.set()
        await asyncio.wait_for(_settled(api), LIMIT_SECONDS)
    assert (await until(api, "a", lambda _: True)).status == "error"


async def _settled(api: asyncpg.Connection) -> None:
    while await api.fetchval("SELECT count(*) FROM clip_signals"):
        await asyncio.sleep(0.02)


async def test_many_clips_are_seen_by_few_looks(database: str, api: asyncpg.Connection) -> None:
    await api.execute(
        "INSERT INTO clips (id, cloudflare_uid) SELECT 'c' || n, 'u' || n FROM generate_series(1, 200) AS n"
    )
    hands = ScriptedHands()
    hands.video_state = VideoState.QUEUED
    async with monitor_on(database, hands), asyncio.timeout(LIMIT_SECONDS):
        while await api.fetchval("SELECT count(*) FROM clips WHERE status = 'queued'") < 200:
            await asyncio.sleep(0.02)
    assert max(hands.batches) == 50


async def test_a_standby_takes_over_when_the_leader_stops(database: str, api: asyncpg.Connection) -> None:
    await insert(api, "a")
    hands = ScriptedHands()
    hands.video_state = VideoState.QUEUED
    async with monitor_on(database, hands):
        await until(api, "a", lambda clip: clip.status == "queued")
        first = await api.fetchval("SELECT epoch FROM monitor_lease")
        async with monitor_on(database, hands) as standby:
            assert not standby.done()
            assert await api.fetchval("SELECT epoch FROM monitor_lease") == first
    async with monitor_on(database, ScriptedHands()):
        await until(api, "a", lambda clip: clip.status == "complete")
    assert await api.fetchval("SELECT epoch FROM monitor_lease") > first


async def test_who_stops_gives_the_lease_up_at_once(database: str, api: asyncpg.Connection) -> None:
    await insert(api, "a")
    async with monitor_on(database, ScriptedHands()):
        await until(api, "a", lambda clip: clip.status == "complete")
    assert await api.fetchval("SELECT expires_at < clock_timestamp() FROM monitor_lease")


class UnansweredHands(ScriptedHands):
    """Whose requests are never answered."""

    def __init__(self) -> None:
        super().__init__()
        self.has_asked = asyncio.Event()

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        with changing():
            self.has_asked.set()
            await asyncio.Event().wait()
        return Done()


async def test_who_breaks_a_request_off_does_not_give_the_lease_up(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may arrive yet: who leads next looks whether it was done, and would ask for it a second time."""
    monkeypatch.setattr(effects, "ANSWER_SECONDS", 0.05)
    await insert(api, "a")
    hands = UnansweredHands()
    async with monitor_on(database, hands), asyncio.timeout(LIMIT_SECONDS):
        await hands.has_asked.wait()
    assert await api.fetchval("SELECT expires_at > clock_timestamp() FROM monitor_lease")


async def test_who_has_broken_a_request_off_leads_again_only_when_the_lease_has_run_out(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = UnansweredHands()
    faults = [ConnectionResetError]

    async def drain_or_lose_the_database(*arguments: Any) -> list[Any]:
        if hands.has_asked.is_set() and faults:
            raise faults.pop()
        return await drain(*arguments)

    monkeypatch.setattr(loop_module, "drain", drain_or_lose_the_database)
    monkeypatch.setattr(effects, "ANSWER_SECONDS", 0.05)
    # Far longer than who has only lost its database waits before it leads again.
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 5.0)
    await insert(api, "a")
    lease = "SELECT epoch, expires_at, clock_timestamp() AS now FROM monitor_lease"
    async with monitor_on(database, hands), asyncio.timeout(LIMIT_SECONDS):
        await hands.has_asked.wait()
        first = last = seen = await api.fetchrow(lease)
        while seen["epoch"] == first["epoch"]:
            last, seen = seen, await api.fetchrow(lease)
            await asyncio.sleep(0.01)
    # Its own clock of the lease began with the question, the database's with the answer.
    assert last["expires_at"] - seen["now"] < timedelta(seconds=0.5)


async def test_so_many_looks_at_once_and_no_more(
    database: str, api: asyncpg.Connection, stand: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "MAX_LOOKS", 3)
    private = json.dumps({"require_signed_urls": True})
    numbers = range(3 * DOWNLOAD.batch + 1)  # one more than three looks hold
    clips = [await stand(f"c{number}", "mp4_processing", processing_details=private) for number in numbers]
    hands = SlowHands()
    async with monitor_on(database, hands), asyncio.timeout(LIMIT_SECONDS):
        await hands.is_looking.wait()
        for clip_id in clips:
            await until(api, clip_id, lambda clip: clip.status == "mp4_processing")
        hands.gate.set()
        for clip_id in clips:
            await until(api, clip_id, lambda clip: clip.status == "complete")
    assert hands.most_at_once == 3


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each reading of what is due has found."""
    found: list[int] = []

    async def counted(*arguments: Any) -> list[Clip]:
        due = await read_due(*arguments)
        found.append(len(due))
        return due

    monkeypatch.setattr(loop_module, "read_due", counted)
    return found


@pytest.fixture
async def private(stand: Callable[..., Awaitable[str]]) -> int:
    """So many clips in the database as take three looks, each by calls of their own."""
    clips = 3 * DOWNLOAD.batch
    due_at = datetime.now(UTC) - timedelta(minutes=1)  # a clip that has only just come is not looked at yet
    for number in range(clips):
        details = json.dumps({"require_signed_urls": True})
        await stand(f"c{number}", "mp4_processing", processing_details=details, look_at=due_at)
    return clips


async def test_while_no_place_is_free_nothing_is_read(
    database: str, private: int, readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "MAX_LOOKS", 1)
    monkeypatch.setattr(loop_module, "SWEEP_SECONDS", 0.2)
    hands = SlowHands()
    async with monitor_on(database, hands), asyncio.timeout(LIMIT_SECONDS):
        await hands.is_looking.wait()
        await asyncio.sleep(5 * 0.2)
        assert readings == [private]


async def test_what_was_read_is_begun_as_places_come_free(
    database: str, private: int, readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "MAX_LOOKS", 1)
    monkeypatch.setattr(loop_module, "SWEEP_SECONDS", float(LIMIT_SECONDS))
    read_before: list[int] = []

    class Hands(ScriptedHands):
        async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
            read_before.append(len(readings))
            return await super().observe(kind, clips)

    async with monitor_on(database, Hands()), asyncio.timeout(LIMIT_SECONDS):
        while len(read_before) < 3:
            await asyncio.sleep(0.01)
    assert read_before[:3] == [1, 1, 1]


async def test_the_loop_survives_losing_every_connection(database: str, api: asyncpg.Connection) -> None:
    hands = ScriptedHands()
    hands.video_state = VideoState.QUEUED
    await insert(api, "a")
    async with monitor_on(database, hands):
        await until(api, "a", lambda clip: clip.status == "queued")
        admin = await asyncpg.connect(database)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name IN ('test monitor', 'test listener')"
        )
        await admin.close()
        hands.video_state = VideoState.READY
        await until(api, "a", lambda clip: clip.status == "complete")


async def test_a_term_ends_though_nobody_answers_on_the_listening_connection(
    database: str, owner: asyncpg.Connection
) -> None:
    """What goes wrong as that is closed may not take the place of the cancellation: nobody would lead ever after."""
    host = parse_qs(urlsplit(database).query).get("host")
    if host is None:
        pytest.skip("the tests' own server is needed, behind its socket")
    async with Relay(Upstream(f"{host[0]}/.s.PGSQL.5432")) as relay:
        heard_at = f"postgresql://postgres@127.0.0.1:{relay.port}{urlsplit(database).path}"
        async with monitor_on(database, ScriptedHands(), listening_at=heard_at):
            async with asyncio.timeout(LIMIT_SECONDS):
                while not await owner.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
                ):
                    await asyncio.sleep(0.02)
            relay.treat(BLACK_HOLE)
            lost = await owner.fetchval("UPDATE monitor_lease SET epoch = epoch + 1 RETURNING epoch")
            async with asyncio.timeout(LIMIT_SECONDS):
                while await owner.fetchval("SELECT epoch FROM monitor_lease") == lost:
                    await asyncio.sleep(0.02)


async def test_the_leader_tidies_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.monitor.loop.TIDY_SECONDS", 0.01)
    hands = ScriptedHands()
    async with monitor_on(database, hands), asyncio.timeout(LIMIT_SECONDS):
        while hands.asked["tidy"] < 2:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("problem", [None, ConnectionResetError(), KeyError("x")])
async def test_the_leader_prunes_history_by_the_way_and_outlives_what_goes_wrong(
    database: str, monkeypatch: pytest.MonkeyPatch, problem: Exception | None
) -> None:
    monkeypatch.setattr("orchestrator.monitor.loop.TIDY_SECONDS", 0.01)
    pruned = 0

    async def prune() -> Mapping[str, int]:
        nonlocal pruned
        pruned += 1
        if problem is not None:
            raise problem
        return {"lines": 7, "transfers": 0}

    with capture_logs() as logs:
        async with monitor_on(database, ScriptedHands(), prune=prune), asyncio.timeout(LIMIT_SECONDS):
            while pruned < 3:
                await asyncio.sleep(0.01)
    told = next(entry for entry in logs if "history" in entry["event"])
    level = "info" if problem is None else "warning" if isinstance(problem, OSError) else "error"
    assert (told["log_level"], told.get("lines")) == (level, None if problem else 7)


async def test_a_session_that_holds_a_clip_holds_up_no_other(
    database: str, api: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    for clip_id in ("a", "b"):
        await insert(api, clip_id)
    await owner.execute(HAVE_STOOD)
    hung = await connect(database, "orchestrator_api", "hung")
    transaction = hung.transaction()
    await transaction.start()
    await hung.execute("SELECT 1 FROM clips WHERE id = 'a' FOR UPDATE")
    try:
        hands = ScriptedHands()
        async with monitor_on(database, hands):
            await until(api, "b", lambda clip: clip.status == "complete")
            looks_so_far = len(hands.batches)
            async with asyncio.timeout(LIMIT_SECONDS):
                while len(hands.batches) < looks_so_far + 2:
                    await asyncio.sleep(0.02)
            # Each look at the held clip is a call to the provider: a handful in these seconds, not thousands.
            assert len(hands.batches) < 20
            assert (await until(api, "a", lambda _: True)).status == "uploading"
            assert await api.fetchval("SELECT epoch FROM monitor_lease") == 1
            await transaction.rollback()
            await until(api, "a", lambda clip: clip.status == "complete")
    finally:
        await hung.close()


async def test_a_clip_whose_look_cannot_be_written_is_left_alone_for_its_pause(
    database: str, api: asyncpg.Connection, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "FIRST_PAUSE_SECONDS", 1000.0)
    monkeypatch.setattr(loop_module, "LONGEST_PAUSE_SECONDS", 1000.0)
    for clip_id in ("a", "b"):
        await insert(api, clip_id)
    await owner.execute(HAVE_STOOD)
    hung = await connect(database, "orchestrator_api", "hung")
    await hung.execute("BEGIN; SELECT 1 FROM clips WHERE id = 'a' FOR UPDATE")
    try:
        hands = ScriptedHands()
        async with monitor_on(database, hands):
            await until(api, "b", lambda clip: clip.status == "complete")
        assert hands.looks["b"] >= 1
        assert hands.looks["a"] == 1
    finally:
        await hung.close()


async def test_a_flood_of_claims_costs_no_flood_of_looks(database: str, api: asyncpg.Connection) -> None:
    hands = ScriptedHands()
    hands.video_state = VideoState.QUEUED
    await insert(api, "a")
    async with monitor_on(database, hands):
        await until(api, "a", lambda clip: clip.status == "queued" and "last_checked" in clip.processing_details)
        await api.execute("SELECT 1")
        before = len(hands.batches)
        started = asyncio.get_running_loop().time()
        for _ in range(50):
            await signal_status_update(api, "a", "stream_ready", {}, "webhook")
            await wake(api)
            await until(api, "a", lambda clip: clip.pending == 0)
        elapsed = asyncio.get_running_loop().time() - started
        # Its own rhythm of 50 ms in this test, and one look each pause: nowhere near one a claim.
        assert len(hands.batches) - before <= 2 + elapsed / 0.05


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_that_meets_the_event_is_kept(steps: int) -> None:
    """A task that lost it would run on for ever, and the process would never stop."""
    event = asyncio.Event()

    async def loop() -> None:
        while True:
            await _wait(event, LIMIT_SECONDS)
            event.clear()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)
    assert done
    assert task.cancelled()
