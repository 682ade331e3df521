"""``POST /api/clips``: a new clip, from an upload, an address, or a video the provider already has."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg
import structlog
from aiohttp import web

from orchestrator.drivers.errors import TransientError
from orchestrator.identifiers import mint_clip_id
from orchestrator.storage.clips import read_clip_by_uid
from orchestrator.web.bodies import as_model, read_object
from orchestrator.web.idempotency import Answer, keep_answer, making, once
from orchestrator.web.problems import Problem, invalid
from orchestrator.web.schemas import NEW_CLIP_BY_SOURCE, NewClip, NewFromUrl, NewUpload
from orchestrator.web.services import Services, services_of
from orchestrator.web.views import timestamp
from statusutils import STREAM

log = structlog.get_logger(__name__)

# A person waits for this answer; the provider's usual one takes well under a second.
_PROVIDER_TIMEOUT_SECONDS = 20.0

# new_clip: what the API role may write; status, progress and history come from the trigger
_INSERT = """
INSERT INTO clips (id, pipeline, cloudflare_uid, title, processing_details, source_url, upload_expires_at)
VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7)
RETURNING status
"""


@dataclass(frozen=True, slots=True)
class NewRow:
    """What is written of a new clip, and the address its bytes go to."""

    clip_id: str
    title: str | None
    details: dict[str, Any]
    cloudflare_uid: str | None = None
    source_url: str | None = None
    upload_expires_at: datetime | None = None
    upload_url: str | None = None
    protocol: Literal["form", "tus"] | None = None


@once
async def create_clip(request: web.Request) -> web.Response:
    """Make a clip; the monitor takes it from there."""
    services = services_of(request)
    wanted = new_clip_from(await read_object(request), services.settings.max_duration_seconds)
    row = await prepare_clip(services, wanted)
    async with making(request) as connection:
        status = await insert_clip(connection, row)
        answer = _answer(request, row, status)
        await keep_answer(request, connection, answer)
    services.wakeups.wake()
    log.info("a clip was created", clip_id=row.clip_id, origin=wanted.source)
    return answer.response()


def new_clip_from(document: dict[str, Any], max_duration_seconds: int) -> NewClip:
    """The request in *document*, checked."""
    source = document.get("source")
    model = NEW_CLIP_BY_SOURCE.get(source) if isinstance(source, str) else None
    if model is None:
        known = ", ".join(NEW_CLIP_BY_SOURCE)
        raise invalid(
            "source", f"must be one of {known}" if "source" in document else f"is missing; give one of {known}", source
        )
    wanted = as_model(document, model)
    if isinstance(wanted, NewUpload) and (wanted.max_duration_seconds or 0) > max_duration_seconds:
        raise invalid(
            "max_duration_seconds",
            f"this installation takes at most {max_duration_seconds}",
            wanted.max_duration_seconds,
        )
    return wanted


async def prepare_clip(services: Services, wanted: NewClip) -> NewRow:
    """The row of a new clip; for an upload the provider has reserved its address."""
    clip_id = mint_clip_id(services.now())
    details: dict[str, Any] = {"created_by": "api", "origin": wanted.source}
    if isinstance(wanted, NewUpload):
        return await _prepare_upload(services, clip_id, wanted, details)
    if isinstance(wanted, NewFromUrl):
        # The address itself is for the monitor alone; that there is one may be known.
        return NewRow(clip_id, wanted.title, details | {"has_source_url": True}, source_url=wanted.url)
    return NewRow(clip_id, wanted.title, details, cloudflare_uid=wanted.cloudflare_uid)


async def _prepare_upload(services: Services, clip_id: str, wanted: NewUpload, details: dict[str, Any]) -> NewRow:
    """Have the provider reserve an address first: a row without one could never get its bytes."""
    settings = services.settings
    expiry = services.now() + timedelta(seconds=settings.upload_expiry_seconds)
    duration = wanted.max_duration_seconds or settings.max_duration_seconds
    # The attempt is part of the mark: a later attempt at the provider must not be taken for this one.
    creator, name = f"{clip_id}.1", wanted.title or clip_id
    try:
        async with asyncio.timeout(_PROVIDER_TIMEOUT_SECONDS):
            if wanted.by_tus:
                upload = await services.stream.create_tus_upload(wanted.size_bytes, duration, creator, name, expiry)
            else:
                meta = {"clip_id": clip_id, "name": name}
                upload = await services.stream.create_direct_upload(duration, creator, meta, expiry)
    except TimeoutError as problem:
        raise TransientError("provider_timeout", "the provider did not answer in time") from problem
    protocol: Literal["form", "tus"] = "tus" if wanted.by_tus else "form"
    return NewRow(
        clip_id,
        wanted.title,
        details | {"upload_protocol": protocol, "upload_size_bytes": wanted.size_bytes},
        cloudflare_uid=upload.uid,
        upload_expires_at=upload.expires_at or expiry,
        upload_url=upload.upload_url,
        protocol=protocol,
    )


async def insert_clip(connection: asyncpg.Connection, row: NewRow) -> str:
    """Write the row; the status the clip starts at."""
    try:
        async with connection.transaction():
            status: str = await connection.fetchval(
                _INSERT,
                row.clip_id,
                STREAM.pipeline,
                row.cloudflare_uid,
                row.title,
                json.dumps(row.details, ensure_ascii=False),
                row.source_url,
                row.upload_expires_at,
            )
    except asyncpg.UniqueViolationError as problem:
        known = await read_clip_by_uid(connection, row.cloudflare_uid or "")
        who = f"clip {known.id}" if known else "another clip"
        raise Problem("already-known", f"The video {row.cloudflare_uid} belongs to {who}") from problem
    return status


def _answer(request: web.Request, row: NewRow, status: str) -> Answer:
    document = {
        "id": row.clip_id,
        "cloudflare_uid": row.cloudflare_uid,
        "status": status,
        "upload_url": row.upload_url,
        "page_url": page_url(request, row.clip_id),
        "protocol": row.protocol,
        "upload_expires_at": timestamp(row.upload_expires_at) if row.upload_expires_at else None,
    }
    return Answer(document, 201, {"Location": f"/api/clips/{row.clip_id}"})


def page_url(request: web.Request, clip_id: str) -> str:
    """The clip's page as the caller can reach it."""
    base = services_of(request).settings.public_base_url or f"{request.scheme}://{request.host}"
    return f"{base}/clips/{clip_id}"
