"""``POST /api/process-video``: what is to be cut, checked and answered at once; the monitor does the work."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

import asyncpg
from aiohttp import web
from pydantic import Field

from orchestrator.drivers.errors import DriverError
from orchestrator.drivers.probing import Probed, probe_foreign
from orchestrator.identifiers import mint_job_id
from orchestrator.pipelines.cut.arguments import CONTAINERS
from orchestrator.pipelines.cut.ranges import MOST_CLIPS, BadRange, Range, checked, slices
from orchestrator.pipelines.cut.request import DEFAULT_CLIP_SECONDS, DEFAULT_MOST_CLIPS, CutRequest
from orchestrator.storage.uploads import Upload, use_upload
from orchestrator.web.bodies import read_model
from orchestrator.web.connections import connection_of
from orchestrator.web.idempotency import Answer, keep_answer, making, once
from orchestrator.web.jobs.place import Place, outputs_base, place_of
from orchestrator.web.jobs.uploads import UPLOAD_ID
from orchestrator.web.problems import Fault, Problem
from orchestrator.web.schemas import TITLE_MAX_CHARACTERS, Strict
from orchestrator.web.services import services_of

STARTED = "Story processing started"

_INSERT = "INSERT INTO clips (id, pipeline, title, processing_details) VALUES ($1, 'cut', $2, $3::jsonb)"


class WantedClip(Strict):
    """One piece, in seconds from the start of the video."""

    start: float = Field(ge=0)
    end: float = Field(gt=0)


class ProcessVideo(Strict):
    """What is to be cut from an upload. Explicit clips win; else even slices from the start."""

    uploadId: str = Field(pattern=rf"^{UPLOAD_ID.pattern}$", description="what POST /api/videos/upload answered")
    mode: Literal["manual", "automatic", "auto"] | None = Field(None, description="manual needs clips")
    clips: list[WantedClip] = Field(default_factory=list, max_length=MOST_CLIPS)
    clipDuration: float = Field(DEFAULT_CLIP_SECONDS, ge=0.1, le=36_000, description="seconds of each slice")
    maxClips: int = Field(DEFAULT_MOST_CLIPS, ge=1, le=MOST_CLIPS)
    precision: Literal["exact", "fast"] = Field(
        "exact", description="exact to the frame by encoding; fast copies, and begins at the key frame before"
    )
    publish: Literal["stream"] | None = Field(None, description="carry each finished clip on as a clip of its own")
    title: str | None = Field(None, max_length=TITLE_MAX_CHARACTERS)

    def as_request(self) -> CutRequest:
        """The same as the pipeline knows it."""
        return CutRequest(
            upload_id=self.uploadId,
            ranges=tuple(Range(each.start, each.end) for each in self.clips) if self.mode in (None, "manual") else (),
            clip_seconds=self.clipDuration,
            most_clips=self.maxClips,
            is_exact=self.precision == "exact",
            publish=self.publish,
        )


@once
async def process_video(request: web.Request) -> web.Response:
    """Make a job and answer before any work; the answer tells what will be made."""
    place = place_of(request)
    asked = await read_model(request, ProcessVideo)
    wanted = replace(asked.as_request(), base_url=outputs_base(request))
    _refuse_contradictions(asked)
    upload = await _upload_of(request, wanted.upload_id)
    ranges = await _settled(place, upload, wanted)
    job_id = mint_job_id(services_of(request).now())
    details = {"created_by": "api", "origin": "cut", **wanted.as_details()}
    async with making(request) as connection:
        await _insert(connection, job_id, asked.title or upload.filename, details)
        answer = Answer(_document(job_id, wanted, ranges), 200, {"Location": f"/api/jobs/{job_id}/status"})
        await keep_answer(request, connection, answer)
    services_of(request).wakeups.wake()
    return answer.response()


def _refuse_contradictions(asked: ProcessVideo) -> None:
    if asked.mode == "manual" and not asked.clips:
        raise Problem("invalid", "clips: is missing", [Fault("clips", "manual mode needs at least one {start, end}")])
    if asked.mode in ("automatic", "auto") and asked.clips:
        raise Problem("invalid", "clips: not in automatic mode", [Fault("clips", "leave them out, or say manual")])
    if len(asked.clips) > asked.maxClips:
        said = f"{len(asked.clips)} are asked for, and maxClips is {asked.maxClips}"
        raise Problem("invalid", f"clips: {said}", [Fault("clips", said)])


async def _upload_of(request: web.Request, upload_id: str) -> Upload:
    async with connection_of(request) as connection:
        upload = await use_upload(connection, upload_id)
    if upload is None:
        raise Problem("unknown-upload", f"There is no upload {upload_id}; it may have expired")
    return upload


async def _settled(place: Place, upload: Upload, wanted: CutRequest) -> tuple[Range, ...] | None:
    """The pieces that will be cut; None when the file cannot be read, which the job will end with by name.

    Raises:
        Problem: a range that cannot be cut from this video.
    """
    try:
        checked(wanted.ranges)
        probed: Probed = await probe_foreign(place.files.path(upload.id, upload.sha256), CONTAINERS)
        if wanted.ranges:
            return checked(wanted.ranges, probed.duration_seconds)
        return slices(probed.duration_seconds, wanted.clip_seconds, wanted.most_clips)
    except BadRange as problem:
        raise Problem("invalid", str(problem), [Fault(f"clips.{problem.number}", str(problem))]) from problem
    except DriverError:
        return None


async def _insert(connection: asyncpg.Connection, job_id: str, title: str | None, details: dict[str, Any]) -> None:
    await connection.execute(_INSERT, job_id, title, json.dumps(details, ensure_ascii=False))


def _document(job_id: str, wanted: CutRequest, ranges: tuple[Range, ...] | None) -> dict[str, Any]:
    return {
        "success": True,
        "jobId": job_id,
        "status": "running",
        "message": STARTED,
        "mode": wanted.mode,
        "clipDuration": wanted.clip_seconds,
        "maxClips": wanted.most_clips,
        "precision": "exact" if wanted.is_exact else "fast",
        # Null: the file could not be read; the job ends with the reason.
        "clips": None
        if ranges is None
        else [{"start": each.start_seconds, "end": each.end_seconds} for each in ranges],
        "status_url": f"/api/jobs/{job_id}/status",
    }
