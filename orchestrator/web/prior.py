"""The four calls that clients of the prior system make, as signals.

They answer at once, the monitor does the work: "started" means that it was asked for. Their faults are 400s:
these clients know no 422.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from aiohttp import web

from orchestrator.drivers.budget import CallClass
from orchestrator.drivers.cloudflare_models import DownloadState
from orchestrator.drivers.errors import TransientError
from orchestrator.storage.clips import Clip, read_clip_by_uid
from orchestrator.web.asking import ask_deletion, recorded
from orchestrator.web.bodies import read_object
from orchestrator.web.connections import connection_of
from orchestrator.web.idempotency import Answer, keep_answer, making, once
from orchestrator.web.problems import Fault, Problem, shorten
from orchestrator.web.services import Services, services_of
from orchestrator.web.views import CLIP_ID, json_response
from signals import signal_status_update
from statusutils import COMPLETE, ERROR, table_for

SOURCE = "api"
# A program waits for the answer; its own limits are usually 30 s.
_PROVIDER_TIMEOUT_SECONDS = 15.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _in_prior_terms(handler: Handler) -> Handler:
    """*handler*, whose refusals of a value are 400s."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            if problem.kind.status != 422 or problem.code == "reused-key":
                raise
            raise Problem("bad-request", problem.detail, problem.errors) from problem

    return answer


@_in_prior_terms
@once
async def enable_mp4(request: web.Request) -> web.StreamResponse:
    """Ask that the MP4 be made."""
    uid = await _video_uid(request)
    async with connection_of(request) as connection:
        clip = await _clip_of(connection, uid)
    _refuse_failed(clip)
    if _has_reached(clip, "waitformp4"):
        return json_response(_document(clip, "MP4 already enabled"))
    if not _has_reached(clip, "stream_ready") and not await _plays_at_provider(services_of(request), uid):
        raise Problem("not-ready", f"The clip is at {clip.status}; an MP4 can be made once the video plays")
    return await _ask(request, clip, "waitformp4", "MP4 generation started")


@_in_prior_terms
@once
async def upload_to_r2(request: web.Request) -> web.StreamResponse:
    """Ask that the finished MP4 be written to the bucket."""
    uid = await _video_uid(request)
    async with connection_of(request) as connection:
        clip = await _clip_of(connection, uid)
    if clip.status == COMPLETE:
        return json_response(_document(clip, "Upload already complete"))
    _refuse_failed(clip)
    if clip.status == "r2_uploading":
        raise Problem("upload-under-way", "The file is being written to the bucket")
    return await _ask(request, clip, "r2_uploading", "Upload requested")


@_in_prior_terms
async def poll_mp4_status(request: web.Request) -> web.StreamResponse:
    """Where the MP4 is now; a finished one hastens the clip, as it always did."""
    uid = await _video_uid(request)
    async with connection_of(request) as connection:
        clip = await _clip_of(connection, uid)
    try:
        async with asyncio.timeout(_PROVIDER_TIMEOUT_SECONDS):
            download = await services_of(request).stream.get_downloads(uid, CallClass.PERSON)
    except TimeoutError as problem:
        raise _no_answer() from problem
    is_ready = download.state is DownloadState.READY
    if is_ready and clip.status != ERROR and not _has_reached(clip, "mp4downloading"):
        async with connection_of(request) as connection:
            await signal_status_update(connection, clip.id, "mp4downloading", {"mp4_status": "ready"}, SOURCE)
        recorded(request)
    document = _document(clip, f"MP4 is {download.state.value}")
    document |= {
        "mp4_status": download.state.value,
        "mp4_percent_complete": download.percent,
        "ready": is_ready,
    }
    return json_response(document)


@_in_prior_terms
@once
async def delete_video(request: web.Request) -> web.StreamResponse:
    """Ask that the video be deleted at the provider and the clip end."""
    uid = await _video_uid(request)
    async with making(request) as connection:
        clip = await _clip_of(connection, uid)
        await ask_deletion(connection, clip, SOURCE)
        answer = Answer(_document(clip, "Deletion requested"), 200)
        await keep_answer(request, connection, answer)
    recorded(request)
    return answer.response()


async def _ask(request: web.Request, clip: Clip, status: str, message: str) -> web.Response:
    async with making(request) as connection:
        await signal_status_update(connection, clip.id, status, {}, SOURCE)
        answer = Answer(_document(clip, message), 200)
        await keep_answer(request, connection, answer)
    recorded(request)
    return answer.response()


async def _video_uid(request: web.Request) -> str:
    uid = (await read_object(request, optional=True)).get("videoUid")
    if not isinstance(uid, str) or not uid:
        shown = None if uid is None else shorten(uid)
        raise Problem(
            "missing-video",
            "videoUid must be a text that is not empty",
            [Fault("videoUid", "is missing or no text", shown)],
        )
    return uid


async def _clip_of(connection: asyncpg.Connection, uid: str) -> Clip:
    clip = await read_clip_by_uid(connection, uid) if CLIP_ID.fullmatch(uid) else None
    if clip is None:
        raise Problem("unknown-clip", f"No clip has the video {shorten(uid)}")
    return clip


def _refuse_failed(clip: Clip) -> None:
    if clip.status == ERROR:
        raise Problem("clip-failed", f"The clip has failed: {clip.error_message or 'no reason given'}")


def _has_reached(clip: Clip, status: str) -> bool:
    table = table_for(clip.pipeline)
    return table[clip.status].order >= table[status].order


async def _plays_at_provider(services: Services, uid: str) -> bool:
    """Whether the provider plays it already: the row may lag behind by a look."""
    try:
        async with asyncio.timeout(_PROVIDER_TIMEOUT_SECONDS):
            video = await services.stream.get(uid, CallClass.PERSON)
    except TimeoutError as problem:
        raise _no_answer() from problem
    return video is not None and video.ready_to_stream


def _no_answer() -> TransientError:
    return TransientError("provider_timeout", "the provider did not answer in time")


def _document(clip: Clip, message: str) -> dict[str, Any]:
    return {
        "success": True,
        "message": message,
        "videoUid": clip.cloudflare_uid,
        "clip_id": clip.id,
        "status": clip.status,
    }
