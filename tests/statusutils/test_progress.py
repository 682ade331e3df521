"""What people see: never raw, never back, 100 at complete alone."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statusutils import (
    STREAM,
    StatusTable,
    UnknownStatus,
    advance_progress,
    get_min_progress_for_status,
    get_status_message,
    is_valid_status_transition,
    scale_progress,
    span,
)

NAMES = [row.name for row in STREAM.statuses]
RUNNING = [row.name for row in STREAM.statuses if not row.is_terminal]

SPANS = {
    "uploading": (15, 29.99),
    "queued": (30, 49.99),
    "processing": (50, 59.99),
    "stream_ready": (60, 69.99),
    "waitformp4": (70, 84.99),
    "mp4_processing": (75, 84.99),
    "mp4downloading": (85, 94.99),
    "r2_uploading": (95, 99.99),
    "complete": (100, 100),
    "error": (0, 0),
}
MESSAGES = {
    "uploading": "Uploading to Cloudflare",
    "queued": "Queued at Cloudflare",
    "processing": "Cloudflare is encoding",
    "stream_ready": "Ready to stream, preparing the MP4",
    "waitformp4": "MP4 requested",
    "mp4_processing": "Cloudflare is making the MP4",
    "mp4downloading": "Fetching the MP4",
    "r2_uploading": "Writing the file to your bucket",
    "complete": "Complete",
    "error": "Failed",
}


@pytest.mark.parametrize("status", NAMES)
def test_span_minimum_and_message_of_each_status(status: str) -> None:
    assert span(status) == SPANS[status]
    assert get_min_progress_for_status(status) == SPANS[status][0]
    assert get_status_message(status) == MESSAGES[status]


@pytest.mark.parametrize("ask", [span, get_min_progress_for_status, get_status_message])
def test_an_unknown_status_has_none_of_them(ask: object) -> None:
    with pytest.raises(UnknownStatus):
        ask("sleeping")  # type: ignore[operator]


def test_another_table_has_its_own_spans(other_table: StatusTable) -> None:
    assert span("drafted", other_table) == (0, 39.99)
    assert span("drawn", other_table) == (10, 39.99)
    assert span("rendered", other_table) == (40, 99.99)


@pytest.mark.parametrize(
    ("status", "percent", "shown"),
    [
        pytest.param("processing", 0, 50, id="start-of-a-step"),
        pytest.param("processing", 39, 53.9, id="low-raw-value-is-not-shown-raw"),
        pytest.param("processing", 100, 59.99, id="end-of-a-step-stays-below-the-next"),
        pytest.param("r2_uploading", 100, 99.99, id="all-bytes-written-is-not-complete"),
        pytest.param("waitformp4", 50, 77.5, id="pair-lower"),
        pytest.param("mp4_processing", 50, 80, id="pair-upper"),
        pytest.param("uploading", None, 15, id="unknown-percentage"),
        pytest.param("uploading", math.nan, 15, id="nan"),
        pytest.param("uploading", math.inf, 29.99, id="infinity"),
        pytest.param("uploading", -math.inf, 15, id="minus-infinity"),
        pytest.param("uploading", -20, 15, id="below-0"),
        pytest.param("uploading", 250, 29.99, id="above-100"),
        pytest.param("complete", 3, 100, id="complete"),
    ],
)
def test_a_steps_percentage_is_scaled_into_its_span(status: str, percent: float | None, shown: float) -> None:
    assert scale_progress(status, percent) == pytest.approx(shown, abs=0.006)


@pytest.mark.parametrize(
    ("current", "status", "percent", "shown"),
    [
        pytest.param(55.0, "processing", 10, 55.0, id="a-lower-report-does-not-take-back"),
        pytest.param(55.0, "stream_ready", None, 60.0, id="the-next-minimum-lifts"),
        pytest.param(80.0, "waitformp4", 0, 80.0, id="alternating-does-not-take-back"),
        pytest.param(71.0, "error", 100, 71.0, id="error-stays-where-it-stood"),
        pytest.param(0.0, "error", None, 0.0, id="error-before-anything"),
        pytest.param(95.0, "complete", None, 100.0, id="complete-is-100"),
        pytest.param(95.0, "complete", 3, 100.0, id="complete-whatever-the-step-says"),
    ],
)
def test_progress_advances(current: float, status: str, percent: float | None, shown: float) -> None:
    assert advance_progress(current, status, percent) == shown


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.floats()), max_size=30))
def test_along_any_allowed_way_progress_never_falls_and_never_leaves_its_span(
    reports: list[tuple[str, float | None]],
) -> None:
    status, seen = "uploading", [15.0]
    for wanted, percent in reports:
        if is_valid_status_transition(status, wanted):
            status = wanted
        seen.append(advance_progress(seen[-1], status, percent))
        low, high = span(status)
        assert status == "error" or low <= seen[-1] <= high
        assert status == "complete" or seen[-1] < 100 or seen[-2] == 100
        assert round(seen[-1], 2) == seen[-1], "the column keeps two decimals"
    assert all(before <= after for before, after in pairwise(seen))


def test_spans_follow_each_other_without_touching() -> None:
    for before, after in pairwise(RUNNING):
        if not STREAM.may_alternate(before, after):
            assert span(before)[1] < span(after)[0]
