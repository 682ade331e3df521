"""What may be done to a database, one step each: the program's own functions, on one session of one side.

A step is handed everything that is left to chance, the time included, so that both sides do the same.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg

from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.monitor import effects as monitor_effects
from orchestrator.monitor import leadership
from orchestrator.monitor.batches import write_each
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.failures import Failure, after_failure
from orchestrator.monitor.judging import drain
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.looking import read_due, to_move
from orchestrator.monitor.ticking import Told, write_progress
from orchestrator.pipelines import pipeline_for
from orchestrator.pipelines.terms import Plan, Step
from orchestrator.storage import pruning
from orchestrator.storage.clips import read_clip, read_clip_by_uid, read_events, read_standings, read_versions
from orchestrator.web import creation
from signals import (
    Asked,
    Signal,
    SignalError,
    signal_retry,
    signal_status_update,
    signal_status_updates,
    update_processing_details,
)
from signals.pending import read_pending
from twins.sides import OnePool, Side

# Longer than any run of the machine: a lease ends here when a step says so.
LEASE_SECONDS = 3600.0
# Before and after whatever is written in a run.
LONG_AGO, LONG_AFTER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

Do = Callable[[Side], Awaitable[Any]]


async def outcome(side: Side, do: Do) -> tuple[str, Any]:
    """What became of a step: its value, or the error by name and constraint."""
    try:
        return "value", await do(side)
    except asyncpg.PostgresError as problem:
        return type(problem).__name__, problem.constraint_name
    except (asyncpg.InterfaceError, LeadershipLost) as problem:
        return type(problem).__name__, None
    except SignalError as problem:
        cause = problem.__cause__
        return type(problem).__name__, cause.constraint_name if isinstance(cause, asyncpg.PostgresError) else None


def create(session: str, clip_id: str, uid: str | None, title: str | None, details: str, url: str | None) -> Do:
    async def do(side: Side) -> Any:
        values = (clip_id, "stream", uid, title, details, url, None)
        return await side.sessions[session].fetchval(creation._INSERT, *values)

    return do


def signal(session: str, clip_id: str, status: str, details: Mapping[str, Any], source: str, **marks: Any) -> Do:
    return lambda side: signal_status_update(side.sessions[session], clip_id, status, details, source, **marks)


def signals_together(session: str, asked: Sequence[Signal], *, waits: bool) -> Do:
    """Several at once; what became of each, an outcome with its names and an error by its own."""

    async def do(side: Side) -> Any:
        outcomes = await signal_status_updates(side.sessions[session], asked, waits=waits)
        return [str(one) if isinstance(one, Asked) else type(one).__name__ for one in outcomes]

    return do


def standing(session: str, clip_id: str) -> Do:
    """Where a clip stands, as those who poll are told, but for the moments."""

    async def do(side: Side) -> Any:
        asked = [clip_id, "nobody"]
        found = (await read_standings(side.sessions[session], asked)).get(clip_id)
        versions = await read_versions(side.sessions[session], asked)
        return versions, found and (found.status, found.progress, found.error_message, found.version)

    return do


def details(session: str, clip_id: str, added: Mapping[str, Any]) -> Do:
    return lambda side: update_processing_details(side.sessions[session], clip_id, added)


def retry(session: str, clip_id: str, resume_at: str) -> Do:
    return lambda side: signal_retry(side.sessions[session], clip_id, resume_at, "api")


def by_hand(session: str, statement: str, *args: Any) -> Do:
    return lambda side: side.sessions[session].execute(statement, *args)


def copy_in(session: str, records: list[tuple[Any, ...]]) -> Do:
    return lambda side: side.copy_in(session, records)


def take(session: str) -> Do:
    async def do(side: Side) -> Any:
        epoch = await side.sessions[session].fetchval(leadership._TAKE, session, LEASE_SECONDS)
        if epoch is not None:
            side.terms[session] = Term(session, epoch)
        return epoch

    return do


def renew(session: str, age_seconds: float | None) -> Do:
    async def do(side: Side) -> Any:
        term = _term(side, session)
        values = (term.holder, term.epoch, LEASE_SECONDS, age_seconds)
        return await side.sessions[session].fetchval(leadership._RENEW, *values)

    return do


def release(session: str) -> Do:
    async def do(side: Side) -> Any:
        term = _term(side, session)
        return await side.sessions[session].execute(leadership._RELEASE, term.holder, term.epoch)

    return do


def judge(session: str, now: datetime) -> Do:
    """Drain the inbox, as the monitor does."""

    async def do(side: Side) -> Any:
        moves = await drain(OnePool(side.sessions[session]), _term(side, session), lambda: now)  # type: ignore[arg-type]
        return sorted((move.clip_id, move.after.status, move.after.attempt, move.judged) for move in moves)

    return do


def look(session: str, clip_id: str) -> Do:
    """Read a clip; what is written later goes by what was read here."""

    async def do(side: Side) -> Any:
        clip = await read_clip(side.sessions[session], clip_id)
        if clip is None:
            return None
        side.pictures[clip_id] = clip
        return clip.status, clip.progress, clip.attempt, clip.pending, clip.tries, clip.version

    return do


def move(session: str, clip_id: str, plan: Plan, now: datetime) -> Do:
    """Write a plan for the clip as it was read."""

    async def do(side: Side) -> Any:
        clip = side.pictures.get(clip_id)
        if clip is None:
            return None
        return await _write(side, session, [to_move(pipeline_for(clip.pipeline), clip, plan, now)])

    return do


def move_all(session: str, status: str, now: datetime) -> Do:
    """Write a plan for every clip as it was read, in one batch."""

    async def do(side: Side) -> Any:
        plan = Plan(now, Step(status, "seen"))
        clips = [side.pictures[clip_id] for clip_id in sorted(side.pictures)]
        return await _write(side, session, [to_move(pipeline_for(clip.pipeline), clip, plan, now) for clip in clips])

    return do


def fail(session: str, clip_id: str, now: datetime, is_final: bool) -> Do:
    """Write that an effect failed."""

    async def do(side: Side) -> Any:
        clip = side.pictures.get(clip_id)
        if clip is None:
            return None
        problem = PermanentError("p", "no") if is_final else TransientError("t", "not now", retry_after=7200)
        failure = Failure("enable-mp4", problem, now)
        return await _write(side, session, [after_failure(pipeline_for(clip.pipeline).limits, clip, failure, now)])

    return do


def tick(session: str, told: dict[tuple[str, int], Told]) -> Do:
    return lambda side: write_progress(OnePool(side.sessions[session]), _term(side, session), told)  # type: ignore[arg-type]


def report(session: str, clip_id: str, attempt: int, status: str, said: Mapping[str, Any]) -> Do:
    """File a step that an effect has seen."""
    values = (clip_id, attempt, status, "step", json.dumps(said))
    return lambda side: side.sessions[session].execute(monitor_effects._REPORT, *_leading(side, session), *values)


def merge_report(session: str, clip_id: str, attempt: int, said: Mapping[str, Any]) -> Do:
    """Merge what an effect found out."""
    values = (clip_id, json.dumps(said), attempt)
    return lambda side: side.sessions[session].execute(monitor_effects._MERGE, *_leading(side, session), *values)


def read(session: str, clip_id: str, uid: str) -> Do:
    """Every way of reading, as its session sees it."""

    async def do(side: Side) -> Any:
        connection = side.sessions[session]
        clip = await read_clip(connection, clip_id)
        by_uid = await read_clip_by_uid(connection, uid)
        events = await read_events(connection, clip_id)
        pending = await read_pending(connection, clip_id)
        due = await read_due(OnePool(connection), ["stream"], ["b"])  # type: ignore[arg-type]
        return (
            clip and (clip.status, clip.progress, clip.attempt, clip.pending, clip.version, clip.title),
            by_uid and by_uid.id,
            [(event.kind, event.from_status, event.to_status, event.progress, event.source) for event in events],
            [(one.requested_status, one.attempt, one.source) for one in pending],
            sorted(one.id for one in due),
        )

    return do


def prune(session: str) -> Do:
    """As a leader does who finds nothing old: what is old enough to go is beyond a simulated run."""
    return lambda side: pruning.prune_window(side.sessions[session], LONG_AGO, pruning.Pruned())


def walk(session: str, lines: int, before: datetime) -> Do:
    """What a window of so many lines holds; its numbers and moments are each database's own."""

    async def do(side: Side) -> Any:
        found = await side.sessions[session].fetchrow(pruning._WINDOW, 0, lines, before)
        return found["lines"], found["through"] is None, found["at"] is None

    return do


def begin(session: str) -> Do:
    """Open a transaction, or a savepoint in the one that is open."""

    async def do(side: Side) -> Any:
        transaction = side.sessions[session].transaction()
        await transaction.start()
        side.transactions[session].append(transaction)

    return do


def end(session: str, *, commits: bool) -> Do:
    """End the innermost of the session's transactions."""

    async def do(side: Side) -> Any:
        if not side.transactions[session]:
            return
        transaction = side.transactions[session].pop()
        await (transaction.commit() if commits else transaction.rollback())

    return do


def kill(session: str) -> Do:
    return lambda side: side.kill(session)


async def _write(side: Side, session: str, moves: list[Any]) -> Any:
    connection = side.sessions[session]
    async with connection.transaction():
        return sorted(await write_each(connection, _term(side, session), moves))


def _leading(side: Side, session: str) -> tuple[str, int]:
    term = _term(side, session)
    return term.holder, term.epoch


def _term(side: Side, session: str) -> Term:
    return side.terms.get(session, Term(session, 0))
