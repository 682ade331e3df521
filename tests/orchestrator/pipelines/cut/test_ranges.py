"""Which pieces are cut: every range that cannot be is refused by its number."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pipelines.cut.ranges import SHORTEST_SECONDS, BadRange, Range, checked, slices


@pytest.mark.parametrize(
    ("wanted", "duration", "says"),
    [
        (Range(-0.1, 1), None, "starts before"),
        (Range(math.nan, 1), None, "starts before"),
        (Range(math.inf, math.inf), None, "starts before"),
        (Range(1, 1), None, "does not end"),
        (Range(2, 1), None, "does not end"),
        (Range(1, math.inf), None, "does not end"),
        (Range(1, math.nan), None, "does not end"),
        (Range(1, 1.01), None, "shorter"),
        (Range(0, 10.2), 10.0, "ends behind"),
        (Range(9.98, 10.04), 10.0, "starts where the video ends"),
    ],
    ids=["early", "nan", "inf", "empty", "backwards", "endless", "nan-end", "short", "behind", "at-the-end"],
)
def test_a_range_that_cannot_be_cut_is_named(wanted: Range, duration: float | None, says: str) -> None:
    with pytest.raises(BadRange, match=says) as caught:
        checked([Range(0, 1), wanted], duration)
    assert caught.value.number == 1
    assert "clips[1]" in str(caught.value)


def test_an_end_within_the_rounding_of_the_duration_is_moved_to_it() -> None:
    assert checked([Range(1, 10.04)], 10.0) == (Range(1, 10.0),)


@given(st.floats(0.01, 1e5), st.floats(0.1, 1e4), st.integers(1, 500))
def test_slices_are_even_adjoining_and_inside(duration: float, length: float, most: int) -> None:
    pieces = slices(duration, length, most)
    assert len(pieces) <= most
    assert bool(pieces) == (duration >= SHORTEST_SECONDS)
    for one, other in pairwise(pieces):
        assert one.end_seconds == other.start_seconds
    for number, piece in enumerate(pieces):
        assert piece.start_seconds == number * length
        assert piece.end_seconds <= duration
        assert piece.length_seconds > 0
    if pieces and len(pieces) < most:
        assert duration - pieces[-1].end_seconds < SHORTEST_SECONDS
