"""What becomes of a clip when something failed for it: another try later, or the end, with the reason. Pure.

Failures are of three kinds. Those of the clip are counted, and end it when its status's tries are used up. Those of
the world around it (the provider away, a person needed) are not counted: they stop the clock of its status for as
long as the limits allow. A fault of ours counts like one of the clip's, so that it ends, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.drivers.errors import DATABASE_AWAY, NEEDS_A_PERSON, DriverError, PermanentError
from orchestrator.monitor.moves import Entry, Move
from orchestrator.monitor.problems import asked_wait, last_problem
from orchestrator.pipelines.limits import TRIES, UNSEEN, Limits, retry_details, unseen_of
from orchestrator.storage.clips import Clip
from statusutils import COMPLETE, ERROR, Position

FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=10)
# What is away is asked again after a quarter of the time it has been away, so that it is not hammered, and within a
# minute of its return.
LONGEST_AWAY_WAIT = timedelta(minutes=1)
# The database that was away is there when this is written.
DATABASE_WAIT = timedelta(seconds=2)
PERSON_WAIT = timedelta(minutes=5)
# The provider itself, or the way to it (calls are counted and noted first), and not what was asked of it.
AWAY = frozenset(
    {DATABASE_AWAY, "ask_not_noted", "call_budget", "provider_unavailable", "provider_rate_limit", "provider_timeout"}
)
# Not the clip's fault either, and the provider is there: such failures wait, and the status's deadline ends them.
# An unknown outcome is no such thing: each one may have made something, so they are counted.
BLAMELESS = AWAY | {"provider_conflict", "provider_busy"}
# What stops the clock. A refused source is one clip's, and a new attempt asks for its address afresh.
STOPS_THE_CLOCK = AWAY | NEEDS_A_PERSON - {"source_forbidden"}

# How often at most it may fail for a reason that time heals soon or never; a new attempt asks for the thing afresh.
# An MP4 that was called ready is at its address within ten minutes, or was taken away again.
TRIES_AT_MOST = {"mp4_not_yet_there": 7}


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed: *what* in words (an effect, a look), why, and when it was begun."""

    what: str
    problem: DriverError
    began_at: datetime


def wait_after(tries: int, retry_after: float | None) -> timedelta:
    """How long to wait after the *tries*-th failure in a row, at least as long as the service asked for."""
    backoff = min(FIRST_WAIT * (1 << min(tries - 1, 16)), LONGEST_WAIT)
    return max(backoff, asked_wait(retry_after))


def after_failure(limits: Limits, clip: Clip, failure: Failure, now: datetime) -> Move:
    """What becomes of *clip* after one failure: another try later, or the end, with the reason."""
    problem = failure.problem
    blameless = problem.code in NEEDS_A_PERSON or problem.code in BLAMELESS
    tries = clip.tries + (0 if blameless else 1)
    limit = limits.get(clip.status)
    allowed = limit.tries if limit is not None else TRIES
    spent = tries >= min(allowed, TRIES_AT_MOST.get(problem.code, allowed))
    gives_up = not blameless and (isinstance(problem, PermanentError) or spent)
    said = {"effect": failure.what, "code": problem.code, "reason": problem.text[:500], "try": max(tries, 1)}
    details: dict[str, Any] = {"last_problem": last_problem(problem, now), **_stopped(clip, failure)}
    before = after = Position(clip.attempt, clip.status, clip.progress)
    # An outage of hours is one line of history, not one for each try that met it. One of the database is none at all:
    # it broke off whatever was at work, of which the clip's history has nothing to tell.
    is_told = blameless and (problem.code == DATABASE_AWAY or _is_known(clip, problem))
    entries = [] if is_told else [Entry("failed-try", clip.attempt, clip.status, clip.status, failure.what, said)]
    look_at: datetime | None = now + _wait(clip, failure, tries, now)
    if gives_up and clip.status in (COMPLETE, ERROR):
        details["gave_up"] = {"effect": failure.what, "at": now.isoformat()}  # tidying up; nobody waits for it
        look_at = None
    elif gives_up:
        after = Position(clip.attempt, ERROR, clip.progress)
        details |= {"error_code": problem.code, "error_message": problem.text[:2000], "error_time": now.isoformat()}
        if not isinstance(problem, PermanentError):
            details |= retry_details(clip, now)
        entries.append(Entry("moved", clip.attempt, clip.status, ERROR, failure.what, said))
        look_at, tries = now, 0
    return Move(clip.id, before, after, clip.look_at, look_at, tries, details=details, entries=tuple(entries))


def _wait(clip: Clip, failure: Failure, tries: int, now: datetime) -> timedelta:
    problem = failure.problem
    if problem.code in NEEDS_A_PERSON:
        return PERSON_WAIT
    asked = getattr(problem, "retry_after", None)
    if problem.code not in AWAY:
        return wait_after(max(tries, 1), asked)
    away_for = now - (unseen_of(clip).since or failure.began_at)
    shortest = DATABASE_WAIT if problem.code == DATABASE_AWAY else FIRST_WAIT
    return max(shortest, min(away_for / 4, LONGEST_AWAY_WAIT), asked_wait(asked))


def _stopped(clip: Clip, failure: Failure) -> dict[str, Any]:
    """The clip's clock, stopped where nobody can do anything for it, running again where somebody could."""
    stopped = unseen_of(clip)
    if clip.status in (COMPLETE, ERROR):
        return {}
    if failure.problem.code in STOPS_THE_CLOCK:
        # Counted up to the last look; the failed work itself is not held against the clip.
        return {UNSEEN: stopped.counted(failure.began_at).began(failure.began_at).as_detail(clip)}
    return {UNSEEN: stopped.ended().as_detail(clip)} if stopped.since is not None else {}


def _is_known(clip: Clip, problem: DriverError) -> bool:
    last = clip.processing_details.get("last_problem")
    return isinstance(last, dict) and last.get("code") == problem.code
