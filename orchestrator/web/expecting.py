"""How long a clip still needs, learned from those that went before; silence while too few have.

The history of the clips that were completed last tells how long each needed from each status to the end. The median
of that, less the time the clip has stood at its status, is the estimate. It is read at most once a minute.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median, quantiles
from time import monotonic

import asyncpg
import structlog
from aiohttp import web

from orchestrator.storage.clips import Clip, Standing
from orchestrator.storage.timing import Arrival, read_arrivals, stays_of
from orchestrator.web.views import is_terminal

log = structlog.get_logger(__name__)

# Fewer say nothing about the next one.
SAMPLES_MIN = 5
_FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Usual:
    """How long other clips stayed at a status: half of them, and nine of ten, at most so many seconds."""

    median_seconds: float
    p90_seconds: float


@dataclass
class Expectations:
    """In seconds, by pipeline and status: *medians* and *ranges* to the end, *stages* and *usual* of the stay there.

    A range holds the middle of the field: a quarter of the clips was quicker, a tenth slower. *medians*, *ranges* and
    *usual* are silent where there are too few clips.
    """

    medians: dict[tuple[str, str], float] = field(default_factory=dict)
    ranges: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    stages: dict[tuple[str, str], float] = field(default_factory=dict)
    usual: dict[tuple[str, str], Usual] = field(default_factory=dict)
    _read_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def are_old(self) -> bool:
        """Whether a minute has passed, and nobody reads them just now."""
        return monotonic() - self._read_at >= _FRESH_SECONDS and not self._lock.locked()

    async def refresh(self, connection: asyncpg.Connection) -> None:
        """Read anew if a minute has passed; one caller does, the others go on with what there is."""
        if not self.are_old:
            return
        async with self._lock:
            self._read_at = monotonic()
            times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
            stays: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
            arrivals = await self._arrivals(connection)
            for arrival in arrivals:
                times[arrival.pipeline, arrival.status].append(arrival.seconds)
            for stay in stays_of(arrivals):
                stays[stay.arrival.pipeline, stay.arrival.status].append(stay.seconds)
            enough = {place: each for place, each in times.items() if len(each) >= SAMPLES_MIN}
            self.medians = {place: median(each) for place, each in enough.items()}
            self.ranges = {place: (_quantile(each, 25), _quantile(each, 90)) for place, each in enough.items()}
            self.stages = {place: median(each) for place, each in stays.items()}
            self.usual = {
                place: Usual(median(each), _quantile(each, 90))
                for place, each in stays.items()
                if len(each) >= SAMPLES_MIN
            }

    async def _arrivals(self, connection: asyncpg.Connection) -> list[Arrival]:
        try:
            return await read_arrivals(connection)
        except asyncpg.QueryCanceledError:
            # A slow database answers no status the later for the estimate's sake.
            log.warning("how long clips take could not be read in time")
            return []

    def eta_seconds(self, clip: Clip | Standing, now: datetime) -> float | None:
        """Seconds until *clip* is probably complete; None when nothing honest can be said.

        A clip that has stood longer than the median has outlived the estimate: nothing is said of it, either.
        """
        if is_terminal(clip.status):
            return None
        usual = self.medians.get((clip.pipeline, clip.status))
        if usual is None:
            return None
        left = usual - (now - clip.status_since).total_seconds()
        return float(round(left)) if left >= 1 else None

    def range_seconds(self, clip: Clip, now: datetime) -> tuple[float, float] | None:
        """The range in which *clip* is probably complete, in seconds from *now*; None when nothing honest can be said.

        A clip that has needed longer than nine of ten others is past every estimate.
        """
        usual = None if is_terminal(clip.status) else self.ranges.get((clip.pipeline, clip.status))
        if usual is None:
            return None
        stood = (now - clip.status_since).total_seconds()
        return None if usual[1] - stood < 1 else (max(0.0, usual[0] - stood), usual[1] - stood)


def _quantile(values: list[float], percent: int) -> float:
    """The value below which so many percent of *values* lie, of which there are several."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


EXPECTATIONS: web.AppKey[Expectations] = web.AppKey("expectations", Expectations)
