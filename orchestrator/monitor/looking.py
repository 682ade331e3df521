"""Looking at clips that are due: observe many per call, plan each, write, start what follows.

Level-triggered: whatever woke the monitor, each look reads the row afresh and asks what should be so.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import structlog

from orchestrator.drivers.errors import DriverError, TransientError
from orchestrator.monitor.batches import write_each
from orchestrator.monitor.cancelling import is_being_cancelled
from orchestrator.monitor.deadlines import Sight, held_to_its_limit, held_to_its_retry, next_attempt
from orchestrator.monitor.failures import BLAMELESS, STOPS_THE_CLOCK, Failure, after_failure
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move
from orchestrator.monitor.problems import asked_wait, broken, last_problem
from orchestrator.pipelines.limits import retry_details
from orchestrator.pipelines.terms import Effect, Hands, LookKind, Pipeline, Plan
from orchestrator.storage.clips import COLUMNS, Clip, clip_from_row
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from statusutils import ERROR, Position, Request, advance_progress, judge
from statusutils.merging import Moved, Refused

log = structlog.get_logger(__name__)

# Clips read a round; more that are due are read in the next one, at once.
DUE_BATCH = 500
# A provider that cannot be seen is asked again after this, with jitter, so that clips do not come in step.
UNSEEN_WAIT = timedelta(seconds=20)
# Where a person has to act first (a revoked token, say), looking more often only costs calls.
REFUSED_WAIT = timedelta(minutes=5)
# Three tries of one call, each with its wait for the call budget; a look that hangs may not keep its place for ever.
LOOK_SECONDS = 180.0
# A clip at a status that only a newer version knows waits for it.
POISON_WAIT = timedelta(minutes=10)
# The kind of look that asks nobody, and the one at clips of which nobody can say how to look at them.
NOTHING = "nothing"
BROKEN = LookKind("broken", 500)

# The time of the statement, which an index can be asked for: by the clock of each row, all that waits would be read.
_DUE = f"""
SELECT {COLUMNS} FROM clips
 WHERE look_at <= statement_timestamp() AND id <> ALL($1::text[]) AND pipeline = ANY($2::text[])
 ORDER BY look_at LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Clips that one look covers; *waiting* are those whose effect waits for a place."""

    pipeline: str
    kind: LookKind
    clips: tuple[Clip, ...]
    waiting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Looker:
    """Who looks, in which term, by which time.

    *enqueue* is the seam of heavy steps: in the transaction that moves the clips it is told a pipeline's name and what
    follows for them, and returns what is to be started here.
    """

    pool: asyncpg.Pool
    term: Term
    clock: Callable[[], datetime]
    enqueue: Callable[[asyncpg.Connection, str, Sequence[Effect]], Awaitable[Sequence[Effect]]]


class _Broke:
    """What is seen of a clip that breaks whoever looks at it."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one look came to for one clip."""

    move: Move
    effects: tuple[Effect, ...] = ()


async def read_due(
    pool: asyncpg.Pool,
    pipelines: Collection[str],
    but_not: Sequence[str],
    on_unreadable: Callable[[str], None] = lambda _: None,
) -> list[Clip]:
    """The clips of *pipelines* whose time has come, the longest waiting first, *but_not* those being looked at.

    A row that cannot even be read is left out, and told by its id.
    """
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        rows = await connection.fetch(_DUE, list(but_not), list(pipelines), DUE_BATCH)
    clips = []
    for row in rows:
        try:
            clips.append(clip_from_row(row))
        except Exception:
            # The edge for one row: it may not hide the others.
            log.exception("a clip could not be read", clip_id=row["id"])
            on_unreadable(row["id"])
    return clips


def group(
    pipelines: Mapping[str, Pipeline], clips: Sequence[Clip], waiting: frozenset[str] = frozenset()
) -> list[Group]:
    """The looks it takes to see *clips*, which all belong to *pipelines*; the effects of those *waiting* have no place.

    Clips with failed tries are looked at among themselves: what breaks a look breaks it for none of the others.
    """
    by_kind: defaultdict[tuple[str, LookKind, bool], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_kind[clip.pipeline, _kind(pipelines[clip.pipeline], clip), clip.tries > 0].append(clip)
    return [
        Group(name, kind, tuple(of_kind[start : start + kind.batch]), waiting)
        for (name, kind, _), of_kind in by_kind.items()
        for start in range(0, len(of_kind), kind.batch)
    ]


def _kind(pipeline: Pipeline, clip: Clip) -> LookKind:
    try:
        return pipeline.look_kind(clip)
    except Exception:
        # The edge for one clip, as below.
        log.exception("nobody can say how to look at a clip", clip_id=clip.id)
        return BROKEN


async def look(by: Looker, pipeline: Pipeline, hands: Hands, looked_at: Group) -> tuple[list[Move], Sequence[Effect]]:
    """Look at one group; the moves written, and the effects to start here now.

    Raises:
        LeadershipLost: another monitor leads.
    """
    is_looked_for = looked_at.kind.name not in (NOTHING, BROKEN.name)
    seen = await _observe(hands, looked_at.kind, looked_at.clips) if is_looked_for else {}
    outcomes: dict[str, _Outcome] = {}
    for clip in looked_at.clips:
        sees = _Broke() if looked_at.kind == BROKEN else seen.get(clip.id)
        sight = Sight(is_looked_for, sees if isinstance(sees, DriverError) else None, clip.id in looked_at.waiting)
        outcomes[clip.id] = _outcome(pipeline, clip, sees, sight, by.clock())
    moves = [outcome.move for outcome in outcomes.values()]
    async with by.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection, connection.transaction():
        written = await write_each(connection, by.term, moves)
        follows = [effect for clip_id, outcome in outcomes.items() if clip_id in written for effect in outcome.effects]
        effects = await by.enqueue(connection, looked_at.pipeline, follows)
    return [move for move in moves if move.clip_id in written], effects


async def _observe(hands: Hands, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
    """What is seen of each clip; a look that breaks or is refused is halved, until the clips it is about are found."""
    limit = asyncio.timeout(LOOK_SECONDS)
    try:
        async with limit:
            return dict(await hands.observe(kind, clips))
    except DriverError as problem:
        log.warning("clips could not be looked at", clips=len(clips), code=problem.code, reason=problem.text)
        if len(clips) == 1 or problem.code in STOPS_THE_CLOCK | BLAMELESS:
            return {clip.id: problem for clip in clips}
        # A refusal, and not of everybody: it may concern one of them.
    except (Exception, asyncio.CancelledError):
        if is_being_cancelled():
            raise
        if limit.expired():
            log.warning("a look took too long", clips=len(clips), seconds=LOOK_SECONDS)
            slow = TransientError("provider_timeout", f"The look had not ended after {LOOK_SECONDS:.0f} s")
            return {clip.id: slow for clip in clips}
        # The edge for one look. A database that is away shows itself when the outcome is written.
        log.exception("a look broke", clip_ids=[clip.id for clip in clips])
    if len(clips) == 1:
        return {clips[0].id: _Broke()}
    half = len(clips) // 2
    return {**await _observe(hands, kind, clips[:half]), **await _observe(hands, kind, clips[half:])}


def _outcome(pipeline: Pipeline, clip: Clip, sees: Any, sight: Sight, now: datetime) -> _Outcome:
    try:
        if clip.status not in pipeline.table:
            return _Outcome(_for_a_newer_version(clip, now))
        if not isinstance(sees, _Broke):
            return _followed(pipeline, clip, sees, sight, now)
    except Exception:
        # The edge for one clip: whatever is wrong with it may not hold up the others.
        log.exception("a clip could not be planned", clip_id=clip.id)
    return _Outcome(after_failure(pipeline.limits, clip, Failure("look", broken("A look at the clip"), now), now))


def _followed(pipeline: Pipeline, clip: Clip, sees: Any, sight: Sight, now: datetime) -> _Outcome:
    """What follows by the pipeline's plan and the engine's limits."""
    attempt = next_attempt(pipeline, clip, now) if clip.status == ERROR else None
    if attempt is not None:
        return _Outcome(attempt)
    if sight.problem is not None:
        plan = unseen(clip, sight.problem, now, random.random())  # noqa: S311 (no secret is made)
    else:
        plan = pipeline.plan(clip, sees, now)
    if clip.status == ERROR:
        plan = held_to_its_retry(pipeline, clip, plan, now)
    plan = held_to_its_limit(pipeline, clip, plan, sight, now)
    return _Outcome(to_move(pipeline, clip, plan, now), tuple(plan.effects))


def _for_a_newer_version(clip: Clip, now: datetime) -> Move:
    """A status that a newer version has put the clip at is left to it: this one only looks aside."""
    here = Position(clip.attempt, clip.status, clip.progress)
    return Move(clip.id, here, here, clip.look_at, now + POISON_WAIT, None)


def unseen(clip: Clip, problem: DriverError, now: datetime, jitter: float) -> Plan:
    """What follows when nothing could be seen: the clip stands, the next look is put off. *jitter* is 0-1."""
    wait = REFUSED_WAIT
    if isinstance(problem, TransientError):
        wait = max(UNSEEN_WAIT, asked_wait(problem.retry_after))
    details = {"last_problem": last_problem(problem, now)}
    return Plan(look_at=now + wait * (1 + jitter / 2), details=details)


def to_move(pipeline: Pipeline, clip: Clip, plan: Plan, now: datetime) -> Move:
    """A plan as something to write: its step is judged by the same law as everybody's request, at the time *now*."""
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
        cleared=plan.cleared,
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
    if step.status == ERROR:
        details["error_time"] = said["error_time"] = now.isoformat()
        details |= retry_details(clip, now) if step.heals else {}
    return replace(
        still,
        after=after,
        tries=0,
        facts={**plan.facts, **step.facts},
        details=details,
        entries=(Entry(kind, clip.attempt, clip.status, step.status, "monitor", said),),
    )
