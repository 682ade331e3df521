"""Judging: the pure verdict for one clip, and the inbox drained on a real database."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from house.standing import standing_of
from structlog.testing import capture_logs

from orchestrator.monitor import judging
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.judging import Inbox, Signal, drain
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Move
from orchestrator.monitor.pauses import Pauses
from orchestrator.pipelines.limits import TRIES, Limit
from orchestrator.storage.clips import Clip, read_clip
from signals import read_pending, signal_retry, signal_status_update
from statusutils import STREAM, Position, StatusTable

NOW = datetime.now(UTC)


def now() -> datetime:
    return NOW


def asked(status: str, number: int = 1, attempt: int = 1, **fields: Any) -> Signal:
    known = {"source": "test", "details": {}, "observed": False, "insists": False} | fields
    return Signal(number, attempt, status, **known)


def settle(table: StatusTable, clip: Clip, signals: list[Signal], at: datetime) -> Move:
    return judging.settle(table, standing_of(clip), signals, at)


# ---- one clip ------------------------------------------------------------------------------------------------------


def test_a_claim_moves_nothing_and_has_the_clip_looked_at_now(a_clip) -> None:
    clip = a_clip(look_at=NOW + timedelta(hours=1))
    move = settle(STREAM, clip, [asked("stream_ready")], NOW)
    assert move.after == move.before
    assert move.look_at == NOW
    assert [(entry.kind, entry.details["rule"]) for entry in move.entries] == [("noted", "needs-evidence")]


def test_a_flood_of_claims_does_not_make_a_flood_of_looks(a_clip) -> None:
    just_now = NOW - timedelta(milliseconds=100)
    clip = a_clip(look_at=NOW + timedelta(hours=1), processing_details={"last_checked": just_now.isoformat()})
    assert settle(STREAM, clip, [asked("stream_ready")], NOW).look_at == just_now + judging.LOOK_PAUSE
    for spoiled in ("soon", None, {}, 7, "2026-01-01T00:00:00", "9999-12-31T23:59:59+00:00"):
        clip = a_clip(processing_details={"last_checked": spoiled})
        look_at = settle(STREAM, clip, [asked("stream_ready")], NOW).look_at
        assert look_at is not None
        assert NOW <= look_at <= NOW + judging.LOOK_PAUSE


def test_a_refusal_leaves_everything_but_the_history_as_it_was(a_clip) -> None:
    clip = a_clip(status="processing", tries=3, look_at=NOW + timedelta(minutes=1))
    move = settle(STREAM, clip, [asked("queued")], NOW)
    assert (move.after, move.look_at, move.tries, move.facts) == (move.before, clip.look_at, 3, {})
    assert move.details["requested_status_error"] == "backward: status never goes back"
    (entry,) = move.entries
    assert (entry.kind, entry.from_status, entry.to_status) == ("refused", "processing", "queued")
    assert entry.details == {"rule": "backward", "reason": "Refused: status never goes back"}


def test_a_request_that_passes_takes_the_last_refusal_off_the_document(a_clip) -> None:
    move = settle(STREAM, a_clip(), [asked("processing", observed=False)], NOW)
    assert "requested_status_error" in move.cleared
    assert "requested_status_error" not in move.details
    assert settle(STREAM, a_clip(), [asked("processing", observed=True)], NOW).cleared == ()


def test_an_error_from_outside_brings_its_reason_with_it(a_clip) -> None:
    clip = a_clip(status="processing", progress=57.5)
    details = {"error_code": "bad_codec", "error_message": "no such codec", "facts": {"r2_url": "https://evil/"}}
    move = settle(STREAM, clip, [asked("error", details=details, source="webhook")], NOW)
    assert move.after == Position(1, "error", 57.5)
    assert (move.details["error_code"], move.details["error_message"]) == ("bad_codec", "no such codec")
    assert (move.tries, move.look_at, move.facts) == (0, NOW, {})
    assert "r2_url" not in json.dumps([dict(entry.details) for entry in move.entries])


@pytest.mark.parametrize(
    ("details", "code", "message"),
    [
        ({}, "reported", "test reported an error"),
        ({"reason": "it burns"}, "reported", "it burns"),
        ({"error_message": {"odd": 1}, "error_code": 7}, "7", "{'odd': 1}"),
        ({"error_message": "m" * 9000, "error_code": "c" * 900}, "c" * 100, "m" * 2000),
    ],
)
def test_an_error_always_has_a_code_and_a_message_of_bounded_length(
    a_clip, details: dict[str, Any], code: str, message: str
) -> None:
    move = settle(STREAM, a_clip(), [asked("error", details=details)], NOW)
    assert (move.details["error_code"], move.details["error_message"]) == (code, message)


def test_what_was_seen_is_kept_also_of_a_step_that_another_overtook(a_clip) -> None:
    fetched = asked(
        "mp4downloading", 2, observed=True, details={"facts": {"mp4_url": "https://d/m.mp4", "duration": 1}}
    )
    done = asked("complete", 1, observed=True, details={"facts": {"r2_url": "https://b/k", "duration": 2}})
    for order in ([fetched, done], [done, fetched]):
        move = settle(STREAM, a_clip(status="waitformp4"), order, NOW)
        assert move.after.status == "complete"
        assert move.facts == {"mp4_url": "https://d/m.mp4", "r2_url": "https://b/k", "duration": 2}


def test_what_a_step_tells_beside_its_facts_stands_in_the_document(a_clip) -> None:
    said = {"mp4_makes": 2, "reason": "because", "facts": {"duration": 1}}
    for status in ("stream_ready", "waitformp4"):  # it moves the clip, or finds it there already
        move = settle(STREAM, a_clip(status=status), [asked("waitformp4", observed=True, details=said)], NOW)
        assert move.details == {"mp4_makes": 2}


def test_facts_of_what_is_refused_or_only_claimed_are_no_facts(a_clip) -> None:
    signals = [
        asked("queued", 1, observed=True, details={"facts": {"mp4_url": "x"}}),
        asked("complete", 2, details={"facts": {"r2_url": "x"}}),
        asked("processing", 3, observed=True, attempt=0, details={"facts": {"hls_url": "x"}}),
        asked("mp4downloading", 4, observed=True, details={"facts": ["not an object"]}),
    ]
    move = settle(STREAM, a_clip(status="processing"), signals, NOW)
    assert move.after.status == "mp4downloading"
    assert move.facts == {}


def test_a_retry_starts_afresh(a_clip) -> None:
    clip = a_clip(status="error", progress=97.0, tries=9, processing_details={"error_code": "x"})
    move = settle(STREAM, clip, [asked("mp4downloading", attempt=2)], NOW)
    assert move.after == Position(2, "mp4downloading", 85.0)
    assert (move.tries, move.look_at) == (0, NOW)
    assert {"error_code", "error_message", "error_time", "provider_error_code"} <= set(move.cleared)
    assert (move.entries[0].kind, move.entries[0].attempt, move.entries[0].from_status) == ("moved", 2, "error")


def test_only_outside_requests_count_as_handled(a_clip) -> None:
    signals = [asked("queued", 1, observed=True), asked("queued", 2), asked("processing", 3)]
    move = settle(STREAM, a_clip(), signals, NOW)
    assert (move.judged, move.signal_ids) == (2, (1, 2, 3))
    assert len(move.entries) == 3
    assert "requested_status_handled" not in settle(STREAM, a_clip(), signals[:1], NOW).details


def test_an_error_that_was_only_heard_of_is_looked_into_first(a_clip) -> None:
    clip = a_clip(status="processing", look_at=NOW + timedelta(hours=1))
    move = settle(STREAM, clip, [asked("error", hearsay=True)], NOW)
    assert (move.after, move.look_at) == (move.before, NOW)
    assert "error_code" not in move.details
    assert [entry.kind for entry in move.entries] == ["noted"]


# ---- the inbox -----------------------------------------------------------------------------------------------------


async def test_a_move_is_written_with_its_history_and_the_request_is_cleared(
    api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history
) -> None:
    await stand("c", "processing")
    await signal_status_update(api, "c", "error", {"error_message": "it broke"}, "operator")
    (move,) = await drain(pool, term, now)
    assert move.after.status == "error"
    clip = await read_clip(api, "c")
    assert clip is not None
    assert (clip.status, clip.progress, clip.pending, clip.epoch) == ("error", 50.0, 0, term.epoch)
    assert (clip.error_message, clip.look_at) == ("it broke", NOW)
    left = {"requested_status", "requested_attempt", "status_request_time", "request"} & set(clip.processing_details)
    assert left == set()
    assert clip.processing_details["requested_status_handled"] == NOW.isoformat()
    assert await read_pending(api, "c") == []
    assert await history("c") == [
        {
            "kind": "moved",
            "attempt": 1,
            "from_status": "processing",
            "to_status": "error",
            "progress": 50.0,
            "source": "operator",
            "details": {"error_message": "it broke"},
        }
    ]
    assert await drain(pool, term, now) == []


async def test_every_kind_of_verdict_reaches_the_history_once(
    api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, report, history
) -> None:
    await stand("c", "processing")
    await report("c", "stream_ready", reason="seen", facts={"hls_url": "https://h/"})
    await signal_status_update(api, "c", "error", {}, "heard", hearsay=True)
    for status, source in [("queued", "a"), ("complete", "b"), ("stream_ready", "d"), ("sleeping", "e")]:
        await signal_status_update(api, "c", status, {"said": source}, source)
    await drain(pool, term, now)
    rows = {row["source"]: (row["kind"], row["details"].get("rule")) for row in await history("c")}
    assert rows == {
        "step": ("moved", None),
        "heard": ("noted", "needs-evidence"),
        "a": ("refused", "backward"),
        "b": ("noted", "needs-evidence"),
        "d": ("outranked", None),
        "e": ("refused", "unknown-status"),
    }
    assert all(row["details"]["reason"] for row in await history("c"))
    clip = await read_clip(api, "c")
    assert clip is not None
    assert (clip.status, clip.hls_url, clip.look_at) == ("stream_ready", "https://h/", NOW)


async def test_facts_in_an_outside_request_change_no_column(
    api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", "processing")
    before = await read_clip(api, "c")
    facts = {"r2_url": "https://evil/", "mp4_url": "https://evil/", "duration": 1, "cloudflare_uid": "theirs"}
    for status in ("complete", "stream_ready", "error"):
        await signal_status_update(api, "c", status, {"facts": facts}, "smuggler")
    await drain(pool, term, now)
    clip = await read_clip(api, "c")
    assert clip is not None
    assert before is not None
    for column in ("r2_url", "mp4_url", "duration", "cloudflare_uid", "hls_url", "file_size"):
        assert getattr(clip, column) == getattr(before, column), column
    assert clip.status == "error"


async def test_a_retry_opens_the_next_attempt_and_what_is_left_of_the_last_is_refused(
    api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, report, history
) -> None:
    await stand("c", "r2_uploading")
    await signal_status_update(api, "c", "error", {"error_message": "gone", "error_code": "x"}, "step")
    await drain(pool, term, now)
    await signal_retry(api, "c", "mp4downloading", "person")
    await drain(pool, term, now)
    clip = await read_clip(api, "c")
    assert clip is not None
    assert (clip.attempt, clip.status, clip.progress) == (2, "mp4downloading", 85.0)
    assert clip.error_message is None
    assert not {"error_code", "error_message", "error_time"} & set(clip.processing_details)
    await report("c", "complete", attempt=1, facts={"r2_url": "https://b/old"})
    await signal_status_update(api, "c", "error", {}, "late", attempt=1, insists=True)
    await drain(pool, term, now)
    clip = await read_clip(api, "c")
    assert clip is not None
    assert (clip.attempt, clip.status, clip.r2_url) == (2, "mp4downloading", None)
    assert [row["details"]["rule"] for row in (await history("c"))[-2:]] == ["older-attempt", "older-attempt"]


async def test_a_new_attempt_shows_nothing_of_the_end_of_the_last(
    api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, report
) -> None:
    await stand("c", "r2_uploading")
    await report("c", "complete", facts={"r2_url": "https://b/k", "file_size": 5})
    await drain(pool, term, now)
    first = await read_clip(api, "c")
    assert first is not None
    assert (first.status, first.progress, first.r2_url) == ("complete", 100.0, "https://b/k")
    assert first.completed_at is not None
    await signal_status_update(api, "c", "error", {}, "check", insists=True)
    await drain(pool, term, now)
    await signal_retry(api, "c", "mp4downloading", "person")
    await drain(pool, term, now)
    clip = await read_clip(api, "c")
    assert clip is not None
    assert (clip.attempt, clip.r2_url, clip.completed_at) == (2, None, None)
    await report("c", "complete", attempt=2, facts={"r2_url": "https://b/k2"})
    await drain(pool, term, now)
    second = await read_clip(api, "c")
    assert second is not None
    assert second.r2_url == "https://b/k2"
    assert second.completed_at is not None
    assert second.completed_at > first.completed_at


@pytest.mark.parametrize("guard", ["epoch", "holder"])
async def test_a_term_that_is_over_writes_nothing(
    api: asyncpg.Connection, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, guard: str
) -> None:
    await stand("c")
    await signal_status_update(api, "c", "error", {}, "test")
    before = await owner.fetchrow("SELECT * FROM clips")
    stale = Term(term.holder, term.epoch - 1) if guard == "epoch" else Term("somebody else", term.epoch)
    with pytest.raises(LeadershipLost):
        await drain(pool, stale, now)
    assert await owner.fetchrow("SELECT * FROM clips") == before
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 1
    assert await owner.fetchval("SELECT count(*) FROM clip_events") == 1


async def test_rows_that_somebody_holds_are_passed_over_however_many(
    api: asyncpg.Connection,
    owner: asyncpg.Connection,
    pool: asyncpg.Pool,
    term: Term,
    stand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "BATCH", 2)
    for clip_id in "abcdefgh":
        await stand(clip_id)
        await signal_status_update(api, clip_id, "error", {}, "test")
    transaction = owner.transaction()
    await transaction.start()
    await owner.fetch("SELECT id FROM clips WHERE id < 'f' OR id = 'g' FOR UPDATE")
    async with asyncio.timeout(4):  # less than the database's own limit on waiting for a lock
        moved = await drain(pool, term, now)
    assert [move.clip_id for move in moved] == ["f", "h"]
    await transaction.rollback()
    assert [move.clip_id for move in await drain(pool, term, now)] == list("abcdeg")


async def test_a_flood_is_judged_in_batches_of_bounded_size(
    api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "BATCH_BYTES", 5000)
    sizes: list[int] = []
    real = judging._settle_all

    def counted(rows, signals, at):
        sizes.append(sum(map(len, signals.values())))
        return real(rows, signals, at)

    monkeypatch.setattr(judging, "_settle_all", counted)
    for clip_id in "abcde":
        await stand(clip_id)
        for n in range(3):
            await signal_status_update(api, clip_id, "error", {f"k{n}": "x" * 1000}, "test")
    moved = await drain(pool, term, now)
    assert [move.clip_id for move in moved] == list("abcde")
    assert sizes == [3, 3, 3, 3, 3]


async def test_a_clip_that_cannot_be_written_is_set_aside_and_the_others_move(
    api: asyncpg.Connection, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, report, history
) -> None:
    for clip_id in "abcde":
        await stand(clip_id)
    await report("a", "queued", facts={"duration": "a while"})
    await report("b", "queued", facts={"cloudflare_uid": "ue"})
    await signal_status_update(api, "b", "processing", {"said": "me too"}, "webhook")
    for clip_id in "cd":
        await report(clip_id, "queued", reason="seen")
    moved = await drain(pool, term, now)
    assert [move.clip_id for move in moved] == ["c", "d"]
    for clip_id, signals in (("a", 1), ("b", 2)):
        clip = await read_clip(api, clip_id)
        assert clip is not None
        assert (clip.status, clip.cloudflare_uid, clip.pending) == ("uploading", f"u{clip_id}", 0)
        assert clip.look_at is not None
        assert clip.look_at > datetime.now(UTC) + timedelta(minutes=4)
        lines = await history(clip_id)
        assert [(row["kind"], row["details"]["rule"]) for row in lines] == [("refused", "database")] * signals
        assert all(row["details"]["reason"].startswith("The database refused the move: ") for row in lines)
    assert [row["source"] for row in await history("b")] == ["step", "webhook"]
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 0, "judged once, not for ever"


async def test_a_clip_this_program_does_not_know_keeps_its_signals_and_hurts_nobody(
    api: asyncpg.Connection, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    """As while a newer version, with a further pipeline, is being rolled out."""
    for clip_id in "abc":
        await stand(clip_id)
        await signal_status_update(api, clip_id, "error", {}, "test")
    await owner.execute(
        "ALTER TABLE clips DISABLE TRIGGER USER; UPDATE clips SET pipeline = 'cinema' WHERE id = 'b';"
        " ALTER TABLE clips ENABLE TRIGGER USER"
    )
    with capture_logs() as logs:
        assert [move.clip_id for move in await drain(pool, term, now)] == ["a", "c"]
    assert [(entry["log_level"], entry["clip_id"]) for entry in logs] == [("warning", "b")]
    assert await owner.fetchval("SELECT array_agg(clip_id) FROM clip_signals") == ["b"]


async def test_many_clips_are_judged_in_few_statements(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner.execute("INSERT INTO clips (id) SELECT 'c' || n FROM generate_series(1, 1200) AS n")
    await owner.execute('UPDATE clips SET processing_details = processing_details || \'{"requested_status": "error"}\'')
    batches: list[int] = []
    real = judging.write_each

    async def counted(connection, term, moves):
        batches.append(len(moves))
        return await real(connection, term, moves)

    monkeypatch.setattr(judging, "write_each", counted)
    assert len(await drain(pool, term, now)) == 1200
    assert batches == [500, 500, 200]
    kinds = Counter(row[0] for row in await owner.fetch("SELECT kind FROM clip_events"))
    assert kinds == {"created": 1200, "moved": 1200}


# ---- what our own steps did, and whom a person stops ---------------------------------------------------------------


def test_what_a_repeated_step_did_is_kept(a_clip) -> None:
    """Else an MP4 that fails at once would be made for ever: its makes are counted in the step."""
    clip = a_clip(status="waitformp4")
    again = asked("waitformp4", observed=True, details={"mp4_makes": 2, "reason": "taken", "facts": {}})
    move = settle(STREAM, clip, [again], NOW)
    assert (move.after, move.details, [entry.kind for entry in move.entries]) == (
        move.before,
        {"mp4_makes": 2},
        ["refused"],
    )
    older = settle(STREAM, a_clip(status="waitformp4", attempt=2), [again], NOW)
    assert older.details == {}


def test_who_insists_that_it_failed_does_not_want_it_tried_again_by_itself(a_clip) -> None:
    failed = a_clip(status="error", processing_details={"retry_at": NOW.isoformat()})
    assert "retry_at" in settle(STREAM, failed, [asked("error", insists=True)], NOW).cleared
    assert "retry_at" not in settle(STREAM, failed, [asked("error")], NOW).cleared
    assert "retry_at" in settle(STREAM, failed, [asked("uploading", attempt=2)], NOW).cleared


# ---- poison in the inbox -------------------------------------------------------------------------------------------


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Judging breaks with that exception on the clip ``b``."""

    def break_on(poison: Exception) -> None:
        real = judging.settle

        def breaking(table: Any, clip: Clip, signals: Any, at: datetime) -> Any:
            if clip.id == "b":
                raise poison
            return real(table, clip, signals, at)

        monkeypatch.setattr(judging, "settle", breaking)

    return break_on


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    "poison",
    [RecursionError("deep"), MemoryError(), KeyError("x"), asyncpg.InternalClientError("odd"), OSError("no")],
    ids=lambda poison: type(poison).__name__,
)
async def test_signals_that_cannot_be_judged_are_set_aside_and_end_with_their_clip(
    api: asyncpg.Connection, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history, poisoned, poison
) -> None:
    poisoned(poison)
    for clip_id in "abc":
        await stand(clip_id, "processing")
        await signal_status_update(api, clip_id, "error", {"a": clip_id}, "test")
    before = await read_clip(owner, "b")
    clock = Clock()
    inbox = Inbox({"stream": {"processing": Limit(timedelta(hours=1), tries=3)}}, Pauses(clock, 1.0, 8.0))
    moved = await drain(pool, term, now, inbox)
    assert [move.clip_id for move in moved if move.changes_status] == ["a", "c"]
    assert await drain(pool, term, now, inbox) == [], "it is left alone for a moment"
    clip = await read_clip(owner, "b")
    assert clip is not None
    assert before is not None
    assert (clip.status, clip.tries, clip.pending, clip.look_at) == ("processing", 1, 1, before.look_at)
    assert clip.processing_details["last_problem"]["code"] == "internal"
    for seconds in (1.0, 2.0):
        clock.seconds += seconds
        assert [move.clip_id for move in await drain(pool, term, now, inbox)] == ["b"]
    clip = await read_clip(owner, "b")
    assert clip is not None
    assert (clip.status, clip.pending, clip.error_message) == (
        "error",
        0,
        "Judging its signals broke; the log says where",
    )
    kinds = [(line["kind"], line["source"]) for line in await history("b")]
    assert kinds == [("failed-try", "judging")] * 3 + [("moved", "judging"), ("refused", "test")]
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 0
    assert "deep" not in json.dumps(await history("b"), default=str)


async def test_signals_of_an_ended_clip_that_cannot_be_judged_are_refused_in_the_end(
    api: asyncpg.Connection, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, poisoned
) -> None:
    poisoned(KeyError("x"))
    await stand("b", "error")
    await signal_status_update(api, "b", "error", {}, "test")
    clock = Clock()
    inbox = Inbox({}, Pauses(clock, 1.0, 8.0))
    for _ in range(TRIES):
        await drain(pool, term, now, inbox)
        clock.seconds += 8.0
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 0
    clip = await read_clip(owner, "b")
    assert clip is not None
    assert (clip.status, clip.pending) == ("error", 0)


async def test_a_row_whose_signals_cannot_even_be_set_aside_is_left_alone(
    api: asyncpg.Connection, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    """As after a restored back-up: the row carries an epoch that is yet to come."""
    for clip_id in "abc":
        await stand(clip_id)
        await signal_status_update(api, clip_id, "error", {}, "test")
    await owner.execute("UPDATE clips SET epoch = 1000000 WHERE id = 'b'")
    clock = Clock()
    inbox = Inbox({}, Pauses(clock, 1.0, 8.0))
    assert [move.clip_id for move in await drain(pool, term, now, inbox)] == ["a", "c"]
    with capture_logs() as logs:
        await drain(pool, term, now, inbox)
    assert logs == []


async def test_each_page_of_a_long_round_is_told(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "BATCH", 10)
    await owner.execute("INSERT INTO clips (id) SELECT 'c' || n FROM generate_series(1, 35) AS n")
    await owner.execute('UPDATE clips SET processing_details = processing_details || \'{"requested_status": "error"}\'')
    told: list[int] = []
    await drain(pool, term, now, Inbox({}, Pauses(Clock(), 1.0, 8.0), lambda: told.append(1)))
    assert len(told) == 4
