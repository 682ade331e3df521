"""Looking at clips that are due: observe many per call, plan each, write, start what follows.

Level-triggered: whatever woke the monitor, each look reads the row afresh and asks what should be so.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import structlog

from orchestrator.drivers.errors import DriverError, TransientError
from orchestrator.monitor.batches import write_each
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move
from orchestrator.monitor.problems import asked_wait, last_problem
from orchestrator.pipelines.terms import Effect, Hands, LookKind, Pipeline, Plan
from orchestrator.storage.clips import COLUMNS, Clip, clip_from_row
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY
from statusutils import Position, Request, advance_progress, judge
from statusutils.merging import Moved, Refused

log = structlog.get_logger(__name__)

# Clips read a round; more that are due are read in the next one, at once.
DUE_BATCH = 500
# A provider that cannot be seen is asked again after this, with jitter, so that clips do not come in step.
UNSEEN_WAIT = timedelta(seconds=20)
# Where a person has to act first (a revoked token, say), looking more often only costs calls.
REFUSED_WAIT = timedelta(minutes=5)
# A clip that cannot even be planned waits for a person or a new version.
POISON_WAIT = timedelta(minutes=10)

_DUE = f"""
SELECT {COLUMNS} FROM clips
 WHERE look_at <= clock_timestamp() AND id <> ALL($1::text[]) AND pipeline = ANY($2::text[])
 ORDER BY look_at LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Clips that one look covers."""

    pipeline: str
    kind: LookKind
    clips: tuple[Clip, ...]


async def read_due(pool: asyncpg.Pool, pipelines: Collection[str], but_not: Sequence[str]) -> list[Clip]:
    """The clips of *pipelines* whose time has come, the longest waiting first, *but_not* those being looked at."""
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        rows = await connection.fetch(_DUE, list(but_not), list(pipelines), DUE_BATCH)
    return [clip_from_row(row) for row in rows]


def group(pipelines: Mapping[str, Pipeline], clips: Sequence[Clip]) -> list[Group]:
    """The looks it takes to see *clips*."""
    by_kind: defaultdict[tuple[str, LookKind], list[Clip]] = defaultdict(list)
    for clip in clips:
        pipeline = pipelines.get(clip.pipeline)
        if pipeline is None:
            log.error(
                "a clip belongs to a pipeline this program does not have", clip_id=clip.id, pipeline=clip.pipeline
            )
            continue
        by_kind[clip.pipeline, pipeline.look_kind(clip)].append(clip)
    return [
        Group(name, kind, tuple(of_kind[start : start + kind.batch]))
        for (name, kind), of_kind in by_kind.items()
        for start in range(0, len(of_kind), kind.batch)
    ]


async def look(
    pool: asyncpg.Pool, term: Term, pipeline: Pipeline, hands: Hands, looked_at: Group, clock: Callable[[], datetime]
) -> tuple[list[Move], list[Effect]]:
    """Look at one group; the moves written, and the effects to start now.

    Raises:
        LeadershipLost: another monitor leads.
    """
    try:
        seen = await hands.observe(looked_at.kind, looked_at.clips) if looked_at.kind.name != "nothing" else {}
        plans = {clip.id: _plan(pipeline, clip, seen.get(clip.id), clock()) for clip in looked_at.clips}
    except DriverError as problem:
        log.warning("clips could not be looked at", clips=len(looked_at.clips), code=problem.code, reason=problem.text)
        plans = {clip.id: unseen(clip, problem, clock(), random.random()) for clip in looked_at.clips}  # noqa: S311
    except DATABASE_AWAY:
        raise
    except Exception:
        # The edge for one look: find the clip that breaks it, so that it holds up no other.
        log.exception("a look broke", clip_ids=[clip.id for clip in looked_at.clips])
        if len(looked_at.clips) > 1:
            return await _look_at_each(pool, term, pipeline, hands, looked_at, clock)
        plans = {clip.id: Plan(look_at=clock() + POISON_WAIT) for clip in looked_at.clips}
    moves = [to_move(pipeline, clip, plans[clip.id]) for clip in looked_at.clips]
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection, connection.transaction():
        written = await write_each(connection, term, moves)
    effects = [effect for clip in looked_at.clips if clip.id in written for effect in plans[clip.id].effects]
    return [move for move in moves if move.clip_id in written], effects


async def _look_at_each(
    pool: asyncpg.Pool, term: Term, pipeline: Pipeline, hands: Hands, looked_at: Group, clock: Callable[[], datetime]
) -> tuple[list[Move], list[Effect]]:
    moves: list[Move] = []
    effects: list[Effect] = []
    for clip in looked_at.clips:
        alone = replace(looked_at, clips=(clip,))
        moves_of_one, effects_of_one = await look(pool, term, pipeline, hands, alone, clock)
        moves += moves_of_one
        effects += effects_of_one
    return moves, effects


def _plan(pipeline: Pipeline, clip: Clip, seen: Any, now: datetime) -> Plan:
    try:
        return pipeline.plan(clip, seen, now)
    except Exception:
        # The edge for one clip: whatever is wrong with it may not hold up the others.
        log.exception("a clip could not be planned", clip_id=clip.id)
        return Plan(look_at=now + POISON_WAIT)


def unseen(clip: Clip, problem: DriverError, now: datetime, jitter: float) -> Plan:
    """What follows when nothing could be seen: the clip stands, the next look is put off. *jitter* is 0-1."""
    wait = REFUSED_WAIT
    if isinstance(problem, TransientError):
        wait = max(UNSEEN_WAIT, asked_wait(problem.retry_after))
    details = {"last_problem": last_problem(problem, now)}
    return Plan(look_at=now + wait * (1 + jitter / 2), details=details)


def to_move(pipeline: Pipeline, clip: Clip, plan: Plan) -> Move:
    """A plan as something to write: its step is judged by the same law as everybody's request."""
    before = Position(clip.attempt, clip.status, clip.progress)
    still = Move(
        clip_id=clip.id,
        before=before,
        after=replace(before, progress=advance_progress(clip.progress, clip.status, plan.step_percent, pipeline.table)),
        seen_look_at=clip.look_at,
        look_at=plan.look_at,
        tries=None,
        facts=plan.facts,
        details=plan.details,
    )
    if plan.step is None:
        return still
    step = plan.step
    judgement = judge(pipeline.table, before, [Request(clip.attempt, step.status, observed=True)])
    verdict = judgement.verdicts[0]
    said = {"reason": step.reason, **step.details}
    if isinstance(verdict, Refused):
        said |= {"rule": verdict.rule.name}
    kind = "moved" if isinstance(verdict, Moved) else "refused"
    after = judgement.position
    if after.status == step.status:
        after = replace(
            after, progress=advance_progress(after.progress, step.status, plan.step_percent, pipeline.table)
        )
    details = {**plan.details, **step.details}
    if step.status == "error":
        details["error_time"] = said["error_time"] = _time_of(plan)
    return replace(
        still,
        after=after,
        tries=0,
        facts={**plan.facts, **step.facts},
        details=details,
        entries=(Entry(kind, clip.attempt, clip.status, step.status, "monitor", said),),
    )


def _time_of(plan: Plan) -> str | None:
    return plan.look_at.isoformat() if plan.look_at else None
