"""How long clips were at each status, told from their history: one clip's, and that of those completed last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import asyncpg

from orchestrator.storage.clips import Event

# What a move says of the last look that saw the clip where it was before; what was seen then came later than that.
NOT_BEFORE = "not_before"
# Clips that were completed last: enough to tell how long things take now, and older ones tell of another day.
_CLIPS = 200
# Lines of history looked at; a clip has about ten, so twice the clips wanted.
_LINES = 4000

# time_to_the_end: for each move of a recently completed clip, how long after it the clip was complete
_TIMES = f"""
WITH recent AS (
    SELECT * FROM clip_events ORDER BY id DESC LIMIT {_LINES}
), ended AS (
    SELECT clip_id, attempt, at FROM recent
     WHERE kind = 'moved' AND to_status = 'complete' ORDER BY id DESC LIMIT {_CLIPS}
)
SELECT c.pipeline, r.to_status AS status, e.clip_id, extract(epoch FROM e.at - min(r.at))::float8 AS seconds,
       min(r.at) AS at, min(r.details ->> '{NOT_BEFORE}') AS not_before,
       c.duration AS duration_seconds, c.processing_details ->> 'upload_size_bytes' AS size_bytes
  FROM ended e JOIN recent r USING (clip_id, attempt) JOIN clips c ON c.id = e.clip_id
 WHERE r.kind IN ('created', 'moved') AND r.to_status <> 'complete'
 GROUP BY c.id, r.to_status, e.clip_id, e.attempt, e.at
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stay at a status; *ended_at* is None while it lasts."""

    status: str
    attempt: int
    began_at: datetime
    ended_at: datetime | None

    def seconds(self, now: datetime) -> float:
        """How long it lasted, or has lasted until *now*."""
        return max(0.0, ((self.ended_at or now) - self.began_at).total_seconds())


def stages_of(events: Sequence[Event]) -> list[Stage]:
    """The stays in the order of time; *events* are the clip's history, oldest first."""
    arrivals = [event for event in events if event.kind in ("created", "moved") and event.to_status]
    ends: list[datetime | None] = [event.at for event in arrivals[1:]]
    return [
        Stage(str(event.to_status), event.attempt, event.at, end)
        for event, end in zip(arrivals, [*ends, None], strict=bool(arrivals))
    ]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A clip's arrival at one status, *seconds* before it was complete.

    It was found within the last *unsure_seconds* before that, so it may have been earlier by as much.
    """

    pipeline: str
    clip_id: str
    status: str
    seconds: float
    unsure_seconds: float = 0.0
    duration_seconds: float | None = None
    size_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Stay:
    """How long one clip was at one status: *seconds* as far as was seen, and *unsure_seconds* fewer at least."""

    arrival: Arrival
    seconds: float
    unsure_seconds: float


async def read_arrivals(connection: asyncpg.Connection) -> list[Arrival]:
    """The arrivals, on the way to their end, of the clips that were completed last."""
    return [_arrival(row) for row in await connection.fetch(_TIMES)]


def _arrival(row: asyncpg.Record) -> Arrival:
    # Anybody may have written into the document and the history: what is no time and no number is passed over.
    size = row["size_bytes"]
    return Arrival(
        row["pipeline"],
        row["clip_id"],
        row["status"],
        row["seconds"],
        _seconds_since(row["not_before"], row["at"]),
        row["duration_seconds"],
        float(size) if isinstance(size, str) and size.isdecimal() and len(size) < 16 else None,
    )


def _seconds_since(moment: str | None, at: datetime) -> float:
    try:
        return max(0.0, (at - datetime.fromisoformat(moment)).total_seconds()) if moment else 0.0
    except (ValueError, TypeError, OverflowError):
        return 0.0


def stays_of(arrivals: Sequence[Arrival]) -> list[Stay]:
    """How long each clip stayed at each status: from its arrival there to the next one's, the last until the end."""
    ways: defaultdict[tuple[str, str], list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        ways[arrival.pipeline, arrival.clip_id].append(arrival)
    stays = []
    for way in ways.values():
        # The farthest from the end comes first.
        for here, after in pairwise([*sorted(way, key=lambda each: each.seconds, reverse=True), None]):
            assert here is not None  # noqa: S101 - only the last is None
            seconds = here.seconds - (after.seconds if after else 0.0)
            stays.append(Stay(here, seconds, min(after.unsure_seconds, seconds) if after else 0.0))
    return stays
