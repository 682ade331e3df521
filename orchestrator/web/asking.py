"""Asking that a clip move: signals, a new try, an end. Nothing here moves it."""

from __future__ import annotations

from typing import Any

import asyncpg
from aiohttp import web

from orchestrator.pipelines import pipeline_for
from orchestrator.storage.clips import Clip
from orchestrator.web.bodies import as_model, read_model, read_object
from orchestrator.web.connections import connection_of
from orchestrator.web.idempotency import Answer, keep_answer, making, once
from orchestrator.web.metrics import METRICS
from orchestrator.web.problems import Problem, invalid
from orchestrator.web.reading import clip_id_of, known_clip
from orchestrator.web.schemas import Empty, SignalRequest
from orchestrator.web.services import services_of
from signals import signal_retry, signal_status_update, update_processing_details
from statusutils import ERROR, table_for

SOURCE = "api"
# What ends a clip on a person's word; the monitor sees the mark and removes the video at the provider.
DELETION = {"delete_requested": True, "error_code": "deleted", "error_message": "Deleted on request"}


@once
async def send_signal(request: web.Request) -> web.Response:
    """Record that somebody asks for a status."""
    asked = await read_model(request, SignalRequest)
    clip_id = clip_id_of(request)
    async with making(request) as connection:
        clip = await known_clip(connection, clip_id)
        table = table_for(clip.pipeline)
        if asked.requested_status not in table:
            known = ", ".join(table.by_name)
            raise invalid("requested_status", f"must be one of {known}", asked.requested_status, code="unknown-status")
        insists = asked.requested_status == ERROR
        attempt = await signal_status_update(
            connection, clip_id, asked.requested_status, asked.details, SOURCE, insists=insists
        )
        answer = Answer(asked_document(clip, asked.requested_status, attempt), 202)
        await keep_answer(request, connection, answer)
    recorded(request)
    return answer.response()


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
    return {
        "id": clip.id,
        "requested_status": requested_status,
        "attempt": attempt,
        "recorded": True,
        "status": clip.status,
    }


def recorded(request: web.Request) -> None:
    """Count the signal that was committed, and hint at it."""
    request.app[METRICS].count_signal(SOURCE)
    services_of(request).wakeups.wake()
