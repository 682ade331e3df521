"""Holding every clip to the limits of its pipeline: its time at a status ends, and a failed one is tried again. Pure.

A clip whose time is over is looked at once more and fails only if that look does not move it. While it cannot be
seen its clock stands still, for as long as the limits allow; then it fails all the same, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.drivers.errors import DriverError
from orchestrator.monitor.failures import STOPS_THE_CLOCK
from orchestrator.monitor.moves import Entry, Move
from orchestrator.monitor.problems import DATABASE_REFUSED
from orchestrator.pipelines.limits import (
    LATE,
    RETRY_AT,
    RETRY_WAITS,
    UNSEEN,
    Limit,
    Unseen,
    moment,
    retry_time,
    unseen_of,
)
from orchestrator.pipelines.terms import Pipeline, Plan, Step
from orchestrator.storage.clips import Clip
from statusutils import ERROR, Moved, Position, Request, judge

# What a failed attempt leaves in the document; the next one begins without it.
ERROR_DETAILS = ("error_code", "error_message", "error_time", "provider_error_code", RETRY_AT)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look came to: *problem* when nothing could be seen; *waits* when the clip's effect waits for a place."""

    is_looked_for: bool
    problem: DriverError | None = None
    waits: bool = False


def held_to_its_limit(pipeline: Pipeline, clip: Clip, plan: Plan, sight: Sight, now: datetime) -> Plan:
    """*plan*, or the clip's end where its time at the status is over and the plan would leave it there."""
    limit = pipeline.limits.get(clip.status)
    if limit is None:
        return plan
    unseen = _unseen_after(clip, sight, now)
    is_over = now > clip.status_since + limit.stay + unseen.until(now)
    if is_over and (plan.step is None or _was_refused(clip)):
        return _over(clip, limit, unseen, sight, now)
    return _with_clock(clip, plan, unseen)


def next_attempt(pipeline: Pipeline, clip: Clip, now: datetime) -> Move | None:
    """The move that tries a failed clip again by itself, when its time for that has come."""
    retry_at = retry_time(clip)
    resume = pipeline.resume_status(clip) if retry_at is not None and now >= retry_at else None
    if resume is None:
        return None
    before = Position(clip.attempt, clip.status, clip.progress)
    judgement = judge(pipeline.table, before, [Request(clip.attempt + 1, resume)])
    if not isinstance(judgement.verdicts[0], Moved):
        return None
    said = {"reason": f"Tried again by itself: attempt {clip.attempt + 1} of {len(RETRY_WAITS) + 1} at most"}
    entry = Entry("moved", clip.attempt + 1, clip.status, resume, "monitor", said)
    return Move(
        clip.id, before, judgement.position, clip.look_at, now, 0, cleared=(*ERROR_DETAILS, UNSEEN), entries=(entry,)
    )


def held_to_its_retry(pipeline: Pipeline, clip: Clip, plan: Plan, now: datetime) -> Plan:
    """*plan* for an ended clip, with a look at the time at which it is tried again."""
    retry_at = retry_time(clip)
    if retry_at is None:
        return plan
    if pipeline.resume_status(clip) is None:
        return replace(plan, cleared=(*plan.cleared, RETRY_AT))
    return replace(plan, look_at=max(now, min(plan.look_at or retry_at, retry_at)))


def _unseen_after(clip: Clip, sight: Sight, now: datetime) -> Unseen:
    """The time without sight, counted up to this look, and from it on where nothing was seen again."""
    unseen = unseen_of(clip)
    if unseen.at is None and clip.look_at is not None and now - clip.look_at > LATE:
        unseen = replace(unseen, at=clip.look_at)
    unseen = unseen.counted(now)
    if sight.problem is not None:
        return unseen.began(now) if sight.problem.code in STOPS_THE_CLOCK else unseen
    if sight.waits:
        return replace(unseen, at=now)
    return unseen.ended() if sight.is_looked_for else unseen


def _with_clock(clip: Clip, plan: Plan, unseen: Unseen) -> Plan:
    if unseen == Unseen():
        is_kept = UNSEEN in clip.processing_details
        return replace(plan, cleared=(*plan.cleared, UNSEEN)) if is_kept else plan
    return replace(plan, details={**plan.details, UNSEEN: unseen.as_detail(clip)})


def _over(clip: Clip, limit: Limit, unseen: Unseen, sight: Sight, now: datetime) -> Plan:
    words = [limit.says or f"It stood at {clip.status} for more than {_span(limit.stay)}"]
    if unseen.until(now) > LATE:
        words[0] += f", not counting {_hours(unseen.until(now))} in which nothing could be seen of it or done for it"
    if unseen.since is not None:
        words.append(f"the provider could not be reached since {unseen.since:%Y-%m-%d %H:%M:%S} UTC")
    problem = _last_problem(clip, sight)
    if problem:
        words.append(f"the last problem was: {problem}")
    text = "; ".join(words)
    details = {"error_code": "deadline_passed", "error_message": text}
    return Plan(look_at=now, step=Step(ERROR, text, details=details, heals=limit.heals))


def _last_problem(clip: Clip, sight: Sight) -> str | None:
    if sight.problem is not None:
        return f"{sight.problem.text[:300]} ({sight.problem.code})"
    problem = _problem_here(clip)
    return f"{str(problem.get('text'))[:300]} ({str(problem.get('code'))[:50]})" if problem else None


def _problem_here(clip: Clip) -> Mapping[str, Any] | None:
    """What failed last at the present status."""
    problem = clip.processing_details.get("last_problem")
    at = moment(problem.get("at")) if isinstance(problem, Mapping) else None
    return problem if at is not None and at >= clip.status_since else None


def _was_refused(clip: Clip) -> bool:
    """Whether the database refuses to have the clip moved as its plan would: planning the same again ends nowhere."""
    problem = _problem_here(clip)
    return problem is not None and problem.get("code") == DATABASE_REFUSED


def _span(span: timedelta) -> str:
    minutes = span.total_seconds() / 60
    return f"{minutes / 60:g} hours" if minutes >= 120 else f"{minutes:g} minutes"


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} hours"
