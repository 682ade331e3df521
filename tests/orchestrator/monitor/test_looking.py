"""Looking: what is due, how it is grouped, and that one clip holds up no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from orchestrator.drivers.cloudflare_models import Video, VideoState
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.monitor import looking
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.failures import BLAMELESS, FIRST_WAIT, STOPS_THE_CLOCK
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.looking import (
    POISON_WAIT,
    REFUSED_WAIT,
    UNSEEN_WAIT,
    Group,
    Looker,
    group,
    look,
    read_due,
    to_move,
    unseen,
)
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.limits import TRIES
from orchestrator.pipelines.stream.effects import EnableMp4
from orchestrator.pipelines.stream.plan import DELIVERY, DOWNLOAD, NOTHING, VIDEO
from orchestrator.pipelines.terms import Effect, LookKind, Plan, Step
from orchestrator.storage.clips import Clip, read_clip

STREAM_PIPELINE = PIPELINES["stream"]
NOW = datetime.now(UTC)


def now() -> datetime:
    return NOW


class Eyes:
    """Hands that only look: each clip's video is at *state*, unless looking at it raises."""

    def __init__(self, state: VideoState = VideoState.QUEUED, broken: Mapping[str, Exception] | None = None) -> None:
        self.state = state
        self.broken = broken or {}
        self.looks: list[list[str]] = []

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        self.looks.append([clip.id for clip in clips])
        for clip in clips:
            if clip.id in self.broken:
                raise self.broken[clip.id]
        return {clip.id: Video(clip.cloudflare_uid or "", self.state, self.state.value, 100.0) for clip in clips}


async def all_here(connection: asyncpg.Connection, pipeline: str, effects: Sequence[Effect]) -> Sequence[Effect]:
    """Nobody takes heavy steps elsewhere."""
    return effects


async def due(pool: asyncpg.Pool, *but_not: str) -> list[Clip]:
    return await read_due(pool, ["stream"], but_not)


async def look_at(pool: asyncpg.Pool, term: Term, eyes: Any, *clips: Clip, kind: LookKind = VIDEO):
    return await look(Looker(pool, term, now, all_here), STREAM_PIPELINE, eyes, Group("stream", kind, clips))


# ---- what is due ---------------------------------------------------------------------------------------------------


async def test_only_what_is_due_is_read_the_longest_waiting_first(
    owner: asyncpg.Connection, pool: asyncpg.Pool, stand
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    for n, clip_id in enumerate("dbca"):
        await stand(clip_id, look_at=past + timedelta(seconds=n))
    await stand("later", look_at=datetime.now(UTC) + timedelta(hours=1))
    await stand("ended", "complete", look_at=None)
    await stand("tidied", "error", look_at=past - timedelta(seconds=1))
    await owner.execute(
        "ALTER TABLE clips DISABLE TRIGGER USER; UPDATE clips SET pipeline = 'cinema' WHERE id = 'c';"
        " ALTER TABLE clips ENABLE TRIGGER USER"
    )
    assert [clip.id for clip in await due(pool)] == ["tidied", "d", "b", "a"]
    assert [clip.id for clip in await due(pool, "d", "a")] == ["tidied", "b"]


async def test_a_round_reads_a_bounded_number(
    owner: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "DUE_BATCH", 3)
    await owner.execute("INSERT INTO clips (id) SELECT 'c' || n FROM generate_series(1, 5) AS n")
    first = await due(pool)
    assert len(first) == 3
    assert len(await due(pool, *(clip.id for clip in first))) == 2


async def test_finding_what_is_due_does_not_read_the_whole_table(owner: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    await owner.execute(
        "INSERT INTO clips (id) SELECT 'c' || n FROM generate_series(1, 2000) AS n;"
        " UPDATE clips SET status = 'error', look_at = NULL WHERE id <> 'c7'; ANALYZE clips"
    )
    plan = await pool.fetch("EXPLAIN " + looking._DUE, [], ["stream"], 500)
    text = "\n".join(row[0] for row in plan)
    assert "clips_due" in text
    assert "Seq Scan" not in text


def test_clips_are_grouped_by_what_has_to_be_seen(a_clip, monkeypatch: pytest.MonkeyPatch) -> None:
    due_at = {"look_at": a_clip().status_since + timedelta(seconds=30)}
    private = {"require_signed_urls": True}
    clips = [
        *(a_clip(id=f"v{n}", status="processing", **due_at) for n in range(VIDEO.batch * 2 + 1)),
        *(a_clip(id=f"a{n}", status="waitformp4", **due_at) for n in range(3)),
        *(a_clip(id=f"d{n}", status="waitformp4", processing_details=private, **due_at) for n in range(2)),
        a_clip(id="n", status="r2_uploading", **due_at),
        a_clip(id="f", status="processing", tries=1, **due_at),
        a_clip(id="just come", status="processing"),
    ]
    groups = group(PIPELINES, clips)
    assert sorted((one.kind.name, len(one.clips)) for one in groups) == [
        ("delivery", 3),
        ("download", 2),
        ("nothing", 2),
        ("video", 1),
        ("video", 1),
        ("video", 50),
        ("video", 50),
    ]
    assert {clip.id for one in groups for clip in one.clips} == {clip.id for clip in clips}
    assert {one.kind for one in groups} == {VIDEO, DELIVERY, DOWNLOAD, NOTHING}


# ---- one look ------------------------------------------------------------------------------------------------------


async def test_what_is_seen_moves_the_clips_in_one_look(pool: asyncpg.Pool, term: Term, stand, history) -> None:
    for clip_id in "abc":
        await stand(clip_id)
    eyes = Eyes()
    moves, effects = await look_at(pool, term, eyes, *await due(pool))
    assert eyes.looks == [["a", "b", "c"]]
    assert ({move.clip_id for move in moves}, effects) == ({"a", "b", "c"}, [])
    (line,) = await history("a")
    assert (line["kind"], line["from_status"], line["to_status"], line["source"]) == (
        "moved",
        "uploading",
        "queued",
        "monitor",
    )
    assert line["details"]["reason"] == "Cloudflare says queued"
    assert line["progress"] == 30.0


async def test_effects_are_started_for_what_was_written_alone(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    for clip_id in "abc":
        await stand(clip_id, "stream_ready")
    clips = await due(pool)
    await owner.execute("UPDATE clips SET status = 'error' WHERE id = 'b'")
    transaction = owner.transaction()
    await transaction.start()
    await owner.fetch("SELECT 1 FROM clips WHERE id = 'c' FOR UPDATE")
    moves, effects = await look_at(pool, term, Eyes(VideoState.READY), *clips)
    await transaction.rollback()
    assert [move.clip_id for move in moves] == ["a"]
    assert effects == [EnableMp4("a", 1, "ua")]


async def test_nothing_is_asked_where_nothing_has_to_be_seen(pool: asyncpg.Pool, term: Term, stand) -> None:
    await stand("c", "error")
    eyes = Eyes()
    moves, effects = await look_at(pool, term, eyes, *await due(pool), kind=NOTHING)
    assert (eyes.looks, effects) == ([], [])
    assert moves[0].look_at is None


async def test_a_term_that_is_over_moves_nothing(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c")
    before = await read_clip(owner, "c")
    with pytest.raises(LeadershipLost):
        await look_at(pool, Term(term.holder, term.epoch + 1), Eyes(), *await due(pool))
    assert await read_clip(owner, "c") == before


@pytest.mark.parametrize(
    ("problem", "at_least", "at_most"),
    [
        pytest.param(TransientError("provider_busy", "busy"), UNSEEN_WAIT, UNSEEN_WAIT * 1.5, id="passing"),
        pytest.param(
            TransientError("provider_rate_limit", "slow down", 300),
            timedelta(seconds=300),
            timedelta(seconds=450),
            id="passing-with-a-time",
        ),
        pytest.param(
            TransientError("odd", "come back", 1e18), timedelta(hours=1), timedelta(hours=1.5), id="an-absurd-time"
        ),
        pytest.param(TransientError("odd", "come back", -5), UNSEEN_WAIT, UNSEEN_WAIT * 1.5, id="a-time-in-the-past"),
        pytest.param(TransientError("odd", "?", float("nan")), UNSEEN_WAIT, UNSEEN_WAIT * 1.5, id="no-time-at-all"),
        pytest.param(PermanentError("refused", "no"), REFUSED_WAIT, REFUSED_WAIT * 1.5, id="lasting"),
    ],
)
async def test_what_cannot_be_seen_stands_and_is_looked_at_later(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history, problem, at_least, at_most
) -> None:
    await stand("c", "processing", tries=3)
    moves, effects = await look_at(pool, term, Eyes(broken={"c": problem}), *await due(pool))
    clip = await read_clip(owner, "c")
    assert clip is not None
    assert clip.look_at is not None
    assert (clip.status, clip.tries, effects, len(moves)) == ("processing", 3, [], 1)
    assert NOW + at_least <= clip.look_at <= NOW + at_most
    assert clip.processing_details["last_problem"]["code"] == problem.code
    assert await history("c") == []


def test_unseen_clips_do_not_come_back_in_step(a_clip) -> None:
    waits = {unseen(a_clip(), TransientError("busy", "busy"), NOW, jitter / 10).look_at for jitter in range(11)}
    assert len(waits) == 11
    assert (min(waits), max(waits)) == (NOW + UNSEEN_WAIT, NOW + UNSEEN_WAIT * 1.5)


# Every kind of exception that may come out of hands and plans, those that a lost database raises among them.
POISONS: list[Any] = [
    RecursionError("deep"),
    MemoryError(),
    KeyError("state"),
    OSError("no file"),
    TimeoutError(),
    asyncpg.InternalClientError("got result for unknown protocol state"),
    asyncpg.PostgresError("whatever"),
    ConnectionResetError(),
    asyncio.CancelledError(),  # one that a library let escape
]


@pytest.mark.parametrize("poison", POISONS, ids=lambda poison: type(poison).__name__)
async def test_a_clip_that_breaks_a_look_is_found_and_holds_up_no_other(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history, poison: Exception
) -> None:
    for clip_id in "abcdefgh":
        await stand(clip_id)
    eyes = Eyes(broken={"c": poison})
    moves, _ = await look_at(pool, term, eyes, *await due(pool))
    assert {move.clip_id for move in moves if move.changes_status} == set("abdefgh")
    assert len(eyes.looks) <= 7, "halving finds it"
    await a_failed_look(owner, history, "c")


async def a_failed_look(owner: asyncpg.Connection, history, clip_id: str) -> None:
    clip = await read_clip(owner, clip_id)
    assert clip is not None
    assert (clip.status, clip.tries, clip.look_at) == ("uploading", 1, NOW + FIRST_WAIT)
    assert clip.processing_details["last_problem"]["code"] == "internal"
    assert [(line["kind"], line["source"]) for line in await history(clip_id)] == [("failed-try", "look")]


@pytest.mark.parametrize("poison", POISONS[:-1], ids=lambda poison: type(poison).__name__)
@pytest.mark.parametrize("where", ["plan", "look_kind", "resume_status", "a-plan-that-is-none"])
async def test_a_clip_that_breaks_its_pipeline_holds_up_no_other(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history, poison: Exception, where: str
) -> None:
    for clip_id in "abc":
        await stand(clip_id, status_since=now() - timedelta(minutes=1))
    if where == "resume_status":
        retry_at = json.dumps({"retry_at": NOW.isoformat(), "error_code": "source_cut"})
        await owner.execute("UPDATE clips SET status = 'error', processing_details = $1 WHERE id = 'b'", retry_at)
    of_pipeline = {} if where == "a-plan-that-is-none" else {where: getattr(STREAM_PIPELINE, where)}

    def breaking(real: Any) -> Any:
        def call(clip: Clip, *more: Any) -> Any:
            if clip.id == "b":
                raise poison
            return real(clip, *more)

        return call

    def none_for_b(clip: Clip, seen: Any, at: datetime) -> Any:
        return None if clip.id == "b" else STREAM_PIPELINE.plan(clip, seen, at)

    changes = {name: breaking(real) for name, real in of_pipeline.items()} or {"plan": none_for_b}
    poisoned = replace(STREAM_PIPELINE, **changes)
    moved: set[str] = set()
    for group_of in group({"stream": poisoned}, await due(pool)):
        moves, _ = await look(Looker(pool, term, now, all_here), poisoned, Eyes(), group_of)  # type: ignore[arg-type]
        moved |= {move.clip_id for move in moves if move.changes_status}
    assert moved == {"a", "c"}
    if where != "resume_status":
        await a_failed_look(owner, history, "b")


async def test_a_look_that_always_breaks_ends_the_clip_with_the_reason(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", tries=TRIES - 1)
    await look_at(pool, term, Eyes(broken={"c": KeyError("a bug of ours")}), *await due(pool))
    clip = await read_clip(owner, "c")
    assert clip is not None
    assert (clip.status, clip.processing_details["error_code"]) == ("error", "internal")
    assert clip.error_message == "A look at the clip broke; the log says where"


async def test_a_refusal_that_concerns_one_clip_is_of_that_clip_alone(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    class OneRefused(Eyes):
        async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
            return {**await super().observe(kind, clips), "b": PermanentError("provider_refused", "not this one")}

    for clip_id in "abc":
        await stand(clip_id)
    moves, _ = await look_at(pool, term, OneRefused(), *await due(pool))
    assert {move.clip_id for move in moves if move.changes_status} == {"a", "c"}
    clip = await read_clip(owner, "b")
    assert clip is not None
    assert clip.processing_details["last_problem"]["code"] == "provider_refused"


async def test_a_refusal_of_many_may_concern_one_of_them(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    for clip_id in "abcdefgh":
        await stand(clip_id)
    eyes = Eyes(broken={"c": PermanentError("provider_refused", "one of them is odd")})
    moves, _ = await look_at(pool, term, eyes, *await due(pool))
    assert {move.clip_id for move in moves if move.changes_status} == set("abdefgh")


@pytest.mark.parametrize("code", sorted(STOPS_THE_CLOCK | BLAMELESS))
async def test_a_provider_that_is_away_is_asked_once_for_all(pool: asyncpg.Pool, term: Term, stand, code: str) -> None:
    for clip_id in "abcd":
        await stand(clip_id)
    eyes = Eyes(broken={"c": TransientError(code, "away")})
    await look_at(pool, term, eyes, *await due(pool))
    assert eyes.looks == [["a", "b", "c", "d"]]


async def test_a_look_that_hangs_is_ended_and_no_clips_fault(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_SECONDS", 0.05)

    class Hanging(Eyes):
        async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

    await stand("c")
    await look_at(pool, term, Hanging(), *await due(pool))
    clip = await read_clip(owner, "c")
    assert clip is not None
    assert (clip.tries, clip.processing_details["last_problem"]["code"]) == (0, "provider_timeout")


async def test_a_look_that_is_stopped_stops(owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand) -> None:
    looking_on = asyncio.Event()

    class Hanging(Eyes):
        async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
            looking_on.set()
            await asyncio.Event().wait()
            raise AssertionError

    await stand("c")
    task = asyncio.create_task(look_at(pool, term, Hanging(), *await due(pool)))
    await asyncio.wait_for(looking_on.wait(), 10)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    clip = await read_clip(owner, "c")
    assert clip is not None
    assert clip.tries == 0


async def test_a_status_of_a_newer_version_is_left_to_it(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, a_clip
) -> None:
    await stand("c")
    clip = replace((await due(pool))[0], status="polished")
    outcome = looking._outcome(STREAM_PIPELINE, clip, None, looking.Sight(True), NOW)
    assert outcome.move.after == outcome.move.before
    assert (outcome.move.tries, outcome.move.look_at, outcome.effects) == (None, NOW + POISON_WAIT, ())


async def test_a_row_that_cannot_be_read_is_told_and_hides_no_other(
    pool: asyncpg.Pool, stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clip_id in "abc":
        await stand(clip_id)
    real = looking.clip_from_row

    def reading(row: Any) -> Clip:
        if row["id"] == "b":
            raise RecursionError
        return real(row)

    monkeypatch.setattr(looking, "clip_from_row", reading)
    unreadable: list[str] = []
    assert [clip.id for clip in await read_due(pool, ["stream"], [], unreadable.append)] == ["a", "c"]
    assert unreadable == ["b"]


async def test_a_lost_database_ends_the_look(pool: asyncpg.Pool, term: Term, stand) -> None:
    await stand("c")
    clips = await due(pool)
    await pool.close()
    with pytest.raises(asyncpg.InterfaceError):
        await look_at(pool, term, Eyes(), *clips)


# ---- a plan as a move ----------------------------------------------------------------------------------------------


def test_a_plans_step_is_judged_by_the_same_law(a_clip) -> None:
    clip = a_clip(status="processing", progress=57.0, tries=4)
    allowed = to_move(STREAM_PIPELINE, clip, Plan(NOW, Step("stream_ready", "seen", {"duration": 1}, {"a": 1})), NOW)
    assert (allowed.after.status, allowed.after.progress, allowed.tries) == ("stream_ready", 60.0, 0)
    assert (allowed.facts, allowed.details) == ({"duration": 1}, {"a": 1})
    refused = to_move(STREAM_PIPELINE, clip, Plan(NOW, Step("queued", "seen")), NOW)
    assert refused.after == refused.before
    assert [(entry.kind, entry.details["rule"]) for entry in refused.entries] == [("refused", "backward")]


def test_a_plan_without_a_step_moves_progress_within_its_span_alone(a_clip) -> None:
    clip = a_clip(status="processing", progress=55.0, tries=4)
    for percent, shown in ((None, 55.0), (10.0, 55.0), (80.0, 57.99), (100.0, 59.99)):
        move = to_move(STREAM_PIPELINE, clip, Plan(NOW, step_percent=percent), NOW)
        assert move.after.progress == pytest.approx(shown)
        assert (move.after.status, move.tries, move.entries) == ("processing", None, ())


def test_a_step_takes_its_own_percentage_along(a_clip) -> None:
    clip = a_clip(status="waitformp4")
    move = to_move(STREAM_PIPELINE, clip, Plan(NOW, Step("mp4_processing", "seen"), step_percent=50.0), NOW)
    assert move.after.progress == pytest.approx(80.0, abs=0.01)


def test_an_error_keeps_its_progress_and_tells_its_time(a_clip) -> None:
    clip = a_clip(status="r2_uploading", progress=97.5)
    late = Plan(NOW + timedelta(minutes=1), Step("error", "late", details={"error_code": "deadline_passed"}))
    move = to_move(STREAM_PIPELINE, clip, late, NOW)
    assert (move.after.status, move.after.progress) == ("error", 97.5)
    assert move.details["error_time"] == NOW.isoformat()
    assert move.entries[0].details == {
        "reason": "late",
        "error_code": "deadline_passed",
        "error_time": NOW.isoformat(),
    }
