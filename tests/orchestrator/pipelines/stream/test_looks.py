"""When a look comes: when those who stood as long have on average waited for what a look is worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pipelines.stream.looks import (
    POINTS,
    PRIOR_SECONDS,
    SAMPLES_MIN,
    STAGES,
    Outlook,
    at_tick,
    class_of,
    dearness,
    expected_stays,
    is_at_tick,
    next_look,
    points_of,
)

stays = st.lists(st.floats(0.1, 1e5), min_size=1, max_size=50).map(sorted)


@given(stays, st.floats(0, 1e5), st.floats(0.1, 1000))
def test_by_the_look_the_others_have_on_average_waited_for_its_worth(
    lasted: list[float], stood: float, worth: float
) -> None:
    wait = next_look(stood, lasted, worth)
    others = [stay for stay in lasted if stay >= stood]
    if others:
        assert fmean(max(0.0, stood + wait - stay) for stay in others) == pytest.approx(worth, rel=1e-6, abs=1e-6)
    else:
        assert wait == max(worth, stood / 8)


@given(stays, st.floats(0, 1e5), st.floats(0.1, 1000))
def test_dearer_looks_come_later(lasted: list[float], stood: float, worth: float) -> None:
    assert next_look(stood, lasted, 2 * worth) >= next_look(stood, lasted, worth)


def test_what_is_certain_is_looked_at_once_and_what_is_not_more_often() -> None:
    assert next_look(0, (60.0,) * 20, 1) == 61
    spread = tuple(float(3 * n) for n in range(1, 41))
    looks, at = 0, 0.0
    while at < spread[-1]:
        at += next_look(at, spread, 1)
        looks += 1
    # Two minutes of doubt: at first a tenth of them between two looks, at the end a second.
    assert 8 <= looks <= 20


def test_too_few_say_nothing_and_many_are_told_by_some() -> None:
    assert points_of([5.0] * (SAMPLES_MIN - 1)) == ()
    assert points_of([3.0, 1.0] * SAMPLES_MIN)[:1] == (1.0,)
    many = points_of([float(n) for n in range(1000)])
    assert len(many) == POINTS
    assert abs(fmean(many) - 499.5) < 13


def test_a_class_that_is_not_known_is_told_by_all_and_without_a_history_by_nobody() -> None:
    known = Outlook({("processing", 1): (10.0,), ("processing", None): (20.0,)})
    assert expected_stays(known, "processing", 1, 5) == (10.0,)
    assert expected_stays(known, "processing", 4, 5) == (20.0,)
    for stage in set(STAGES.values()):
        prior = expected_stays(Outlook(), stage, None, 5)
        assert (prior[0], round(prior[-1])) == (5.0, PRIOR_SECONDS[stage])
        assert list(prior) == sorted(prior)


@pytest.mark.parametrize(
    ("stage", "duration", "size", "expected"),
    [
        ("uploading", None, None, None),
        ("uploading", 90.0, 10e6, 0),
        ("queued", None, 500e6, 2),
        ("processing", None, 10e6, None),
        ("processing", 59.0, None, 0),
        ("mp4", 60.5, 1.0, 1),
        ("mp4", 1e6, None, 4),
    ],
)
def test_classes_go_by_size_before_the_encoding_and_by_duration_after(
    stage: str, duration: float | None, size: float | None, expected: int | None
) -> None:
    assert class_of(stage, duration, size) == expected


def test_calls_become_dear_below_half_of_the_bucket() -> None:
    assert [dearness(left) for left in (1.0, 0.5, 0.25, 0.05, 0.0)] == pytest.approx([1, 1, 4, 100, 100])


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.integers(1, 5_000_000).map(lambda us: timedelta(microseconds=us)),
)
def test_the_next_tick_is_never_past_and_never_further_than_one(at: datetime, tick: timedelta) -> None:
    then = at_tick(at, tick)
    assert timedelta(0) <= then - at < tick
    assert is_at_tick(then, tick)
    assert at_tick(then, tick) == then
