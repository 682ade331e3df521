"""What a worker writes about a job: each statement asks in itself whether the job is still this worker's.

PgQueuer's own statements for a heartbeat and for an end go by the job's id alone, so that a worker that was paused
could prolong or end what another one does by now. These go by the holder, too: a worker that came late changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from orchestrator.drivers.database import connection_of
from orchestrator.drivers.errors import DriverError, PermanentError
from orchestrator.pipelines.terms import Done, Step
from orchestrator.storage.heavy_steps import HeavyStep
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from orchestrator.worker.errors import HoldLost
from signals import wake

# be_seen: $1 this worker, $2 its name, $3 the kinds it takes, $4 its places
_BE_SEEN = """
INSERT INTO workers (id, name, kinds, places) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
_BE_GONE = "DELETE FROM workers WHERE id = $1"

# renew: $1 this worker, $2 the jobs it is at. Those it still holds, and whether their clip still wants them.
_RENEW = """
UPDATE clip_pgqueuer q SET heartbeat = clock_timestamp()
 WHERE q.id = ANY($2::bigint[]) AND q.queue_manager_id = $1 AND q.status = 'picked'
RETURNING q.id, EXISTS (
    SELECT FROM clips c WHERE c.id = split_part(q.dedupe_key, '/', 1)
       AND c.attempt::text = split_part(q.dedupe_key, '/', 2) AND c.status NOT IN ('complete', 'error')) AS is_wanted
"""

_HELD = "id = $1 AND queue_manager_id = $2 AND status = 'picked'"
_FILE_STEP = f"""
WITH held AS MATERIALIZED (SELECT FROM clip_pgqueuer WHERE {_HELD} FOR SHARE)
INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, observed)
SELECT $3, $4, $5, $6, $7::jsonb, true FROM held
"""
_FILE_END = f"""
WITH held AS (DELETE FROM clip_pgqueuer WHERE {_HELD} RETURNING id)
INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, observed)
SELECT $3, $4, $5, $6, $7::jsonb, true FROM held
"""
_FILE_FAILURE = f"""
WITH held AS (DELETE FROM clip_pgqueuer WHERE {_HELD} RETURNING id)
INSERT INTO worker_failures (clip_id, attempt, effect, code, reason, is_permanent, retry_after, began_at)
SELECT $3, $4, $5, $6, $7, $8, $9, $10 FROM held
"""
_DROP = f"DELETE FROM clip_pgqueuer WHERE {_HELD}"
_BACK = "UPDATE clip_pgqueuer SET status = 'queued', queue_manager_id = NULL, updated = clock_timestamp()"
_GIVE_BACK = f"{_BACK} WHERE {_HELD}"
_GIVE_ALL_BACK = f"{_BACK} WHERE queue_manager_id = $1 AND status = 'picked'"

# tell: $1 progress. A bar that is late is put right by the next second's figures.
_TELL = """
INSERT INTO worker_progress (clip_id, attempt, pipeline, status, percent)
SELECT clip_id, attempt, pipeline, status, percent FROM jsonb_to_recordset($1::jsonb)
    AS t(clip_id text, attempt integer, pipeline text, status text, percent double precision)
 ORDER BY clip_id
ON CONFLICT (clip_id, attempt) DO UPDATE
   SET pipeline = excluded.pipeline, status = excluded.status, percent = excluded.percent, told_at = clock_timestamp()
"""
# has_unjudged: whether the step has ended on another worker, and nobody has judged it yet
_HAS_UNJUDGED = """
SELECT EXISTS (SELECT FROM clip_signals WHERE clip_id = $1 AND attempt = $2 AND observed AND source = $3)
    OR EXISTS (SELECT FROM worker_failures WHERE clip_id = $1 AND attempt = $2 AND effect = $3)
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that this worker has taken."""

    id: int
    step: HeavyStep


class Filing:
    """The statements of one worker, whose identity is *me*."""

    def __init__(self, pool: asyncpg.Pool, me: UUID) -> None:
        self._pool = pool
        self._me = me

    async def be_seen(self, name: str, kinds: Sequence[str], places: int) -> None:
        """Say that this worker lives: jobs are queued only while one does."""
        await self._execute(_BE_SEEN, self._me, name, list(kinds), places)

    async def be_gone(self) -> None:
        """Say that it does not live any more, rather than leave that to be found out."""
        await self._execute(_BE_GONE, self._me)

    async def renew(self, job_ids: Sequence[int]) -> dict[int, bool]:
        """The jobs that are held for a further while, with whether their clip still wants them."""
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            rows = await connection.fetch(_RENEW, self._me, list(job_ids))
        return {row["id"]: row["is_wanted"] for row in rows}

    async def step(self, taken: Taken, step: Step) -> None:
        """File *step*, in the middle of the job, as a signal that rests on something seen.

        Raises:
            HoldLost: the job is another's; nothing was filed.
            DatabaseAwayError: it may have been filed.
        """
        await self._file(_FILE_STEP, taken, step.status, taken.step.effect, _said(step, {}))

    async def end(self, taken: Taken, done: Done) -> None:
        """End the job, and file what it came to as a signal in the same statement.

        Raises:
            HoldLost: the job is another's; nothing was filed.
            DatabaseAwayError: it may have been filed.
        """
        if done.step is None:
            raise TypeError(f"{taken.step.effect} ended without a step")
        await self._file(_FILE_END, taken, done.step.status, taken.step.effect, _said(done.step, done.details))

    async def failure(self, taken: Taken, problem: DriverError, began_at: datetime) -> None:
        """End the job, and leave its failure to the leader's judgement.

        Raises:
            HoldLost: the job is another's; nothing was filed.
            DatabaseAwayError: it may have been filed.
        """
        await self._file(
            _FILE_FAILURE,
            taken,
            taken.step.effect,
            problem.code,
            problem.text[:2000],
            isinstance(problem, PermanentError),
            getattr(problem, "retry_after", None),
            began_at,
        )

    async def drop(self, taken: Taken) -> None:
        """End the job without a word: nobody wants it any more. Harmless when it is another's."""
        await self._execute(_DROP, taken.id, self._me)

    async def give_back(self, taken: Taken) -> None:
        """Let another worker go on at once. Harmless when one does."""
        await self._execute(_GIVE_BACK, taken.id, self._me)

    async def give_all_back(self) -> None:
        """The same for whatever this worker still holds."""
        await self._execute(_GIVE_ALL_BACK, self._me)

    async def tell(self, progress: Sequence[Mapping[str, Any]]) -> None:
        """Say how far jobs are."""
        await self._execute(_TELL, json.dumps(list(progress)))

    async def has_unjudged(self, connection: asyncpg.Connection, step: HeavyStep) -> bool:
        """Whether the step has told something that the leader has not judged yet."""
        return bool(await connection.fetchval(_HAS_UNJUDGED, step.clip_id, step.attempt, step.effect))

    async def _execute(self, statement: str, *values: object) -> None:
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            await connection.execute(statement, *values)

    async def _file(self, statement: str, taken: Taken, *values: object) -> None:
        step = taken.step
        async with connection_of(self._pool) as connection:
            filed = await connection.execute(statement, taken.id, self._me, step.clip_id, step.attempt, *values)
            if filed == "INSERT 0 0":
                raise HoldLost(f"job {taken.id} is not ours any more")
            await wake(connection)


def _said(step: Step, details: Mapping[str, Any]) -> str:
    return json.dumps({"reason": step.reason, "facts": dict(step.facts), **step.details, **details})
