"""Clip ids: in the order of time, unlike each other, and able to tell a slip of the pen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import identifiers
from orchestrator.identifiers import mint_clip_id, minted_at

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


@given(moments, moments)
def test_ids_sort_by_time(one: datetime, other: datetime) -> None:
    earlier, later = sorted((one, other))
    if later - earlier >= timedelta(milliseconds=1):
        assert mint_clip_id(earlier) < mint_clip_id(later)


@given(moments)
def test_an_id_tells_when_it_was_made(moment: datetime) -> None:
    told = minted_at(mint_clip_id(moment))
    assert told is not None
    assert abs(told - moment) <= timedelta(milliseconds=1)


def test_ids_of_one_moment_differ() -> None:
    assert len({mint_clip_id(NOW) for _ in range(1000)}) == 1000


def test_an_id_fits_the_column_a_path_and_a_notification() -> None:
    clip_id = mint_clip_id(NOW)
    assert len(clip_id) == 24
    assert clip_id.isascii()
    assert clip_id.isalnum()
    assert clip_id == clip_id.lower()


@given(moments, st.integers(0, 23), st.sampled_from(identifiers._ALPHABET))
def test_any_single_wrong_character_shows(moment: datetime, place: int, letter: str) -> None:
    clip_id = mint_clip_id(moment)
    changed = clip_id[:place] + letter + clip_id[place + 1 :]
    assert (minted_at(changed) is not None) == (changed == clip_id)


def test_every_single_wrong_character_shows_in_one_id() -> None:
    clip_id = mint_clip_id(NOW)
    wrong = [
        clip_id[:place] + letter + clip_id[place + 1 :]
        for place in range(24)
        for letter in identifiers._ALPHABET
        if letter != clip_id[place]
    ]
    assert len(wrong) == 24 * 31
    assert [text for text in wrong if minted_at(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "x" * 24,
        "z" * 24,
        "0" * 23,
        "0" * 25,
        "ilou" * 6,
        "../../../../etc/passwd00",
        "0" * 23 + "\n",
        "é" * 24,
    ],
)
def test_what_was_never_an_id_has_no_moment(text: str) -> None:
    assert minted_at(text) is None


def test_an_id_in_capitals_is_not_ours() -> None:
    clip_id = mint_clip_id(NOW)
    assert minted_at(clip_id.upper()) is None


def test_a_moment_beyond_all_calendars_is_no_moment() -> None:
    body = "z" * 10 + "0" * 13
    assert minted_at(body + identifiers._check_character(body)) is None
