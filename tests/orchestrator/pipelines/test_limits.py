"""The limits as data: every status of every pipeline has them; what a document says of them is believed in bounds."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.monitor.failures import wait_after
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.limits import (
    LONGEST_BLIND,
    RETRY_WAITS,
    Limit,
    Unseen,
    ends_at,
    ends_at_the_latest,
    retry_details,
    retry_time,
    unseen_of,
)
from orchestrator.storage.clips import Clip
from statusutils import TABLES

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
STAY = Limit(timedelta(hours=1))


def clip(status: str = "processing", details: Any = None, attempt: int = 1) -> Clip:
    values: dict[str, Any] = dict.fromkeys(one.name for one in fields(Clip))
    values |= {"id": "c", "pipeline": "stream", "status": status, "attempt": attempt, "status_since": NOW}
    return Clip(**values | {"processing_details": details or {}})


def test_every_status_of_every_pipeline_has_a_time_and_a_budget() -> None:
    assert set(PIPELINES) == set(TABLES)
    for name, pipeline in PIPELINES.items():
        assert set(pipeline.limits) == {row.name for row in TABLES[name].statuses if not row.is_terminal}
        for status, limit in pipeline.limits.items():
            assert timedelta(minutes=5) <= limit.stay <= timedelta(hours=48), status
            spent = sum((wait_after(tries, None) for tries in range(1, limit.tries)), timedelta())
            assert spent < limit.stay, status
            if name == "stream":  # An hour of a failing service uses up no budget.
                assert spent > timedelta(hours=1), status


def test_a_pipeline_that_leaves_out_a_status_is_refused() -> None:
    stream = PIPELINES["stream"]
    few = {status: limit for status, limit in stream.limits.items() if status != "queued"}
    with pytest.raises(ValueError, match="queued"):
        replace(stream, limits=few)
    with pytest.raises(ValueError, match="complete"):
        replace(stream, limits={**stream.limits, "complete": STAY})


def test_the_clock_stands_still_while_nothing_can_be_seen() -> None:
    seen = clip()
    assert ends_at(STAY, seen, NOW) == NOW + timedelta(hours=1)
    away = Unseen().began(NOW).as_detail(seen)
    for minutes in (0, 30, 600):
        later = NOW + timedelta(minutes=minutes)
        assert ends_at(STAY, clip(details={"unseen": away}), later) == later + timedelta(hours=1)
    months = NOW + timedelta(days=90)
    assert ends_at(STAY, clip(details={"unseen": away}), months) == ends_at_the_latest(STAY, seen)
    assert ends_at_the_latest(STAY, seen) == NOW + timedelta(hours=1) + LONGEST_BLIND


def test_times_without_sight_add_up_and_their_beginning_is_kept() -> None:
    unseen = Unseen().began(NOW)
    for n in (1, 2, 3):
        at = NOW + timedelta(minutes=10 * n)
        unseen = unseen.counted(at).began(at)
    assert (unseen.seconds, unseen.since) == (1800.0, NOW)
    seen = unseen.counted(NOW + timedelta(minutes=31)).ended()
    assert (seen.seconds, seen.since, seen.at) == (1860.0, None, None)
    again = seen.began(NOW + timedelta(hours=5))
    assert again.since == NOW + timedelta(hours=5)


@pytest.mark.parametrize(("status", "attempt"), [("queued", 1), ("processing", 2)])
def test_what_was_unseen_counts_for_one_stay_alone(status: str, attempt: int) -> None:
    away = Unseen().began(NOW).as_detail(clip())
    assert unseen_of(clip(status, {"unseen": away}, attempt)) == Unseen()


_JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.none(), max_size=1)
_TIMES = _JUNK | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat())


@given(
    st.fixed_dictionaries(
        {"status": st.just("processing"), "attempt": st.just(1)},
        optional={"since": _TIMES, "at": _TIMES, "seconds": _JUNK},
    )
    | _JUNK,
    _TIMES,
)
def test_whatever_a_stranger_writes_the_end_stays_within_its_bounds(said: Any, retry_at: Any) -> None:
    forged = clip(details={"unseen": said})
    assert NOW + STAY.stay <= ends_at(STAY, forged, NOW + timedelta(days=1)) <= ends_at_the_latest(STAY, forged)
    at = retry_time(clip("error", {"retry_at": retry_at}))
    assert at is None or at.tzinfo is UTC


def test_a_clip_is_tried_again_by_itself_a_few_times_each_time_later() -> None:
    waits = []
    for attempt in range(1, 6):
        details = retry_details(clip(attempt=attempt), NOW)
        at = retry_time(clip("error", details, attempt))
        waits.append(at - NOW if at else None)
    assert waits == [*RETRY_WAITS, None, None, None]
    assert retry_time(clip("error", {"retry_at": NOW.isoformat()}, attempt=9)) is None, "whoever wrote that"
    assert retry_time(clip("complete", {"retry_at": NOW.isoformat()})) is None
