"""What the leader knows of the future: how long stages last, how many calls are left, how many clips wait for lists.

How long stages last is read from the history of the clips that were completed last, every few minutes and by the
leader alone, for nobody else looks. Without it, or while it cannot be read, what was known before holds; a history that
is lost is made up for by `looks.PRIOR_SECONDS`, and by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import asyncpg
import structlog

from orchestrator.pipelines.stream.looks import STAGES, Outlook, class_of, points_of
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY
from orchestrator.storage.timing import Arrival, read_arrivals, stays_of
from statusutils import STREAM

log = structlog.get_logger(__name__)

# Two hundred clips are replaced by others within minutes where there are many, and within days where there are few.
FRESH_SECONDS = 300.0
# A list tells how many clips there are to be looked at, until the next ones should have been asked for.
CROWD_SECONDS = 15.0
# Its multiples, whole parts left out, are spread evenly however many there are, and the same each time.
_GOLDEN = 0.6180339887498949


@dataclass(slots=True)
class Foresight:
    """What is known now; a process has one, shared by the plan that asks and the hands that learn."""

    _stays: dict[tuple[str, int | None], tuple[float, ...]] = field(default_factory=dict)
    _read_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _headroom: float = 1.0
    _crowd: int = 0
    _crowd_at: float = float("-inf")

    def outlook(self) -> Outlook:
        """As it is at this moment."""
        is_crowded = time.monotonic() - self._crowd_at < CROWD_SECONDS
        return Outlook(self._stays, self._headroom, self._crowd if is_crowded else 0)

    def note_calls(self, headroom: float) -> None:
        """Take in which share of the call budget is left."""
        self._headroom = headroom

    def note_list(self, clips: int) -> None:
        """Take in that a list was asked for, about so many clips."""
        self._crowd, self._crowd_at = clips, time.monotonic()

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Read the history anew if some minutes have passed; one caller does, the others go on with what there is."""
        if time.monotonic() - self._read_at < FRESH_SECONDS or self._lock.locked():
            return
        async with self._lock:
            self._read_at = time.monotonic()
            try:
                async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                    self.learn(await read_arrivals(connection))
            except (*DATABASE_AWAY, asyncpg.PostgresError) as problem:
                log.warning("how long clips take could not be read", problem=type(problem).__name__)

    def learn(self, arrivals: Iterable[Arrival]) -> None:
        """Take in the history of other clips."""
        lasted: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        about: dict[str, Arrival] = {}
        stays = stays_of([arrival for arrival in arrivals if arrival.pipeline == STREAM.pipeline])
        for number, stay in enumerate(stays):
            stage = STAGES.get(stay.arrival.status)
            if stage is not None:
                # It ended between two looks. Taken at the later one, stays would grow by as much with each generation;
                # so they are spread over the time between.
                lasted[stay.arrival.clip_id, stage].append(stay.seconds - stay.unsure_seconds * (number * _GOLDEN % 1))
                about[stay.arrival.clip_id] = stay.arrival
        of_class: defaultdict[tuple[str, int | None], list[float]] = defaultdict(list)
        for (clip_id, stage), parts in lasted.items():
            known = class_of(stage, about[clip_id].duration_seconds, about[clip_id].size_bytes)
            for each in {known, None}:
                of_class[stage, each].append(sum(parts))
        self._stays = {key: points for key, stays in of_class.items() if (points := points_of(stays))}
