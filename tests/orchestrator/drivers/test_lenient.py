"""Whatever JSON holds, one value of it becomes what we want or None, and never an error."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drivers import lenient

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
READERS = [
    lenient.text,
    lenient.number,
    lenient.percent,
    lenient.positive,
    lenient.whole,
    lenient.positive_whole,
    lenient.flag,
    lenient.moment,
    lenient.web_address,
    lenient.details,
]


@settings(deadline=None)
@given(value=anything)
def test_no_value_breaks_a_reader_or_gets_through_unfit(value: Any) -> None:
    for read in READERS:
        found = read(value)
        for one in [*found, *found.values()] if isinstance(found, dict) else [found]:
            if isinstance(one, str):
                assert "\0" not in one
                one.encode("utf-8")
            if isinstance(one, float):
                assert math.isfinite(one)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("39.000000", 39.0),
        ("39", 39.0),
        (" 39 ", 39.0),
        ("100.000000", 100.0),
        (39, 39.0),
        (39.5, 39.5),
        ("-1", 0.0),
        ("250", 100.0),
        (250, 100.0),
        ("", None),
        (None, None),
        (True, None),
        ("39%", None),
        ("1e2", None),
        ("nan", None),
        ("inf", None),
        ("1_0", None),
        ("٣٩", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ("9" * 5000, None),
        ([], None),
        ({}, None),
    ],
)
def test_a_percentage_has_many_spellings(value: Any, expected: float | None) -> None:
    assert lenient.percent(value) == expected


@pytest.mark.parametrize("value", [-1, 0, -1.0, "-1", "0", None, "", [], True])
def test_not_known_yet_is_none(value: Any) -> None:
    assert lenient.positive(value) is None
    assert lenient.positive_whole(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        ("5", 5),
        (5.9, 5),
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
        (2**63, None),
        (-1, None),
        (1e300, None),
        (False, None),
        ("²", None),
        ("5 GB", None),
    ],
)
def test_a_count_is_exact_or_none(value: Any, expected: int | None) -> None:
    assert lenient.whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("true", True), ("FALSE", False), ("yes", None), (1, None), (0, None), (None, None)],
)
def test_a_flag_is_said_or_not(value: Any, expected: bool | None) -> None:
    assert lenient.flag(value) is expected


@pytest.mark.parametrize("digits", range(10))
def test_a_time_has_any_number_of_fraction_digits(digits: int) -> None:
    fraction = f".{'123456789'[:digits]}" if digits else ""
    found = lenient.moment(f"2026-01-02T03:04:05{fraction}Z")
    assert found is not None
    assert abs(found - datetime(2026, 1, 2, 3, 4, 5, 123457 if digits else 0, UTC)) < timedelta(seconds=0.1)
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02T05:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("2026-13-02T03:04:05Z", None),
        ("yesterday, I think", None),
        ("", None),
        (1767323045, None),
        (None, None),
    ],
)
def test_a_time_is_in_utc_or_none(value: Any, expected: datetime | None) -> None:
    assert lenient.moment(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "https://customer-x.cloudflarestream.com/uid/manifest/video.m3u8",
        "http://127.0.0.1:8788/uid/thumbnails/thumbnail.jpg?time=1s&height=270",
    ],
)
def test_a_plain_address_is_kept_as_it_is(value: str) -> None:
    assert lenient.web_address(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "//host/x",
        "/x",
        "x",
        "",
        "https://",
        "https://user:secret@host/x",
        "https://host/a b",
        "https://host/a\nb",
        "https://host/\x00",
        'https://host/"onload=x',
        "https://host/<x>",
        "https://good\\@evil/",
        "https://h\u00f6st/",
        "https://host/\ud800",
        "https://[::1",
        "https://host/" + "x" * 3000,
        None,
        5,
        ["https://host/"],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_a_page_must_not_link_to_is_none(value: Any) -> None:
    assert lenient.web_address(value) is None


def test_text_is_cut_and_made_fit_to_be_stored() -> None:
    assert lenient.text("a\0b\ud800c") == "a\ufffdb\ufffdc"
    assert lenient.text("x" * 2000) == "x" * 1024
    assert lenient.text("x" * 2000, 10) == "x" * 10
    assert lenient.text("") is None


def test_of_a_free_object_the_single_values_are_kept() -> None:
    value = {
        "name": "x.mp4",
        "n": 1,
        "f": 0.5,
        "b": True,
        "none": None,
        "list": [1],
        "object": {},
        "": "x",
        "nan": float("nan"),
    }
    assert lenient.details(value) == {"name": "x.mp4", "n": "1", "f": "0.5", "b": "true"}


def test_a_free_object_has_an_end() -> None:
    found = lenient.details({f"{number}" + "k" * 500: "v" * 5000 for number in range(1000)})
    assert len(found) == 32
    assert all(len(key) <= 128 and len(value) <= 1024 for key, value in found.items())


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("could not fetch https://e.org/x.mp4?token=canary", "could not fetch (address)"),
        ("s3://bucket/key?sig=canary was refused: 403", "(address) was refused: 403"),
        ("no video: broken at 5:30", "no video: broken at 5:30"),
        ("", None),
        (5, None),
    ],
)
def test_a_reason_holds_no_address(said: object, kept: str | None) -> None:
    assert lenient.reason(said) == kept
