"""Heavy steps that workers take: the queue, who takes from it, and what is told of it.

The queue's table is PgQueuer's (decision 0015), filled here by plain SQL, so that only a worker needs the package.
A job says no more than *which* step of *which* attempt: whoever takes it reads the clip afresh and asks the plan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import asyncpg

# All that is timed about holding a job comes from these two, for workers and monitors alike. Three renewals fit into
# one hold, so that one that is lost does no harm; a dead worker's jobs are another's after ten seconds and one look.
HOLD_SECONDS = 10.0
RENEWAL_SECONDS = 3.0
# Jobs that wait for a worker, of one kind. Who finds no room asks again at the next look.
MAX_QUEUED = 1000
# What a worker has filed is judged within a second or two; what is older than this holds up nothing any more.
_UNJUDGED_SECONDS = 60.0
# Progress that nobody has renewed is not told again.
_FRESH_SECONDS = 5.0

# enqueue_heavy_steps: $1 kinds, $2 keys, $3 payloads, $4 the hold, $5 room, $6 how long what was filed is waited for.
# The keys that are the workers', and whether they have a job. Where no worker lives, what nobody holds is taken back.
_ENQUEUE = """
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS a(kind, key, payload)
), served AS (
    SELECT DISTINCT a.kind FROM asked a JOIN workers w ON a.kind = ANY(w.kinds)
     WHERE w.seen_at > clock_timestamp() - make_interval(secs => $4)
), free AS MATERIALIZED (
    SELECT q.id FROM clip_pgqueuer q JOIN asked a ON a.key = q.dedupe_key
     WHERE a.kind NOT IN (SELECT kind FROM served)
       AND (q.status = 'queued'
            OR (q.status = 'picked' AND q.heartbeat < clock_timestamp() - make_interval(secs => $4)))
       FOR UPDATE OF q SKIP LOCKED
), taken_back AS (
    DELETE FROM clip_pgqueuer USING free WHERE clip_pgqueuer.id = free.id RETURNING dedupe_key
), queued AS (
    INSERT INTO clip_pgqueuer (priority, entrypoint, dedupe_key, payload, status)
    SELECT 0, a.kind, a.key, convert_to(a.payload, 'UTF8'), 'queued' FROM asked a JOIN served USING (kind)
     WHERE (SELECT count(*) FROM (SELECT FROM clip_pgqueuer q
                                   WHERE q.entrypoint = a.kind AND q.status = 'queued' LIMIT $5) AS waiting) < $5
       -- What is done or has failed, and is not judged yet, is not begun again.
       AND NOT EXISTS (SELECT FROM clip_signals s
                        WHERE s.clip_id = a.payload::jsonb ->> 'clip_id' AND s.observed
                          AND s.source = a.payload::jsonb ->> 'effect')
       AND NOT EXISTS (SELECT FROM worker_failures f
                        WHERE f.clip_id = a.payload::jsonb ->> 'clip_id' AND f.effect = a.payload::jsonb ->> 'effect'
                          AND f.at > clock_timestamp() - make_interval(secs => $6))
    ON CONFLICT (dedupe_key)
     WHERE (status = ANY (ARRAY['queued'::clip_pgqueuer_status, 'picked'::clip_pgqueuer_status]))
       AND dedupe_key IS NOT NULL DO NOTHING
    RETURNING dedupe_key
), afar AS (
    SELECT dedupe_key FROM queued
    UNION SELECT q.dedupe_key FROM clip_pgqueuer q JOIN asked a ON a.key = q.dedupe_key
           WHERE q.status IN ('queued', 'picked') AND q.dedupe_key NOT IN (SELECT dedupe_key FROM taken_back)
)
SELECT a.key, a.key IN (SELECT dedupe_key FROM afar) AS has_job FROM asked a
 WHERE a.kind IN (SELECT kind FROM served) OR a.key IN (SELECT dedupe_key FROM afar)
"""

# heard_of_workers: $1 how old progress may be, $2 the most clips that are told to wait
_HEARD = """
SELECT EXISTS (SELECT FROM workers) AS is_used,
       ARRAY(SELECT split_part(dedupe_key, '/', 1) FROM clip_pgqueuer
              WHERE status = 'queued' ORDER BY id LIMIT $2) AS waiting,
       EXISTS (SELECT FROM worker_failures) AS has_failures,
       (SELECT coalesce(jsonb_agg(p), '[]') FROM (
            SELECT clip_id, attempt, pipeline, status, percent FROM worker_progress
             WHERE told_at > clock_timestamp() - make_interval(secs => $1)) AS p)::text AS progress
"""

# What no clip needs any more: jobs of attempts that are over, and words about work that has long ended.
_TIDY = (
    """
    DELETE FROM clip_pgqueuer q WHERE status = 'queued' AND created < clock_timestamp() - interval '1 hour'
       AND NOT EXISTS (SELECT FROM clips c WHERE c.id = split_part(q.dedupe_key, '/', 1)
                          AND c.attempt::text = split_part(q.dedupe_key, '/', 2) AND c.look_at IS NOT NULL)
    """,
    "DELETE FROM clip_pgqueuer_log WHERE created < clock_timestamp() - interval '1 day'",
    "DELETE FROM worker_progress WHERE told_at < clock_timestamp() - interval '1 hour'",
    "DELETE FROM workers WHERE seen_at < clock_timestamp() - interval '1 day'",
)

# workers_at_work: $1 the hold
_AT_WORK = """
SELECT w.id::text AS id, w.name, w.kinds, w.places, w.started_at,
       (SELECT count(*) FROM clip_pgqueuer q WHERE q.queue_manager_id = w.id AND q.status = 'picked') AS running
  FROM workers w WHERE w.seen_at > clock_timestamp() - make_interval(secs => $1) ORDER BY w.started_at, w.id LIMIT 200
"""
# steps_on_hand: $1 the most that are counted
_ON_HAND = """
SELECT (SELECT count(*) FROM (SELECT FROM clip_pgqueuer WHERE status = 'queued' LIMIT $1) AS q) AS queued,
       (SELECT count(*) FROM (SELECT FROM clip_pgqueuer WHERE status = 'picked' LIMIT $1) AS p) AS running
"""
# step_of_clip: $1 the clip, $2 the hold
_OF_CLIP = """
SELECT q.entrypoint AS kind, q.status = 'picked' AS is_running, w.name AS worker,
       EXISTS (SELECT FROM workers o WHERE q.entrypoint = ANY(o.kinds)
                  AND o.seen_at > clock_timestamp() - make_interval(secs => $2)) AS is_served
  FROM clip_pgqueuer q
  LEFT JOIN workers w ON w.id = q.queue_manager_id AND w.seen_at > clock_timestamp() - make_interval(secs => $2)
 WHERE q.dedupe_key LIKE $1 AND q.status IN ('queued', 'picked') LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class HeavyStep:
    """One step of one attempt, for whoever takes jobs of its *kind*; *effect* is its name among the pipeline's."""

    kind: str
    pipeline: str
    clip_id: str
    attempt: int
    effect: str

    @property
    def key(self) -> str:
        """What the same step always has, and no other."""
        return f"{self.clip_id}/{self.attempt}/{self.effect}"

    @property
    def payload(self) -> str:
        """The job's content: ``{"kind": …, "pipeline": …, "clip_id": …, "attempt": 1, "effect": …}``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_payload(cls, payload: bytes) -> HeavyStep:
        """The step a job is about.

        Raises:
            ValueError, TypeError: somebody else has put it there.
        """
        return cls(**json.loads(payload))


@dataclass(frozen=True, slots=True)
class Heard:
    """What the leader hears of the workers: clips that *waiting* for one, and how far running steps are."""

    is_used: bool
    waiting: frozenset[str]
    has_failures: bool
    progress: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class WorkerAtWork:
    """A worker that lives, and how many of its places are taken."""

    id: str
    name: str
    kinds: tuple[str, ...]
    places: int
    running: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class StepOnHand:
    """Where a clip's heavy step is: on the worker of that name, or waiting for one; *is_served* when one lives."""

    kind: str
    is_running: bool
    worker: str | None
    is_served: bool


async def enqueue_steps(connection: asyncpg.Connection, steps: Sequence[HeavyStep]) -> dict[str, bool]:
    """Queue *steps* in the caller's transaction; the keys of those that are the workers', with whether they have a job.

    One that is queued already stays as it is; one that finds no room, or whose end is not judged yet, has none until a
    later look asks again. Where no worker lives that takes its kind, it is not queued, and one
    that nobody holds is taken back: its key is left out, and the caller does it itself.
    """
    rows = await connection.fetch(
        _ENQUEUE,
        [step.kind for step in steps],
        [step.key for step in steps],
        [step.payload for step in steps],
        HOLD_SECONDS,
        MAX_QUEUED,
        _UNJUDGED_SECONDS,
    )
    return {row["key"]: row["has_job"] for row in rows}


async def hear_of_workers(connection: asyncpg.Connection) -> Heard:
    """One statement over tables that hold no more than what runs and waits now."""
    row = await connection.fetchrow(_HEARD, _FRESH_SECONDS, MAX_QUEUED)
    told = tuple(json.loads(row["progress"]))
    return Heard(row["is_used"], frozenset(row["waiting"]), row["has_failures"], told)


async def tidy_steps(connection: asyncpg.Connection) -> None:
    """Forget what no clip needs any more; safe to repeat."""
    for statement in _TIDY:
        await connection.execute(statement)


async def read_workers(connection: asyncpg.Connection) -> list[WorkerAtWork]:
    """The workers that live, the oldest first."""
    rows = await connection.fetch(_AT_WORK, HOLD_SECONDS)
    return [WorkerAtWork(**{**row, "kinds": tuple(row["kinds"])}) for row in rows]


async def count_steps(connection: asyncpg.Connection) -> tuple[int, int]:
    """How many steps wait for a worker, and how many run on one; each counted up to ten times the queue's bound."""
    row = await connection.fetchrow(_ON_HAND, 10 * MAX_QUEUED)
    return row["queued"], row["running"]


async def read_step_of(connection: asyncpg.Connection, clip_id: str) -> StepOnHand | None:
    """Where the clip's heavy step is; None when no worker has anything to do with it."""
    # An id has letters, digits, - and _ alone; the last is a wildcard here.
    row = await connection.fetchrow(_OF_CLIP, clip_id.replace("_", r"\_") + "/%", HOLD_SECONDS)
    return None if row is None else StepOnHand(**row)
