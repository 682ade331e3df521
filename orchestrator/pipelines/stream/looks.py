"""When to look at a clip again: when it is probably done, at the price of a look. Pure: everything goes in.

A look that comes too early costs a call, one that comes too late costs the clip the time it has waited. Clips that went
before tell how long a stay lasts. Of those that stood as long as this one and had not gone on, each was done at some
moment; the look comes when they would on average have waited for as long as one look is worth. So a clip that is
certainly not done is left alone, looks are dense where most clips are done, and grow rarer past the slowest known.

Where calls run short each look has to be worth more, and those that are expected late are put off furthest. Whatever
is expected, `longest_wait` bounds how late a quick clip is found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

# How late a clip is found that goes on earlier than all before it.
LONGEST_INTERVAL = timedelta(seconds=60)
# The same where the calls to the provider are nearly used up: at most four times as late.
LONGEST_STRETCH = 4.0
# Looks that share a call come at the same moments, so that its places are filled.
LONGEST_TICK = timedelta(seconds=5)
# What a look is worth, in shortest intervals of waiting (five seconds each unless the owner says otherwise). A call of
# its own delays no clip by more than ten seconds on average; a place in a list costs a tenth of that, for lists are
# that full when calls matter; an address that is tried costs no call, and yet is a request to somebody.
CALL, ADDRESS, PLACE = 2.0, 0.4, 0.2
# Below half of the bucket calls become dear: four times so at a quarter, and so on.
PLENTY = 0.5

# The stages in which the provider works, by status: the MP4 is made through two statuses that alternate.
STAGES: Mapping[str, str] = {
    "uploading": "uploading",
    "queued": "queued",
    "processing": "processing",
    "stream_ready": "stream_ready",
    "waitformp4": "mp4",
    "mp4_processing": "mp4",
}
# How long a stage lasts at most where nobody has been seen in it yet, in seconds. Chosen: no length is documented. For
# the MP4 others look for up to five minutes; the last renditions are waited for for ten; an hour of video is encoded
# within half an hour. From the shortest interval up to there every length is taken for as likely as its double.
PRIOR_SECONDS: Mapping[str, float] = {
    "uploading": 1800.0,
    "queued": 120.0,
    "processing": 1800.0,
    "stream_ready": 600.0,
    "mp4": 300.0,
}
# Twenty stays tell a ninth tenth from the median; fewer are chance.
SAMPLES_MIN = 20
# More points than this change no look by a second.
POINTS = 40

# Upper edges of the classes: of duration in seconds, of size in bytes.
_DURATIONS = (60.0, 300.0, 1200.0, 3600.0)
_SIZES = (20e6, 200e6, 2e9)
# Before anything is encoded the size alone is known.
_BY_SIZE = ("uploading", "queued")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known at one moment: *stays* by stage and class (None: any), in seconds, shortest first.

    *headroom* is the share of the call budget that is left, *crowd* how many clips the last list was about.
    """

    stays: Mapping[tuple[str, int | None], Sequence[float]] = field(default_factory=dict)
    headroom: float = 1.0
    crowd: int = 0


def class_of(stage: str, duration_seconds: float | None, size_bytes: float | None) -> int | None:
    """The class of clips that take about as long in *stage*; None when that is not known of this one."""
    if stage in _BY_SIZE:
        return None if size_bytes is None else bisect_left(_SIZES, size_bytes)
    return None if duration_seconds is None else bisect_left(_DURATIONS, duration_seconds)


def expected_stays(outlook: Outlook, stage: str, of_class: int | None, shortest_seconds: float) -> Sequence[float]:
    """How long such a clip stays in *stage*: told by its own class, by all, or by nobody yet."""
    for known in (outlook.stays.get((stage, of_class)), outlook.stays.get((stage, None))):
        if known:
            return known
    return _prior(shortest_seconds, PRIOR_SECONDS[stage])


@cache
def _prior(shortest_seconds: float, longest_seconds: float) -> tuple[float, ...]:
    ratio = max(1.0, longest_seconds / shortest_seconds)
    return tuple(shortest_seconds * ratio ** (n / (POINTS - 1)) for n in range(POINTS))


def points_of(stays: Sequence[float]) -> tuple[float, ...]:
    """*stays* as some points that stand for all of them, shortest first; empty when they are too few to tell."""
    if len(stays) < SAMPLES_MIN:
        return ()
    ordered = sorted(stays)
    if len(ordered) <= POINTS:
        return tuple(ordered)
    return tuple(ordered[int((n + 0.5) * len(ordered) / POINTS)] for n in range(POINTS))


def next_look(stood_seconds: float, stays: Sequence[float], worth_seconds: float) -> float:
    """Seconds until those of *stays* that are longer than *stood_seconds* have on average waited *worth_seconds*.

    *stays* come shortest first. A clip that has outlived them all is looked at ever more rarely.
    """
    left = stays[bisect_left(stays, stood_seconds) :]
    if not left:
        return max(worth_seconds, stood_seconds / 8)
    owed = worth_seconds * len(left)
    waited, at = 0.0, 0.0
    for done, stay in enumerate(left):
        until = stay - stood_seconds
        if waited + done * (until - at) >= owed:
            return at + (owed - waited) / done
        waited, at = waited + done * (until - at), until
    return at + (owed - waited) / len(left)


def dearness(headroom: float) -> float:
    """By how much looks are worth more where calls run short: 1 to 100."""
    return max(1.0, (PLENTY / max(headroom, PLENTY / 10)) ** 2)


def longest_wait(headroom: float) -> timedelta:
    """How long a clip is left alone at most."""
    stretch: float = min(LONGEST_STRETCH, dearness(headroom) ** 0.5)
    return LONGEST_INTERVAL * stretch


def tick_of(shortest_interval: timedelta) -> timedelta:
    """How far apart the moments are at which lists are asked for."""
    return min(shortest_interval, LONGEST_TICK)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at_tick(at: datetime, tick: timedelta) -> datetime:
    """The first moment for lists that is not before *at*."""
    return at + (_EPOCH - at) % tick


def is_at_tick(at: datetime, tick: timedelta) -> bool:
    """Whether *at* is a moment for lists: then a plan chose it, and not somebody who wants a look now."""
    return not (_EPOCH - at) % tick
