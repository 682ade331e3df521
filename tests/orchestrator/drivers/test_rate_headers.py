"""The provider's headers about calling again are read as they are meant, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from orchestrator.drivers.rate_headers import (
    RETRY_AFTER_MAX_SECONDS,
    Policy,
    Remaining,
    policies,
    remaining_calls,
    retry_after_seconds,
)

# Fri, 02 Jan 2026 03:04:00 GMT
NOW = 1767323040.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "300"}, 300),
        ({"retry-after": " 300 "}, 300),
        ({"RETRY-AFTER": "1.5"}, 1.5),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "999999999999"}, RETRY_AFTER_MAX_SECONDS),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "five"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "٣٠"}, None),
        ({"Retry-After": "Fri, 02 Jan 2026 03:06:00 GMT"}, 120),
        ({"Retry-After": "Fri, 02 Jan 2026 03:00:00 GMT"}, 1),
        ({"Retry-After": "Fri, 02 Jan 2099 03:00:00 GMT"}, RETRY_AFTER_MAX_SECONDS),
        ({"Retry-After": "Fri, 02 Jan 2026 03:06:00"}, 120),
        ({"Retry-After": "Fri, 99 Jan 2026 03:06:00 GMT"}, None),
        # The provider's own clock counts, wrong or not.
        ({"Retry-After": "Fri, 02 Jan 2026 03:06:00 GMT", "Date": "Fri, 02 Jan 2026 03:05:30 GMT"}, 30),
        ({"Retry-After": "Fri, 02 Jan 2026 03:06:00 GMT", "Date": "long ago"}, 120),
    ],
)
def test_the_time_to_stay_away(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"default";r=50;t=30', [Remaining(50, 30)]),
        ('"default"; r=50 ; t=30', [Remaining(50, 30)]),
        ('"default";r=0', [Remaining(0, None)]),
        ('"default";r=50;t=30, "burst";r=5;t=3', [Remaining(50, 30), Remaining(5, 3)]),
        ("default;r=50;t=30", [Remaining(50, 30)]),
        ('"a,b;r=1;t=1";r=50;t=30', [Remaining(50, 30)]),
        ('"default";t=30', []),
        ('"default";r=5.5;t=30', []),
        ('"default";r=-5', []),
        ('"default";r=99999999999', []),
        ("", []),
        ('"', []),
    ],
)
def test_what_is_left(value: str, expected: list[Remaining]) -> None:
    assert list(remaining_calls({"Ratelimit": value})) == expected


def test_a_header_that_comes_twice_is_one_list() -> None:
    headers = CIMultiDict([("ratelimit", '"a";r=1;t=2'), ("RateLimit", '"b";r=3;t=4')])
    assert list(remaining_calls(headers)) == [Remaining(1, 2), Remaining(3, 4)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"burst";q=100;w=60', [Policy(100, 60)]),
        ('"burst";q=100;w=60, "day";q=1000;w=86400', [Policy(100, 60), Policy(1000, 86400)]),
        ('"burst";q=100', []),
        ('"burst";q=0;w=60', []),
        ('"burst";q=10;w=0', []),
    ],
)
def test_the_limits(value: str, expected: list[Policy]) -> None:
    assert list(policies({"Ratelimit-Policy": value})) == expected


@settings(deadline=None)
@given(value=st.text(max_size=80), date=st.text(max_size=40), now=st.floats(0, 1e10))
def test_no_header_breaks_anything(value: str, date: str, now: float) -> None:
    headers = {"Retry-After": value, "Date": date, "Ratelimit": value, "Ratelimit-Policy": value}
    seconds = retry_after_seconds(headers, now)
    assert seconds is None or 1 <= seconds <= RETRY_AFTER_MAX_SECONDS
    remaining_calls(headers)
    policies(headers)
