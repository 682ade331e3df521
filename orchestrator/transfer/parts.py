"""How a file is cut into parts: pure sums, so that part n is the same bytes before and after a crash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.transfer.jobs import MIB

#: The store's limit on parts of one object.
MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class ByteSpan:
    """`length_bytes` bytes from `start`; never empty."""

    start: int
    length_bytes: int

    @property
    def last(self) -> int:
        return self.start + self.length_bytes - 1


def part_size_bytes(size_bytes: int, floor_bytes: int) -> int:
    """The one size of all parts but the last: the floor, or more, in whole MiB, where that would make too many."""
    needed = -(-size_bytes // MOST_PARTS)
    return floor_bytes if needed <= floor_bytes else -(-needed // MIB) * MIB


def part_count(size_bytes: int, part_bytes: int) -> int:
    """How many parts of *part_bytes* a file of *size_bytes* has."""
    return -(-size_bytes // part_bytes)


def part_span(number: int, size_bytes: int, part_bytes: int) -> ByteSpan:
    """The bytes of part *number*, counted from 1."""
    start = (number - 1) * part_bytes
    return ByteSpan(start, min(part_bytes, size_bytes - start))


def missing_parts(size_bytes: int, part_bytes: int, there: Iterable[int]) -> list[int]:
    """The numbers still to be copied, in order."""
    return sorted(set(range(1, part_count(size_bytes, part_bytes) + 1)) - set(there))
