"""How long a clip may stay at a status, how often something may fail there, and when a failed one is tried again.

Each pipeline states its limits as one table, a row for every status that is no end; the engine applies them, so that
no plan repeats the rule. The clock of a status stands still while nothing can be seen of the clip or done for it
(the provider is away, a person has to mend a token, no monitor runs), for `LONGEST_BLIND` at most: being away is
not the clip's fault, and yet nothing rests for ever. Pure: the row and the time go in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.storage.clips import Clip
from statusutils import ERROR, StatusTable

# With the waits of the engine, ten seconds doubling to ten minutes, fifteen tries last an hour and a half: what has
# not healed by then heals by a new attempt, if at all.
TRIES = 15
# A token that expired on a Friday evening is mended on Monday.
LONGEST_BLIND = timedelta(hours=72)
# A look that comes later than this was held up by us: nobody led, or the row was held.
LATE = timedelta(minutes=1)
# The waits before the second and the third attempt. An outage that outlasts the tries of one attempt is over in the
# next, or an hour later; what fails three times over needs a person, whose retry is never refused.
RETRY_WAITS = (timedelta(minutes=10), timedelta(hours=1))
# Where a clip's document keeps what stopped its clock, and when it is tried again by itself.
UNSEEN, RETRY_AT = "unseen", "retry_at"


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a clip may *stay* at a status, how many *tries* may fail there, whether a new attempt may heal it.

    *says* is the reason of a clip that stayed too long, where people know one.
    """

    stay: timedelta
    tries: int = TRIES
    heals: bool = True
    says: str | None = None


Limits = Mapping[str, Limit]


def refuse_gaps(table: StatusTable, limits: Limits) -> None:
    """Refuse *limits* that leave out a status, or name one that clips do not stay at.

    Raises:
        ValueError: with the names.
    """
    odd = {status.name for status in table.statuses if not status.is_terminal} ^ set(limits)
    if odd:
        raise ValueError(f"the {table.pipeline} pipeline has no limit, or one too many, for {', '.join(sorted(odd))}")


@dataclass(frozen=True, slots=True)
class Unseen:
    """The time at a status during which nothing could be seen of a clip, or done for it.

    *since* is when that began, None while it can be seen; *at* is from when on the time is not counted yet.
    """

    since: datetime | None = None
    at: datetime | None = None
    seconds: float = 0.0

    def until(self, now: datetime) -> timedelta:
        """All of that time, within its bound."""
        open_seconds = (now - self.at).total_seconds() if self.at is not None else 0.0
        return timedelta(seconds=min(max(self.seconds + open_seconds, 0.0), LONGEST_BLIND.total_seconds()))

    def counted(self, now: datetime) -> Unseen:
        """The same with everything counted up to *now*."""
        return replace(self, at=None, seconds=self.until(now).total_seconds())

    def began(self, at: datetime) -> Unseen:
        """The same, and nothing can be seen from *at* on."""
        return replace(self, since=self.since or at, at=at)

    def ended(self) -> Unseen:
        """The same, and the clip can be seen again."""
        return replace(self, since=None, at=None)

    def as_detail(self, clip: Clip) -> dict[str, Any]:
        """As it stands in the clip's document; it counts for this stay alone."""
        return {
            "status": clip.status,
            "attempt": clip.attempt,
            "since": self.since.isoformat() if self.since else None,
            "at": self.at.isoformat() if self.at else None,
            "seconds": round(self.seconds, 1),
        }


def unseen_of(clip: Clip) -> Unseen:
    """What the document says of it. Anybody may have written there: it is believed within bounds."""
    said = clip.processing_details.get(UNSEEN)
    if not isinstance(said, Mapping) or (said.get("status"), said.get("attempt")) != (clip.status, clip.attempt):
        return Unseen()
    return Unseen(moment(said.get("since")), moment(said.get("at")), _seconds(said.get("seconds")))


def _seconds(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def ends_at(limit: Limit, clip: Clip, now: datetime) -> datetime:
    """When the clip's time at its status is over, as far as that is known *now*."""
    return clip.status_since + limit.stay + unseen_of(clip).until(now)


def ends_at_the_latest(limit: Limit, clip: Clip) -> datetime:
    """When it is over whatever happens."""
    return clip.status_since + limit.stay + LONGEST_BLIND


def retry_time(clip: Clip) -> datetime | None:
    """When a failed clip is tried again by itself; None where it is not."""
    if clip.status != ERROR or clip.attempt > len(RETRY_WAITS):
        return None
    return moment(clip.processing_details.get(RETRY_AT))


def retry_details(clip: Clip, now: datetime) -> dict[str, str]:
    """What a clip that fails now, in a way that may heal, carries along for that."""
    if clip.attempt > len(RETRY_WAITS):
        return {}
    return {RETRY_AT: (now + RETRY_WAITS[clip.attempt - 1]).isoformat()}


def moment(value: object) -> datetime | None:
    """A time that the monitor wrote into the document; None for anything else."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
