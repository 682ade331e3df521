"""What follows for a job of the cut pipeline: a pure function of the row and the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from orchestrator.pipelines.cut.effects import (
    AnalyzeVideo,
    CheckClips,
    ClearWork,
    CutClips,
    CutEffect,
    ExportClips,
    PrepareFile,
    PublishClips,
)
from orchestrator.pipelines.cut.limits import LIMITS
from orchestrator.pipelines.cut.ranges import Range, checked
from orchestrator.pipelines.cut.request import request_in
from orchestrator.pipelines.limits import retry_time
from orchestrator.pipelines.terms import LookKind, Pipeline, Plan, Step
from orchestrator.storage.clips import Clip
from statusutils import COMPLETE, CUT, ERROR

# Everything a job waits for happens on this machine and reports by itself: nothing has to be looked at.
NOTHING = LookKind("nothing", 500)
# While an effect runs, a look only finds out whether it still does.
WHILE_WORKING = timedelta(seconds=5)

# What people are told of a job that stands at a status.
WORDS: Mapping[str, str] = {
    "pending": "its upload is being taken over",
    "prepared": "its upload is safe in the job's own directory",
    "analyzing": "the video is being read, to settle what is cut of it",
    "clipping": "its clips are being cut by ffmpeg, one after another",
    "exporting": "its clips are being moved to where they are served",
    "finalizing": "its clips are being checked where they are served",
    COMPLETE: "its clips are whole and served",
}


def look_kind(clip: Clip) -> LookKind:
    """Nothing has to be seen before a job can be planned."""
    return NOTHING


def plan(clip: Clip, seen: Any, now: datetime) -> Plan:
    """What should be so for the job now."""
    if clip.status in (COMPLETE, ERROR):
        return _tidy_up(clip, now)
    return _PLANS[clip.status](clip, now)


def resume_status(clip: Clip) -> str | None:
    """A new attempt starts over with the same upload; whether its bytes are still there is found out then."""
    return None if clip.processing_details.get("delete_requested") else "pending"


def ranges_in(details: Mapping[str, Any]) -> tuple[Range, ...]:
    """The pieces as the analysis settled them; empty when it has not, or when somebody spoiled them."""
    settled = details.get("ranges")
    try:
        return checked([Range(float(start), float(end)) for start, end in settled]) if settled else ()
    except (TypeError, ValueError, OverflowError):
        return ()


def _doing(effect: CutEffect, now: datetime) -> Plan:
    return Plan(look_at=now + WHILE_WORKING, effects=(effect,))


def _failed(now: datetime, code: str, text: str) -> Plan:
    return Plan(look_at=now, step=Step(ERROR, text, details={"error_code": code, "error_message": text}))


def _plan_pending(clip: Clip, now: datetime) -> Plan:
    request = request_in(clip.processing_details)
    if request is None:
        return _failed(now, "bad_request", "The job's document does not say what is to be cut")
    return _doing(PrepareFile(clip.id, clip.attempt, request.upload_id), now)


def _plan_prepared(clip: Clip, now: datetime) -> Plan:
    return Plan(look_at=now, step=Step("analyzing", "The file is being read"))


def _plan_analyzing(clip: Clip, now: datetime) -> Plan:
    request = request_in(clip.processing_details)
    if request is None:
        return _failed(now, "bad_request", "The job's document does not say what is to be cut")
    return _doing(AnalyzeVideo(clip.id, clip.attempt, request), now)


def _plan_clipping(clip: Clip, now: datetime) -> Plan:
    ranges, request = ranges_in(clip.processing_details), request_in(clip.processing_details)
    if not ranges or request is None:
        return _failed(now, "no_clips", "No clips were found to cut")
    return _doing(CutClips(clip.id, clip.attempt, ranges, request.is_exact), now)


def _plan_exporting(clip: Clip, now: datetime) -> Plan:
    return _doing(ExportClips(clip.id, clip.attempt, len(ranges_in(clip.processing_details))), now)


def _plan_finalizing(clip: Clip, now: datetime) -> Plan:
    request = request_in(clip.processing_details)
    is_exact = request is None or request.is_exact
    return _doing(CheckClips(clip.id, clip.attempt, ranges_in(clip.processing_details), is_exact), now)


def _tidy_up(clip: Clip, now: datetime) -> Plan:
    details, request = clip.processing_details, request_in(clip.processing_details)
    if retry_time(clip) is not None:
        return Plan(look_at=None)  # the next attempt goes on with what is finished
    wants_more = clip.status == COMPLETE and not details.get("published")
    if wants_more and request is not None and request.publish and request.base_url:
        return _doing(PublishClips(clip.id, clip.attempt, request.publish, request.base_url), now)
    if details.get("cleared") == cleared_mark(clip.attempt, clip.status):
        return Plan(look_at=None)
    # What a job had finished before somebody called it a failure stays, unless it is to be deleted.
    is_deleted = bool(details.get("delete_requested"))
    keeps_outputs = clip.status == COMPLETE or (clip.completed_at is not None and not is_deleted)
    count = len(ranges_in(details))
    return _doing(ClearWork(clip.id, clip.attempt, clip.status, keeps_outputs, count), now)


def cleared_mark(attempt: int, status: str) -> str:
    """What the document says once an end has been tidied up; a later end is tidied up again."""
    return f"{status} {attempt}"


_PLANS: Mapping[str, Callable[[Clip, datetime], Plan]] = {
    "pending": _plan_pending,
    "prepared": _plan_prepared,
    "analyzing": _plan_analyzing,
    "clipping": _plan_clipping,
    "exporting": _plan_exporting,
    "finalizing": _plan_finalizing,
}

CUT_PIPELINE = Pipeline(
    table=CUT, limits=LIMITS, look_kind=look_kind, plan=plan, resume_status=resume_status, words=WORDS
)
