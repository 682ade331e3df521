"""Several requests made one: a join, so neither order nor number changes where the clip ends."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statusutils import (
    STREAM,
    Moved,
    Noted,
    Outranked,
    Position,
    Refused,
    Request,
    judge,
    merge_requested,
    refusal,
    span,
)
from statusutils.transitions import needs_evidence

NAMES = [row.name for row in STREAM.statuses]


def seen(status: str, attempt: int = 1) -> Request:
    return Request(attempt, status, observed=True)


@pytest.mark.parametrize(
    ("standing", "requests", "ends"),
    [
        pytest.param("queued", [Request(1, "error"), seen("mp4_processing")], "error", id="error-and-mp4-processing"),
        pytest.param("queued", [seen("processing"), seen("mp4downloading")], "mp4downloading", id="highest-wins"),
        pytest.param("r2_uploading", [seen("complete"), Request(1, "error")], "complete", id="late-error-and-complete"),
        pytest.param(
            "r2_uploading",
            [seen("complete"), Request(1, "error", insists=True)],
            "error",
            id="insisting-error-and-complete",
        ),
        pytest.param("r2_uploading", [Request(1, "complete"), Request(1, "error")], "error", id="claimed-complete"),
        pytest.param("mp4_processing", [seen("waitformp4"), seen("queued")], "waitformp4", id="alternating-back"),
        pytest.param("queued", [seen("sleeping"), seen("processing")], "processing", id="unknown-hurts-no-other"),
        pytest.param("queued", [Request(1, "complete")], "queued", id="a-claim-alone-moves-nothing"),
        pytest.param("queued", [Request(1, "error", hearsay=True)], "queued", id="an-error-only-heard-of"),
        pytest.param(
            "queued",
            [Request(1, "error", hearsay=True), seen("processing")],
            "processing",
            id="heard-of-and-seen-better",
        ),
        pytest.param(
            "queued", [Request(1, "error", hearsay=True), Request(1, "error")], "error", id="heard-of-and-said"
        ),
        pytest.param("complete", [Request(1, "error")], "complete", id="late-error"),
        pytest.param("complete", [Request(1, "error", insists=True)], "error", id="insisting-error"),
        pytest.param("queued", [], "queued", id="nothing"),
    ],
)
def test_where_a_set_of_requests_leads_in_any_order(standing: str, requests: list[Request], ends: str) -> None:
    at = Position(1, standing, STREAM[standing].min_progress)
    for order in permutations(requests):
        assert judge(STREAM, at, order).position.status == ends


@pytest.mark.parametrize("first_is_error", [True, False])
def test_error_and_mp4_processing_one_after_the_other_end_in_error(first_is_error: bool) -> None:
    order = [Request(1, "error"), seen("mp4_processing")]
    at = Position(1, "queued", 30.0)
    for asked in order if first_is_error else reversed(order):
        at = judge(STREAM, at, [asked]).position
    assert at.status == "error"


def test_verdicts_stand_in_the_order_asked_and_say_why() -> None:
    requests = [
        Request(1, "error"),
        seen("mp4_processing"),
        Request(1, "queued"),
        Request(0, "error"),
        Request(1, "complete"),
    ]
    judgement = judge(STREAM, Position(1, "processing", 55.0), requests)
    moved, outranked, backward, older, claimed = judgement.verdicts
    assert moved == Moved()
    assert outranked == Outranked(by="error")
    assert isinstance(backward, Refused)
    assert backward.rule.name == "backward"
    assert isinstance(older, Refused)
    assert older.rule.name == "older-attempt"
    assert claimed == Noted()
    assert judgement.position == Position(1, "error", 55.0)
    assert judgement.asks_for_a_look


def test_a_claim_below_what_was_seen_needs_no_look() -> None:
    judgement = judge(STREAM, Position(1, "queued", 30.0), [Request(1, "processing"), seen("stream_ready")])
    assert judgement.verdicts == (Outranked(by="stream_ready"), Moved())
    assert not judgement.asks_for_a_look


def test_the_same_request_twice_moves_once() -> None:
    twice = seen("processing")
    for requests in ([twice, twice], [seen("processing"), seen("processing")]):
        judgement = judge(STREAM, Position(1, "queued", 30.0), requests)
        assert Counter(map(type, judgement.verdicts)) == {Moved: 1, Outranked: 1}


def test_a_retry_opens_the_next_attempt_at_the_minimum_of_its_status() -> None:
    failed = Position(1, "error", 97.5)
    judgement = judge(STREAM, failed, [Request(2, "mp4downloading"), Request(1, "complete", observed=True)])
    assert judgement.position == Position(2, "mp4downloading", 85.0)
    assert isinstance(judgement.verdicts[1], Refused)


def test_of_two_retries_the_further_one_wins() -> None:
    failed = Position(1, "error", 20.0)
    judgement = judge(STREAM, failed, [Request(2, "uploading"), Request(2, "stream_ready")])
    assert judgement.position == Position(2, "stream_ready", 60.0)


def test_progress_stays_when_the_clip_does() -> None:
    at = Position(1, "processing", 57.31)
    assert judge(STREAM, at, [Request(1, "queued"), Request(1, "complete")]).position == at


def test_a_later_attempt_stands_above_every_status_of_an_earlier_one() -> None:
    opened, ended = Request(2, "uploading"), Request(1, "error", insists=True)
    assert merge_requested(STREAM, [ended, opened]) == merge_requested(STREAM, [opened, ended]) == opened


def test_nothing_merges_to_nothing() -> None:
    assert merge_requested(STREAM, []) is None


requests_of_all_kinds = st.builds(
    Request,
    attempt=st.integers(0, 4),
    status=st.sampled_from([*NAMES, "sleeping"]),
    observed=st.booleans(),
    insists=st.booleans(),
    hearsay=st.booleans(),
)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    status = draw(st.sampled_from(NAMES))
    low, high = span(status) if status != "error" else (15.0, 99.99)
    return Position(draw(st.integers(1, 3)), status, round(draw(st.floats(low, high)), 2))


@settings(max_examples=400, deadline=None)
@given(positions(), st.lists(requests_of_all_kinds, max_size=8), st.data())
def test_order_and_number_do_not_change_the_outcome(at: Position, requests: list[Request], data: st.DataObject) -> None:
    repeats = data.draw(st.lists(st.sampled_from(requests), max_size=5)) if requests else []
    shuffled = data.draw(st.permutations(requests + repeats))
    once, again = judge(STREAM, at, requests), judge(STREAM, at, shuffled)
    assert again.position == once.position
    # The verdict on a request is the same too; only which of several alike is the one that moved may differ.
    refused_once = {
        asked: v for asked, v in zip(requests, once.verdicts, strict=True) if isinstance(v, Refused | Noted)
    }
    refused_again = {
        asked: v for asked, v in zip(shuffled, again.verdicts, strict=True) if isinstance(v, Refused | Noted)
    }
    assert refused_again == refused_once
    assert again.asks_for_a_look == once.asks_for_a_look


@settings(max_examples=400, deadline=None)
@given(positions(), st.lists(requests_of_all_kinds, max_size=8))
def test_a_judgement_only_does_what_the_rules_allow(at: Position, requests: list[Request]) -> None:
    judgement = judge(STREAM, at, requests)
    moved = [asked for asked, v in zip(requests, judgement.verdicts, strict=True) if isinstance(v, Moved)]
    assert len(judgement.verdicts) == len(requests)
    assert len(moved) <= 1
    if not moved:
        assert judgement.position == at
        return
    (winner,) = moved
    after = judgement.position
    assert refusal(STREAM, at, winner) is None
    assert not needs_evidence(STREAM, at, winner)
    assert (after.attempt, after.status) == (winner.attempt, winner.status)
    assert after.attempt > at.attempt or after.progress >= at.progress
    low, high = span(after.status)
    assert after.status == "error" or low <= after.progress <= high


@settings(max_examples=300, deadline=None)
@given(positions(), st.lists(requests_of_all_kinds, max_size=6))
def test_error_is_never_lost(at: Position, requests: list[Request]) -> None:
    """An error of the present attempt ends the clip, unless it is complete by then."""
    judgement = judge(STREAM, at, [*requests, Request(at.attempt, "error")])
    # A failed clip may be opened anew by one of the others; what was asked of the attempt that is over is over.
    assert judgement.position.status in ("error", "complete") or (
        at.status == "error" and judgement.position.attempt > 1
    )
    if judgement.position.status == "complete":
        assert at.status == "complete" or seen("complete", at.attempt) in [
            Request(r.attempt, r.status, r.observed) for r in requests
        ]
