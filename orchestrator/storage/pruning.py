"""Pruning history by policy: the old lines of clips that have ended, but for how each of their attempts ended.

History is walked once, from its oldest line, in windows; how far is a row of the database, so that whoever comes next
goes on there, after a crash too, and two who prune at once take turns. Each window is a short transaction of its own.
With the lines goes what else such a clip has left: the record of its finished transfers.

A line whose clip was still on its way when the walk came by is found when the walk comes to a later one of that clip,
which it will: the one that ends it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from statusutils import COMPLETE, ERROR

# Lines looked at in one transaction: a tenth of a second, in which about as many are deleted.
WINDOW = 2_000
# Lines deleted in one transaction. More only where a clip has left a flood behind; the window then comes again.
MOST = 5_000
# Each window is followed by a rest that many times as long as it took: four fifths of the time belong to the others.
REST_TIMES = 4.0
# In a row, of one window: more are no coincidence.
_REFUSALS_MAX = 5

_TAKE = "SELECT pruned_through FROM history_pruning FOR UPDATE"
# window: $1 after this line, $2 so many lines, $3 up to the first that is not old. Ids rise with time, but for lines of
# transactions that ran side by side; what is old is days old.
_WINDOW = """
SELECT count(*) AS lines, max(id) FILTER (WHERE id < young) AS through, max(at) FILTER (WHERE id < young) AS at
  FROM (SELECT id, at, coalesce(min(id) FILTER (WHERE at >= $3) OVER (), 9223372036854775807) AS young
          FROM (SELECT id, at FROM clip_events WHERE id > $1 ORDER BY id LIMIT $2) AS next_ones) AS walked
"""
_ENDED = f"('{COMPLETE}', '{ERROR}')"
_IS_END = f"kind = 'moved' AND to_status IN {_ENDED}"
# prune: $1 and $2 the window, $3 what is old, $4 the most. Arrays, so that rows are found by their ids whatever the
# planner thinks of their number.
_PRUNE = f"""
WITH ended AS MATERIALIZED (
    SELECT c.id FROM clips AS c
     WHERE c.id = ANY (ARRAY(SELECT DISTINCT clip_id FROM clip_events WHERE id > $1 AND id <= $2))
       AND c.status IN {_ENDED}
), old AS MATERIALIZED (
    SELECT line.id FROM ended CROSS JOIN LATERAL (
        SELECT id FROM clip_events
         WHERE clip_id = ended.id AND id <= $2 AND at < $3 AND NOT ({_IS_END}) ORDER BY id LIMIT $4) AS line
     LIMIT $4
), gone AS (
    DELETE FROM clip_events WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING 1
), copied AS (
    DELETE FROM transfers WHERE clip_id = ANY (ARRAY(SELECT id FROM ended)) AND finished_at < $3 RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS lines, (SELECT count(*) FROM copied) AS transfers
"""
_ADVANCE = """
UPDATE history_pruning
   SET pruned_through = greatest(pruned_through, $1), pruned_before = greatest(pruned_before, $2),
       pruned_lines = pruned_lines + $3
"""
# count: what _PRUNE would delete of this window alone; each clip by its id, as few of all clips are in it
_COUNT = f"""
SELECT count(*) AS lines, 0::bigint AS transfers FROM clip_events AS e
 WHERE e.id > $1 AND e.id <= $2 AND e.at < $3 AND NOT ({_IS_END})
   AND (SELECT c.status FROM clips AS c WHERE c.id = e.clip_id) IN {_ENDED}
"""
_NOW = "SELECT clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What has come of it so far: *lines* and *transfers* gone, up to the line *through*, written at *at*.

    *is_done* when nothing older than the policy is left to walk through.
    """

    lines: int = 0
    transfers: int = 0
    through: int = 0
    at: datetime | None = None
    is_done: bool = False


async def prune_window(connection: asyncpg.Connection, before: datetime, so_far: Pruned) -> Pruned:
    """Prune the next window of lines from before *before*, in a transaction; *so_far* with it added."""
    async with connection.transaction():
        after = await connection.fetchval(_TAKE)
        window = await connection.fetchrow(_WINDOW, after, WINDOW, before)
        if window["through"] is None:
            return Pruned(so_far.lines, so_far.transfers, after, so_far.at, is_done=True)
        gone = await connection.fetchrow(_PRUNE, after, window["through"], before, MOST)
        comes_again = gone["lines"] >= MOST
        await connection.execute(_ADVANCE, after if comes_again else window["through"], window["at"], gone["lines"])
    is_done = not comes_again and window["lines"] < WINDOW
    through = after if comes_again else window["through"]
    return Pruned(so_far.lines + gone["lines"], so_far.transfers + gone["transfers"], through, window["at"], is_done)


async def count_window(connection: asyncpg.Connection, before: datetime, so_far: Pruned) -> Pruned:
    """Count what there is to prune in the window behind *so_far*, and change nothing."""
    window = await connection.fetchrow(_WINDOW, so_far.through, WINDOW, before)
    if window["through"] is None:
        return Pruned(so_far.lines, so_far.transfers, so_far.through, so_far.at, is_done=True)
    found = await connection.fetchrow(_COUNT, so_far.through, window["through"], before)
    lines = so_far.lines + found["lines"]
    return Pruned(lines, so_far.transfers, window["through"], window["at"], window["lines"] < WINDOW)


Step = Callable[[asyncpg.Connection, datetime, Pruned], Awaitable[Pruned]]


async def walk_history(
    pool: Any,
    keep: timedelta,
    step: Step = prune_window,
    limit_seconds: float = math.inf,
    told: Callable[[Pruned], None] = lambda _: None,
) -> Pruned:
    """Walk until nothing older than *keep* is left, or for *limit_seconds*; *told* hears of each window.

    *keep* is counted back from the database's time at the beginning. Raises as the pool does.
    """
    until = time.monotonic() + limit_seconds
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        before = await connection.fetchval(_NOW) - keep
    so_far = Pruned()
    refused = 0
    while not so_far.is_done and time.monotonic() < until:
        began = time.monotonic()
        try:
            async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                so_far = await step(connection, before, so_far)
            refused = 0
            told(so_far)
        except asyncpg.CheckViolationError:
            # A clip was tried again between being found ended and being deleted of: the next look leaves it out.
            refused += 1
            if refused == _REFUSALS_MAX:
                raise
        if not so_far.is_done:
            await asyncio.sleep(REST_TIMES * (time.monotonic() - began))
    return so_far


# pruned_before: of a history that does not begin with the clip's creation, as every history does that is whole
_PRUNED_BEFORE = """
SELECT nullif(pruned_before, '-infinity') FROM history_pruning
 WHERE (SELECT kind FROM clip_events WHERE clip_id = $1 ORDER BY id LIMIT 1) <> 'created'
"""


async def read_pruned_before(connection: asyncpg.Connection, clip_id: str) -> datetime | None:
    """Where the clip's history has been pruned: before when only the ends of its attempts are kept; else None."""
    before: datetime | None = await connection.fetchval(_PRUNED_BEFORE, clip_id)
    return before
