"""Asking that a clip move: signals, a new try, an end. Nothing here moves it."""

from __future__ import annotations

from typing import Any

import asyncpg
from aiohttp import web

from orchestrator.pipelines import pipeline_for
from orchestrator.storage.clips import Clip
from orchestrator.web.bodies import as_model, read_model, read_object
from orchestrator.web.connections import connection_of
from orchestrator.web.idempotency import Answer, has_key, keep_answer, making, once
from orchestrator.web.metrics import METRICS
from orchestrator.web.problems import Problem, invalid
from orchestrator.web.reading import clip_id_of, known_clip
from orchestrator.web.schemas import Empty, SignalRequest
from orchestrator.web.services import services_of
from orchestrator.web.shared_signals import SHARED_SIGNALS
from signals import (
    Asked,
    Signal,
    StatusNotInPipeline,
    signal_retry,
    signal_status_update,
    update_processing_details,
)
from statusutils import ERROR, TABLES, table_for

SOURCE = "api"
# What ends a clip on a person's word; the monitor sees the mark and removes the video at the provider.
DELETION = {"delete_requested": True, "error_code": "deleted", "error_message": "Deleted on request"}

# For each status the pipelines that have it.
_KNOWN_IN = {
    status: tuple(name for name, table in TABLES.items() if status in table)
    for status in {name for table in TABLES.values() for name in table.by_name}
}


@once
async def send_signal(request: web.Request) -> web.Response:
    """Record that somebody asks for a status."""
    asked = await read_model(request, SignalRequest)
    signal = Signal(
        asked.requested_status,
        SOURCE,
        clip_id=clip_id_of(request),
        details=asked.details,
        insists=asked.requested_status == ERROR,
        only_in=_KNOWN_IN.get(asked.requested_status, ()),
    )
    answer = await (_ask_once if has_key(request) else _ask)(request, signal)
    recorded(request)
    return answer.response()


async def _ask(request: web.Request, signal: Signal) -> Answer:
    """Write *signal* with whichever others come now."""
    if not signal.only_in:  # no pipeline has the status; the clip's own tells which there are
        async with connection_of(request) as connection:
            raise _no_such_status(signal.status, (await known_clip(connection, str(signal.clip_id))).pipeline)
    try:
        return Answer(_document(await request.app[SHARED_SIGNALS].ask(signal), signal.status), 202)
    except StatusNotInPipeline as problem:
        raise _no_such_status(signal.status, problem.pipeline) from problem


async def _ask_once(request: web.Request, signal: Signal) -> Answer:
    """Write *signal* in a transaction of its own, with the answer that is kept under the call's key."""
    clip_id = str(signal.clip_id)
    async with making(request) as connection:
        clip = await known_clip(connection, clip_id)
        if signal.status not in table_for(clip.pipeline):
            raise _no_such_status(signal.status, clip.pipeline)
        attempt = await signal_status_update(
            connection, clip_id, signal.status, signal.details, signal.source, insists=signal.insists
        )
        answer = Answer(asked_document(clip, signal.status, attempt), 202)
        await keep_answer(request, connection, answer)
    return answer


def _no_such_status(status: str, pipeline: str) -> Problem:
    known = ", ".join(table_for(pipeline).by_name)
    return invalid("requested_status", f"must be one of {known}", status, code="unknown-status")


@once
async def retry_clip(request: web.Request) -> web.Response:
    """Ask for a new attempt at a failed clip, from its last safe place."""
    as_model(await read_object(request, optional=True), Empty)
    clip_id = clip_id_of(request)
    async with making(request) as connection:
        clip = await known_clip(connection, clip_id)
        resume_at = resume_status_of(clip)
        attempt = await signal_retry(connection, clip_id, resume_at, SOURCE)
        answer = Answer(asked_document(clip, resume_at, attempt + 1), 202)
        await keep_answer(request, connection, answer)
    recorded(request)
    return answer.response()


async def delete_clip(request: web.Request) -> web.Response:
    """Ask that the video be removed at the provider and the clip end; safe to repeat."""
    clip_id = clip_id_of(request)
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
        attempt = await ask_deletion(connection, clip, SOURCE)
    recorded(request)
    return Answer(asked_document(clip, ERROR, attempt), 202).response()


def resume_status_of(clip: Clip) -> str:
    """Where a new attempt at *clip* would start.

    Raises:
        Problem: it has not failed, or nothing of it is left to start from.
    """
    if clip.status != ERROR:
        raise Problem("not-failed", f"The clip is at {clip.status}; only a failed one can be tried again")
    resume_at = pipeline_for(clip.pipeline).resume_status(clip)
    if resume_at is None:
        raise Problem("cannot-retry", "Nothing of this clip is left to start from")
    return resume_at


async def ask_deletion(connection: asyncpg.Connection, clip: Clip, source: str) -> int:
    """Ask that *clip* end and its video be removed; the present attempt. A failed clip only gets the mark."""
    if clip.status == ERROR:
        return await update_processing_details(connection, clip.id, {"delete_requested": True})
    return await signal_status_update(connection, clip.id, ERROR, DELETION, source, insists=True)


def asked_document(clip: Clip, requested_status: str, attempt: int) -> dict[str, Any]:
    """What somebody who asked is told: recorded, not done."""
    return _document(Asked(clip.id, clip.pipeline, clip.status, attempt), requested_status)


def _document(asked: Asked, requested_status: str) -> dict[str, Any]:
    return {
        "id": asked.clip_id,
        "requested_status": requested_status,
        "attempt": asked.attempt,
        "recorded": True,
        "status": asked.status,
    }


def recorded(request: web.Request) -> None:
    """Count the signal that was committed, and hint at it."""
    request.app[METRICS].count_signal(SOURCE)
    services_of(request).wakeups.wake()
