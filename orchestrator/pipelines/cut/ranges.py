"""Which pieces of a video are wanted: given one by one, or as even slices; checked against its real duration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A clip shorter than this holds no frame at 24 frames a second.
SHORTEST_SECONDS = 0.05
# Containers round their duration; a range may end this much behind it.
END_TOLERANCE_SECONDS = 0.05
# As many as the automatic mode of the systems before this one made unasked; explicit ranges have the same bound.
MOST_CLIPS = 500


@dataclass(frozen=True, slots=True)
class Range:
    """A piece of the source, in seconds from its start."""

    start_seconds: float
    end_seconds: float

    @property
    def length_seconds(self) -> float:
        """How long the piece is."""
        return self.end_seconds - self.start_seconds

    def __str__(self) -> str:
        return f"{self.start_seconds:g}-{self.end_seconds:g} s"


class BadRange(ValueError):
    """A range that cannot be cut; the text names it and says why."""

    def __init__(self, number: int, wanted: Range, why: str) -> None:
        super().__init__(f"clips[{number}] ({wanted}) {why}")
        self.number = number


def checked(wanted: Sequence[Range], duration_seconds: float | None = None) -> tuple[Range, ...]:
    """*wanted*, each piece inside the video; an end in the last rounding of the duration is moved to it.

    Without a duration only what can be said without the video is checked.

    Raises:
        BadRange: the first one that cannot be cut.
    """
    return tuple(_checked(number, each, duration_seconds) for number, each in enumerate(wanted))


def _checked(number: int, wanted: Range, duration_seconds: float | None) -> Range:
    if not 0 <= wanted.start_seconds < float("inf"):
        raise BadRange(number, wanted, "starts before the video does")
    if not wanted.start_seconds < wanted.end_seconds < float("inf"):
        raise BadRange(number, wanted, "does not end after its start")
    if wanted.length_seconds < SHORTEST_SECONDS:
        raise BadRange(number, wanted, f"is shorter than {SHORTEST_SECONDS:g} s")
    if duration_seconds is None:
        return wanted
    if wanted.end_seconds > duration_seconds + END_TOLERANCE_SECONDS:
        raise BadRange(number, wanted, f"ends behind the video, which is {duration_seconds:.3f} s long")
    end_seconds = min(wanted.end_seconds, duration_seconds)
    if end_seconds - wanted.start_seconds < SHORTEST_SECONDS:
        raise BadRange(number, wanted, f"starts where the video ends, at {duration_seconds:.3f} s")
    return Range(wanted.start_seconds, end_seconds)


def slices(duration_seconds: float, clip_seconds: float, most: int) -> tuple[Range, ...]:
    """Even pieces of *clip_seconds* from the start, at most *most*; the last one may be shorter."""
    pieces = []
    for number in range(most):
        start_seconds = number * clip_seconds
        if duration_seconds - start_seconds < SHORTEST_SECONDS:
            break
        pieces.append(Range(start_seconds, min((number + 1) * clip_seconds, duration_seconds)))
    return tuple(pieces)
