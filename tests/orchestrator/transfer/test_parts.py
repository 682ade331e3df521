"""How a file is cut: equal parts, every byte once, never too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.transfer.parts import MOST_PARTS, missing_parts, part_count, part_size_bytes, part_span

MIB = 1024 * 1024
FLOOR = 16 * MIB


def test_parts_begin_at_multiples_of_their_size():
    spans = [part_span(number, 100, 30) for number in range(1, part_count(100, 30) + 1)]
    assert [(span.start, span.length_bytes) for span in spans] == [(0, 30), (30, 30), (60, 30), (90, 10)]


sizes = st.integers(1, 5 * 1024**4)


@given(sizes)
def test_parts_are_whole_mebibytes_and_never_too_many(size):
    part = part_size_bytes(size, FLOOR)

    assert part >= FLOOR
    assert part % MIB == 0
    assert part_count(size, part) <= MOST_PARTS


@given(st.integers(1, 50_000), st.integers(1, 5_000))
def test_every_byte_is_in_exactly_one_part(size, part):
    spans = [part_span(number, size, part) for number in range(1, part_count(size, part) + 1)]

    assert spans[0].start == 0
    assert [one.start for one in spans[1:]] == [one.last + 1 for one in spans[:-1]]
    assert spans[-1].last == size - 1
    assert {one.length_bytes for one in spans[:-1]} <= {part}
    assert 1 <= spans[-1].length_bytes <= part


@pytest.mark.parametrize(
    ("size", "part"),
    [(1, FLOOR), (30 * 1000**3, FLOOR), (FLOOR * 10_000, FLOOR), (FLOOR * 10_000 + 1, FLOOR + MIB)],
    ids=["tiny", "the-largest-source", "just-enough-parts", "one-byte-too-many"],
)
def test_the_floor_holds_until_it_makes_too_many_parts(size, part):
    assert part_size_bytes(size, FLOOR) == part


def test_missing_parts_are_named_in_order():
    assert missing_parts(45, 10, [2, 4]) == [1, 3, 5]
    assert missing_parts(45, 10, [1, 2, 3, 4, 5]) == []
