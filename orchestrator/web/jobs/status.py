"""Where a job stands, in the words of two former clients; neither is ever answered 404.

GET /api/jobs/{id}/status        pending · processing · done · error
GET /api/v1/jobs/{id}/status     pending · running · done · failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from orchestrator.storage.artifacts import Artifact, read_artifacts
from orchestrator.storage.clips import Clip, Event, read_clip, read_events
from orchestrator.storage.timing import Stage, stages_of
from orchestrator.web.connections import connection_of
from orchestrator.web.jobs.place import output_url
from orchestrator.web.services import services_of
from orchestrator.web.views import CLIP_ID, is_terminal, json_response, message_of, state_of, timestamp, why_unknown
from statusutils import COMPLETE

# How often these clients ask.
POLL_AFTER_MS = 2000
# A job's history has a line for each move and each try; more are no stages.
_LINES = 200
# How long an ended job counts as a fresh answer; its history stays.
HOT = timedelta(hours=1)

# By what the engine says (`State`); every word of the engine has exactly one in each dialect.
WORDS: Mapping[str, Mapping[str, str]] = {
    "jobs": {"pending": "pending", "running": "processing", "done": "done", "failed": "error"},
    "v1": {"pending": "pending", "running": "running", "done": "done", "failed": "failed"},
}


async def show_job(request: web.Request) -> web.Response:
    """The job in the words of ``/api/jobs``."""
    return await _show(request, WORDS["jobs"])


async def show_job_v1(request: web.Request) -> web.Response:
    """The job in the words of ``/api/v1/jobs``."""
    return await _show(request, WORDS["v1"])


async def _show(request: web.Request, words: Mapping[str, str]) -> web.Response:
    job_id = request.match_info["id"]
    clip: Clip | None = None
    artifacts: list[Artifact] = []
    events: list[Event] = []
    if CLIP_ID.fullmatch(job_id):
        async with connection_of(request) as connection:
            clip = await read_clip(connection, job_id)
            if clip is not None:
                events = await read_events(connection, job_id, limit=_LINES)
                artifacts = await read_artifacts(connection, job_id) if clip.status == COMPLETE else []
    if clip is None:
        return json_response(_unknown(request, job_id, words))
    document = _known(request, clip, artifacts, words)
    return json_response(document | {"timings": _timings(clip, stages_of(events), services_of(request).now())})


def _timings(clip: Clip, stages: Sequence[Stage], now: datetime) -> dict[str, Any]:
    """How long the job took so far, and each of its stages in this attempt; ended stages only count to their end."""
    ended_at = clip.status_since if is_terminal(clip.status) else now
    stays = [stage for stage in stages if stage.attempt == clip.attempt and not is_terminal(stage.status)]
    return {
        "total_seconds": round((ended_at - clip.created_at).total_seconds(), 3),
        "stages": [{"stage": stay.status, "seconds": round(stay.seconds(now), 3)} for stay in stays],
    }


def _known(request: web.Request, clip: Clip, artifacts: Sequence[Artifact], words: Mapping[str, str]) -> dict[str, Any]:
    state = state_of(clip.pipeline, clip.status)
    ended = is_terminal(clip.status)
    message = message_of(clip.pipeline, clip.status, clip.error_message)
    urls = [output_url(request, clip.id, each.name) for each in artifacts]
    return {
        "id": clip.id,
        "jobId": clip.id,
        "known": True,
        "expired": ended and services_of(request).now() - clip.status_since > HOT,
        "status": words[state],
        "stage": clip.status,
        "progress": clip.progress,
        "message": f"{message} - 100%" if state == "done" else message,
        "error": (clip.error_message or "Failed") if state == "failed" else None,
        "error_code": clip.processing_details.get("error_code") if state == "failed" else None,
        "result": {"artifacts": [_artifact(clip.id, each, url) for each, url in zip(artifacts, urls, strict=True)]},
        "outputs": urls,
        "attempt": clip.attempt,
        "created_at": timestamp(clip.created_at),
        "updated_at": timestamp(clip.updated_at),
        "poll_after_ms": None if ended else POLL_AFTER_MS,
    }


def _artifact(job_id: str, artifact: Artifact, url: str) -> dict[str, Any]:
    return {
        "id": f"{job_id}_{artifact.number:03d}",
        "url": url,
        "type": "video",
        "format": "mp4",
        "start": artifact.start_seconds,
        "end": artifact.end_seconds,
        "duration": artifact.duration_seconds,
        "size": artifact.size_bytes,
        "clip_id": artifact.published_as,
    }


def _unknown(request: web.Request, job_id: str, words: Mapping[str, str]) -> dict[str, Any]:
    """Not seen yet or never issued: whoever polls is told which, and whether waiting helps."""
    message, may_appear = why_unknown(job_id, services_of(request).now())
    return {
        "id": job_id[:128],
        "jobId": job_id[:128],
        "known": False,
        "expired": False,
        "status": words["pending"],
        "stage": None,
        "progress": 0,
        "message": message,
        "error": None,
        "error_code": None,
        "result": {"artifacts": []},
        "outputs": [],
        "attempt": None,
        "created_at": None,
        "updated_at": None,
        "poll_after_ms": POLL_AFTER_MS if may_appear else None,
    }
