"""How long a clip was at each status, told from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.storage.clips import Event


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
