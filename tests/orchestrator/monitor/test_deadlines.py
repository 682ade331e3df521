"""Time at a status ends: by what was seen, by what could not be seen, and for pipelines nobody thought of yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.monitor.deadlines import Sight, held_to_its_limit, held_to_its_retry, next_attempt
from orchestrator.monitor.failures import STOPS_THE_CLOCK
from orchestrator.monitor.looking import to_move, unseen
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.limits import LONGEST_BLIND, RETRY_WAITS, Limit
from orchestrator.pipelines.terms import LookKind, Pipeline, Plan, Step
from orchestrator.storage.clips import Clip
from statusutils import Status, StatusTable

STREAM = PIPELINES["stream"]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LOOKED = Sight(is_looked_for=True)
AWAY = TransientError("provider_unavailable", "the provider is away")
STAYS = Plan(NOW + timedelta(minutes=1))


def held(clip: Clip, plan: Plan = STAYS, sight: Sight = LOOKED, now: datetime = NOW) -> Plan:
    return held_to_its_limit(STREAM, clip, plan, sight, now)


def standing(a_clip: Any, status: str, since: timedelta, **changes: Any) -> Clip:
    return a_clip(status=status, status_since=NOW - since, look_at=NOW, **changes)


@pytest.mark.parametrize("status", STREAM.limits)
def test_past_its_time_every_status_ends_with_the_reason(a_clip, status: str) -> None:
    stay = STREAM.limits[status].stay
    assert held(standing(a_clip, status, stay)) == STAYS
    ended = held(standing(a_clip, status, stay + timedelta(seconds=1)))
    assert ended.step is not None
    assert (ended.step.status, ended.step.details["error_code"]) == ("error", "deadline_passed")
    assert ended.step.reason == f"It stood at {status} for more than {stay.total_seconds() / 3600:g} hours"
    assert ended.step.details["error_message"] == ended.step.reason


def test_a_job_that_rests_at_its_last_step_is_failed_as_stalled(a_clip) -> None:
    cut = PIPELINES["cut"]
    for minutes, is_over in ((5, False), (6, True)):
        clip = standing(a_clip, "processing", timedelta(minutes=minutes))
        job = replace(clip, pipeline="cut", status="finalizing")
        ended = held_to_its_limit(cut, job, STAYS, LOOKED, NOW)
        assert (ended.step is not None) is is_over
    assert ended.step is not None
    assert (ended.step.status, ended.step.reason, ended.step.heals) == ("error", "Stalled at 95%", True)


def test_the_last_look_may_still_move_it(a_clip) -> None:
    late = standing(a_clip, "processing", timedelta(days=3))
    moves = Plan(NOW, Step("stream_ready", "Cloudflare says ready"))
    assert held(late, moves).step == moves.step


def test_a_move_that_the_database_refuses_saves_nothing(a_clip) -> None:
    refused = {"code": "database_refused", "text": "not a number", "at": NOW.isoformat()}
    late = standing(a_clip, "processing", timedelta(days=3), processing_details={"last_problem": refused})
    ended = held(late, Plan(NOW, Step("stream_ready", "Cloudflare says ready")))
    assert ended.step is not None
    assert ended.step.reason.endswith("the last problem was: not a number (database_refused)")


def drive(clip: Clip, outages: Any, until: timedelta, step: timedelta = timedelta(minutes=1)) -> tuple[Clip, datetime]:
    """Look at *clip* every *step* as the engine would; where it stands in the end, and when."""
    now = clip.status_since
    while now < clip.status_since + until:
        problem: DriverError | None = outages(now - clip.status_since)
        plan = unseen(clip, problem, now, 0.0) if problem else Plan(now + step)
        move = to_move(STREAM, clip, held(clip, plan, Sight(True, problem), now), now)
        details = {key: value for key, value in clip.processing_details.items() if key not in move.cleared}
        details |= move.details
        clip = replace(clip, status=move.after.status, processing_details=details, look_at=now + step)
        if clip.status == "error":
            return clip, now
        now += step
    return clip, now


def test_an_hour_of_outages_of_every_kind_fails_no_clip(a_clip) -> None:
    """Not even one whose time was nearly over."""
    codes = sorted(STOPS_THE_CLOCK)
    stay = STREAM.limits["processing"].stay

    def outage(at: timedelta) -> DriverError | None:
        minute = int(at.total_seconds() // 60)
        out = stay - timedelta(minutes=30) <= at < stay + timedelta(minutes=31)
        return TransientError(codes[minute % len(codes)], "away") if out else None

    clip, _ = drive(a_clip(status="processing"), outage, stay + timedelta(minutes=60))
    assert clip.status == "processing"
    _, ended_at = drive(a_clip(status="processing"), outage, timedelta(days=2))
    lasted = ended_at - a_clip().status_since
    assert stay + timedelta(minutes=60) < lasted <= stay + timedelta(minutes=65), (
        "and then its time is over all the same"
    )


def test_an_outage_without_end_ends_every_clip_and_says_since_when(a_clip) -> None:
    stay = STREAM.limits["queued"].stay
    began = timedelta(hours=2)
    clip, ended_at = drive(a_clip(status="queued"), lambda at: AWAY if at >= began else None, timedelta(days=30))
    assert clip.status == "error"
    assert ended_at - clip.status_since <= stay + LONGEST_BLIND + timedelta(minutes=2)
    said = clip.processing_details["error_message"]
    since = clip.status_since + began
    assert said.startswith(
        "It stood at queued for more than 6 hours, not counting 72.0 hours in which nothing could be"
    )
    assert f"the provider could not be reached since {since:%Y-%m-%d %H:%M:%S} UTC" in said
    assert said.endswith("the last problem was: the provider is away (provider_unavailable)")


def test_a_problem_of_the_clip_alone_does_not_stop_its_clock(a_clip) -> None:
    refused = PermanentError("provider_refused", "not this one")
    stay = STREAM.limits["queued"].stay
    clip, ended_at = drive(a_clip(status="queued"), lambda _: refused, timedelta(days=30))
    assert ended_at - clip.status_since <= stay + timedelta(minutes=2)
    assert "not this one (provider_refused)" in clip.processing_details["error_message"]


def test_time_in_which_no_monitor_ran_is_not_held_against_the_clip(a_clip) -> None:
    """Started again after days, the monitor does not fail all it finds."""
    overdue = standing(a_clip, "r2_uploading", timedelta(days=3))
    overdue = replace(overdue, look_at=NOW - timedelta(days=2, hours=20))
    got = held(overdue, sight=Sight(is_looked_for=False))
    assert got.step is None
    assert got.details["unseen"]["seconds"] == timedelta(days=2, hours=20).total_seconds()


def test_time_in_which_an_effect_waits_for_a_place_is_not_held_against_the_clip(a_clip) -> None:
    clip = standing(a_clip, "mp4downloading", timedelta(hours=5))
    plan = held(clip, sight=Sight(is_looked_for=False, waits=True))
    waited = replace(clip, processing_details=dict(plan.details), look_at=NOW + timedelta(hours=3))
    got = held(waited, sight=Sight(is_looked_for=False), now=NOW + timedelta(hours=3))
    assert got.step is None
    assert got.details["unseen"]["seconds"] == timedelta(hours=3).total_seconds()


def test_what_was_kept_for_a_stay_before_is_dropped(a_clip) -> None:
    former = {"status": "queued", "attempt": 1, "since": None, "at": None, "seconds": 60}
    clip = standing(a_clip, "processing", timedelta(minutes=1), processing_details={"unseen": former})
    assert held(clip).cleared == ("unseen",)


def test_the_engine_holds_a_pipeline_that_it_has_never_heard_of(a_clip) -> None:
    table = StatusTable("cinema", (Status("rolling", 1, 5, "Rolling"), *STREAM.table.statuses[-2:]))
    kind = LookKind("nothing", 1)
    limits = {"rolling": Limit(timedelta(seconds=3), heals=False)}
    cinema = Pipeline(table, limits, lambda _: kind, lambda clip, seen, now: Plan(now), lambda _: None)
    clip = replace(a_clip(), pipeline="cinema", status="rolling", status_since=NOW - timedelta(seconds=4), look_at=NOW)
    ended = held_to_its_limit(cinema, clip, STAYS, Sight(False), NOW)
    assert ended.step is not None
    assert ended.step.status == "error"


# ---- trying again --------------------------------------------------------------------------------------------------


def test_a_passed_deadline_is_tried_again_where_a_new_attempt_does_something_new(a_clip) -> None:
    for status, limit in STREAM.limits.items():
        late = standing(a_clip, status, timedelta(days=9))
        move = to_move(STREAM, late, held(late), NOW)
        assert ("retry_at" in move.details) == limit.heals, status


FAILED = {
    "error_code": "source_cut",
    "error_message": "cut",
    "error_time": NOW.isoformat(),
    "retry_at": NOW.isoformat(),
}


def test_a_failed_clip_is_tried_again_when_its_time_has_come(a_clip) -> None:
    clip = a_clip(status="error", progress=96.0, mp4_url="https://m/", processing_details=FAILED, tries=2)
    assert next_attempt(STREAM, clip, NOW - timedelta(seconds=1)) is None
    move = next_attempt(STREAM, clip, NOW)
    assert move is not None
    assert (move.after.attempt, move.after.status, move.after.progress, move.tries) == (2, "mp4downloading", 85.0, 0)
    assert set(FAILED) <= set(move.cleared)
    assert [(entry.kind, entry.attempt, entry.from_status, entry.source) for entry in move.entries] == [
        ("moved", 2, "error", "monitor")
    ]
    assert move.entries[0].details["reason"] == "Tried again by itself: attempt 2 of 3 at most"


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": len(RETRY_WAITS) + 1},
        {"processing_details": {**FAILED, "retry_at": None}},
        {"processing_details": {**FAILED, "delete_requested": True}},
        {"status": "complete"},
        {"processing_details": {**FAILED, "error_code": "upload_expired"}},
    ],
    ids=str,
)
def test_nothing_else_is(a_clip, changes: dict[str, Any]) -> None:
    assert next_attempt(STREAM, a_clip(**{"status": "error", "processing_details": FAILED, **changes}), NOW) is None


def test_a_failed_clip_is_looked_at_when_its_time_comes(a_clip) -> None:
    early, rests = NOW - timedelta(minutes=5), Plan(look_at=None)
    clip = a_clip(status="error", processing_details=FAILED)
    assert held_to_its_retry(STREAM, clip, rests, early).look_at == NOW
    tidying = Plan(look_at=early + timedelta(seconds=5))
    assert held_to_its_retry(STREAM, clip, tidying, early) == tidying
    ended = a_clip(status="error")
    assert held_to_its_retry(STREAM, ended, rests, early) == rests
    deleted = a_clip(status="error", processing_details={**FAILED, "delete_requested": True})
    assert held_to_its_retry(STREAM, deleted, rests, early) == replace(rests, cleared=("retry_at",))
