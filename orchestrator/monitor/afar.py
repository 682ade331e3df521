"""What the leader hears of steps that run on other hosts: their progress, who waits, and what failed.

A worker decides nothing. What it has done it files as a signal, what it could not do lies here until the leader says
what becomes of the clip, by the same rule as for its own effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import asyncpg
import structlog

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.monitor.batches import write_each
from orchestrator.monitor.failures import Failure, after_failure
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Move
from orchestrator.monitor.ticking import Told
from orchestrator.pipelines.terms import Pipeline
from orchestrator.storage.clips import Clip, read_clip
from orchestrator.storage.heavy_steps import Heard, hear_of_workers
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS

log = structlog.get_logger(__name__)

# Failures judged a round; each is a clip that waits by then.
BATCH = 100

_FAILURES = """
SELECT id, clip_id, attempt, effect, code, reason, is_permanent, retry_after, began_at
  FROM worker_failures ORDER BY id LIMIT $1
"""
_JUDGED = "DELETE FROM worker_failures WHERE id = ANY($1::bigint[])"


async def hear(pool: asyncpg.Pool) -> Heard:
    """What there is to hear, in one statement."""
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        return await hear_of_workers(connection)


def told_progress(heard: Heard, pipelines: Mapping[str, Pipeline]) -> dict[tuple[str, int], Told]:
    """The progress of steps elsewhere, as that of the leader's own effects; none of what a newer worker alone knows."""
    return {
        (each["clip_id"], each["attempt"]): Told(each["pipeline"], each["status"], each["percent"])
        for each in heard.progress
        if each["pipeline"] in pipelines and each["status"] in pipelines[each["pipeline"]].table
    }


async def judge_failures(
    pool: asyncpg.Pool, term: Term, pipelines: Mapping[str, Pipeline], clock: Callable[[], datetime]
) -> list[Move]:
    """Say what becomes of the clips whose steps failed on a worker; the moves written.

    A clip whose row is held, or that stands elsewhere by now, is judged in a later round.

    Raises:
        LeadershipLost: another monitor leads.
    """
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection, connection.transaction():
        moves: dict[str, Move] = {}
        of_move: dict[str, int] = {}
        judged = []
        for row in await connection.fetch(_FAILURES, BATCH):
            if row["clip_id"] in moves:
                continue  # one at a time: each counts from what the one before has left
            clip = await read_clip(connection, row["clip_id"])
            if clip is None or clip.attempt != row["attempt"] or clip.pipeline not in pipelines:
                judged.append(row["id"])  # it concerns nobody any more
                continue
            move = _judged(pipelines[clip.pipeline], clip, row, clock())
            if move is None:
                judged.append(row["id"])
            else:
                moves[clip.id], of_move[clip.id] = move, row["id"]
        written = await write_each(connection, term, list(moves.values()))
        judged += [of_move[clip_id] for clip_id in written]
        if judged:
            await connection.execute(_JUDGED, judged)
    return [moves[clip_id] for clip_id in written]


def _judged(pipeline: Pipeline, clip: Clip, row: asyncpg.Record, now: datetime) -> Move | None:
    problem: DriverError = (
        PermanentError(row["code"], row["reason"])
        if row["is_permanent"]
        else TransientError(row["code"], row["reason"], row["retry_after"])
    )
    try:
        return after_failure(pipeline.limits, clip, Failure(row["effect"], problem, row["began_at"]), now)
    except Exception:
        # The edge for one clip: its next look begins the step again, and its deadline ends it.
        log.exception("a failed step could not be judged", clip_id=clip.id)
        return None
