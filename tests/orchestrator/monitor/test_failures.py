"""What becomes of a clip when something failed for it: counted or not, how long it waits, and how it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.drivers.errors import (
    DATABASE_AWAY,
    NEEDS_A_PERSON,
    DatabaseAwayError,
    DriverError,
    PermanentError,
    TransientError,
)
from orchestrator.monitor.failures import (
    BLAMELESS,
    DATABASE_WAIT,
    FIRST_WAIT,
    LONGEST_AWAY_WAIT,
    LONGEST_WAIT,
    PERSON_WAIT,
    STOPS_THE_CLOCK,
    TRIES_AT_MOST,
    Failure,
    after_failure,
    wait_after,
)
from orchestrator.monitor.moves import Move
from orchestrator.pipelines.limits import RETRY_WAITS, TRIES
from orchestrator.pipelines.stream.limits import LIMITS
from orchestrator.storage.clips import Clip

NOW = datetime.now(UTC)


def failed(clip: Clip, problem: DriverError, at: datetime = NOW, took: timedelta = timedelta()) -> Move:
    return after_failure(LIMITS, clip, Failure("fetch", problem, at - took), at)


@pytest.mark.parametrize(
    ("tries", "retry_after", "expected"),
    [
        (1, None, FIRST_WAIT),
        (2, None, FIRST_WAIT * 2),
        (4, None, FIRST_WAIT * 8),
        (7, None, LONGEST_WAIT),
        (10**6, None, LONGEST_WAIT),
        (1, 45.0, timedelta(seconds=45)),
        (7, 45.0, LONGEST_WAIT),
        (1, 1e18, timedelta(hours=1)),
        (1, float("inf"), timedelta(hours=1)),
        (1, float("nan"), FIRST_WAIT),
        (1, -3.0, FIRST_WAIT),
    ],
)
def test_waits_grow_to_a_bound_and_heed_what_the_service_asks(
    tries: int, retry_after: float | None, expected: timedelta
) -> None:
    assert wait_after(tries, retry_after) == expected


def test_the_tries_of_one_status_last_longer_than_an_hour() -> None:
    assert sum((wait_after(n, None) for n in range(1, TRIES)), timedelta()) > timedelta(hours=1)


BROKEN = TransientError("source_cut", "the line was cut")
GONE = TransientError("provider_unavailable", "the provider is away")
REFUSED = PermanentError("too_long", "longer than allowed")
TOKEN = PermanentError("provider_refused_token", "the token was revoked")


@pytest.mark.parametrize(
    ("status", "tries", "problem", "ends_at", "tries_after", "look_in", "lines"),
    [
        pytest.param("mp4downloading", 0, BROKEN, "mp4downloading", 1, FIRST_WAIT, 1, id="first"),
        pytest.param("mp4downloading", 2, BROKEN, "mp4downloading", 3, FIRST_WAIT * 4, 1, id="third"),
        pytest.param("mp4downloading", TRIES - 1, BROKEN, "error", 0, timedelta(), 2, id="last"),
        pytest.param("mp4downloading", 0, REFUSED, "error", 0, timedelta(), 2, id="cannot-help"),
        pytest.param("mp4downloading", TRIES, GONE, "mp4downloading", TRIES, FIRST_WAIT, 1, id="blameless"),
        pytest.param("mp4downloading", 0, GONE, "mp4downloading", 0, FIRST_WAIT, 1, id="blameless-first"),
        pytest.param("mp4downloading", 0, TOKEN, "mp4downloading", 0, PERSON_WAIT, 1, id="a-person-has-to-act"),
        pytest.param("error", 0, BROKEN, "error", 1, FIRST_WAIT, 1, id="tidying-up"),
        pytest.param("error", TRIES - 1, BROKEN, "error", TRIES, None, 1, id="tidying-up-given-up"),
        pytest.param("complete", 0, REFUSED, "complete", 1, None, 1, id="tidying-up-cannot-help"),
        pytest.param("complete", 0, TOKEN, "complete", 0, PERSON_WAIT, 1, id="tidying-up-waits-for-a-person"),
    ],
)
def test_what_becomes_of_a_clip_whose_effect_failed(
    a_clip,
    status: str,
    tries: int,
    problem: DriverError,
    ends_at: str,
    tries_after: int,
    look_in: timedelta | None,
    lines: int,
) -> None:
    clip = a_clip(status=status, tries=tries)
    move = failed(clip, problem)
    assert (move.after.status, move.after.progress, move.tries) == (ends_at, clip.progress, tries_after)
    assert move.look_at == (None if look_in is None else NOW + look_in)
    assert [entry.kind for entry in move.entries] == ["failed-try", "moved"][:lines]
    assert move.details["last_problem"]["code"] == problem.code
    assert move.entries[0].details["reason"] == problem.text
    assert ("error_code" in move.details) == (ends_at == "error" != status)
    assert ("gave_up" in move.details) == (look_in is None)


def test_a_database_that_was_away_is_no_failure_of_the_clip_and_no_line_of_its_history(a_clip) -> None:
    """It is there when this is written, so that what it broke off goes on in seconds."""
    move = failed(a_clip(status="mp4downloading", tries=2), DatabaseAwayError())
    assert (move.entries, move.tries, move.look_at) == ((), 2, NOW + DATABASE_WAIT)
    assert move.details["last_problem"]["code"] == DATABASE_AWAY
    again = a_clip(status="mp4downloading", processing_details=dict(move.details))
    later = failed(again, DatabaseAwayError(), at=NOW + timedelta(hours=1))
    assert (later.entries, later.look_at) == ((), NOW + timedelta(hours=1) + LONGEST_AWAY_WAIT)


@pytest.mark.parametrize("code", sorted((BLAMELESS | NEEDS_A_PERSON) - {DATABASE_AWAY}))
def test_an_outage_is_one_line_of_history_however_long_it_lasts(a_clip, code: str) -> None:
    problem = TransientError(code, "away")
    first = failed(a_clip(status="mp4downloading"), problem)
    assert len(first.entries) == 1
    again = a_clip(status="mp4downloading", processing_details=dict(first.details))
    assert failed(again, problem).entries == ()
    assert len(failed(again, BROKEN).entries) == 1
    for spoiled in ("text", None, [], {"code": []}):
        clip = a_clip(status="mp4downloading", processing_details={"last_problem": spoiled})
        assert len(failed(clip, problem).entries) == 1


def test_an_mp4_that_does_not_come_to_its_address_is_waited_for_ten_minutes_and_asked_for_afresh(a_clip) -> None:
    """The provider called it ready, so that it is there soon or was taken away again; the usual hours would be vain."""
    allowed = TRIES_AT_MOST["mp4_not_yet_there"]
    waited = sum((wait_after(n, None) for n in range(1, allowed)), timedelta())
    assert timedelta(minutes=10) <= waited <= timedelta(minutes=15)
    problem = TransientError("mp4_not_yet_there", "The source answered 404.")
    assert failed(a_clip(status="mp4downloading", tries=allowed - 2), problem).after.status == "mp4downloading"
    last = failed(a_clip(status="mp4downloading", tries=allowed - 1), problem)
    assert last.after.status == "error"
    assert last.details["retry_at"] == (NOW + RETRY_WAITS[0]).isoformat()


def test_texts_of_services_are_cut(a_clip) -> None:
    move = failed(a_clip(), PermanentError("x", "y" * 10_000))
    assert len(json.dumps([dict(move.details), *(dict(entry.details) for entry in move.entries)])) < 5000


# ---- what is not the clip's fault ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(BLAMELESS | NEEDS_A_PERSON))
def test_what_is_not_the_clips_fault_never_uses_up_its_tries(a_clip, code: str) -> None:
    clip = a_clip(status="stream_ready", tries=TRIES - 1)
    for problem in (TransientError(code, "away"), PermanentError(code, "away")):
        move = failed(clip, problem)
        assert (move.after.status, move.tries) == ("stream_ready", TRIES - 1)


def test_an_unknown_outcome_is_counted_for_each_may_have_made_something(a_clip) -> None:
    clip, asked = a_clip(tries=0), 0
    while clip.status != "error":
        move = failed(clip, TransientError("outcome_unknown", "it may exist"))
        clip = a_clip(status=move.after.status, tries=move.tries, progress=15.0)
        asked += 1
    assert asked == TRIES


def test_faults_that_take_turns_end_all_the_same(a_clip) -> None:
    """Of the clip, of the provider, of the store, of ours: whatever comes between, the tries add up."""
    codes = ("source_cut", "provider_unavailable", "store_busy", "provider_busy", "internal", "provider_conflict")
    clip, failures = a_clip(status="r2_uploading"), 0
    while clip.status != "error":
        move = failed(clip, TransientError(codes[failures % len(codes)], "again"))
        clip = a_clip(status=move.after.status, tries=move.tries, progress=95.0)
        failures += 1
        assert failures <= 2 * TRIES
    assert failures >= TRIES


@pytest.mark.parametrize("code", sorted(STOPS_THE_CLOCK))
def test_what_stops_the_clock_counts_from_the_start_of_the_failed_work(a_clip, code: str) -> None:
    move = failed(a_clip(status="stream_ready"), TransientError(code, "away"), took=timedelta(minutes=3))
    began = (NOW - timedelta(minutes=3)).isoformat()
    assert move.details["unseen"] == {
        "status": "stream_ready", "attempt": 1, "since": began, "at": began, "seconds": 0.0,
    }  # fmt: skip
    again = a_clip(status="stream_ready", processing_details=dict(move.details))
    blamed = failed(again, TransientError("source_cut", "the line was cut"))
    assert (blamed.details["unseen"]["since"], blamed.details["unseen"]["at"]) == (None, None)
    assert "unseen" not in failed(a_clip(status="error"), TransientError(code, "away")).details


@pytest.mark.parametrize(
    ("away_for", "retry_after", "waits"),
    [
        (timedelta(), None, FIRST_WAIT),
        (timedelta(seconds=100), None, timedelta(seconds=25)),
        (timedelta(hours=5), None, LONGEST_AWAY_WAIT),
        (timedelta(hours=5), 300.0, timedelta(seconds=300)),
    ],
)
def test_what_is_away_is_asked_ever_more_rarely_and_soon_after_its_return(
    a_clip, away_for: timedelta, retry_after: float | None, waits: timedelta
) -> None:
    since = (NOW - away_for).isoformat()
    unseen = {"status": "stream_ready", "attempt": 1, "since": since, "at": None, "seconds": 0}
    clip = a_clip(status="stream_ready", processing_details={"unseen": unseen})
    assert failed(clip, TransientError("provider_unavailable", "away", retry_after)).look_at == NOW + waits


# ---- what may heal -------------------------------------------------------------------------------------------------


def test_what_may_heal_is_tried_again_by_itself_and_what_cannot_is_not(a_clip) -> None:
    spent = a_clip(status="r2_uploading", tries=TRIES - 1)
    assert failed(spent, BROKEN).details["retry_at"] == (NOW + RETRY_WAITS[0]).isoformat()
    second = a_clip(status="r2_uploading", tries=TRIES - 1, attempt=2)
    assert failed(second, BROKEN).details["retry_at"] == (NOW + RETRY_WAITS[1]).isoformat()
    last = a_clip(status="r2_uploading", tries=TRIES - 1, attempt=len(RETRY_WAITS) + 1)
    assert "retry_at" not in failed(last, BROKEN).details
    assert "retry_at" not in failed(spent, REFUSED).details


def test_a_status_that_no_limits_name_has_the_usual_budget(a_clip) -> None:
    clip = a_clip(status="r2_uploading", tries=TRIES - 1)
    assert after_failure({}, clip, Failure("fetch", BROKEN, NOW), NOW).after.status == "error"
