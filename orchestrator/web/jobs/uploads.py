"""Files sent to be cut: ``POST /api/videos/upload`` takes one in a form, safe on disk before it is answered."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator

import structlog
from aiohttp import BodyPartReader, web

from orchestrator.storage.upload_files import NoSpace, TooLarge
from orchestrator.storage.uploads import Upload, store_upload
from orchestrator.web.connections import connection_of
from orchestrator.web.jobs.place import Place, place_of
from orchestrator.web.problems import Problem, invalid
from orchestrator.web.views import json_response

log = structlog.get_logger(__name__)

UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
FILENAME_MAX_CHARACTERS = 255
_READ_BYTES = 1024 * 1024
# Between two pieces of a file; a line that is silent for longer is gone.
_SILENCE_SECONDS = 60.0
# The form's framing beside the file itself: other fields, boundaries, headers.
_FRAMING_BYTES = 64 * 1024


async def take_upload(request: web.Request) -> web.Response:
    """Store the form's field ``file``; the same id twice is the same upload, other bytes under it are a conflict."""
    place = place_of(request)
    upload_id = upload_id_from(request.query.get("uploadId"))
    if not request.content_type.startswith("multipart/"):
        raise Problem("unsupported-media", "Send a form: multipart/form-data with the field file")
    refuse_what_cannot_fit(place, max(0, (request.content_length or 0) - _FRAMING_BYTES))
    part = await _file_part(request)
    filename = (part.filename or "")[:FILENAME_MAX_CHARACTERS] or None
    try:
        received = await place.files.receive(upload_id, _chunks_of(part))
    except (TooLarge, NoSpace) as problem:
        raise refusal(place, problem) from problem
    async with connection_of(request) as connection:
        upload = await store_upload(connection, upload_id, filename, received.size_bytes, received.sha256)
    if upload.sha256 != received.sha256:
        await asyncio.to_thread(place.files.drop, upload_id, received.sha256)
        raise Problem("upload-differs", f"Upload {upload_id} exists with other bytes")
    log.info("a file was uploaded", upload_id=upload_id, size_bytes=upload.size_bytes)
    return json_response(uploaded(place, upload), 200)


def uploaded(place: Place, upload: Upload) -> dict[str, object]:
    """What somebody who uploaded is told."""
    return {
        "success": True,
        "uploadId": upload.id,
        "temp_path": str(place.files.path(upload.id, upload.sha256)),
        "filename": upload.filename,
        "size": upload.size_bytes,
        "sha256": upload.sha256,
    }


def upload_id_from(wanted: str | None) -> str:
    """The id the caller chose, or a new one."""
    if wanted is None or wanted == "":
        return f"up_{secrets.token_hex(12)}"
    if not UPLOAD_ID.fullmatch(wanted):
        raise invalid("uploadId", "must be 1 to 64 letters, digits, _ or -", wanted)
    return wanted


def refuse_what_cannot_fit(place: Place, wanted_bytes: int) -> None:
    """Say so before the bytes are sent."""
    try:
        place.files.check_space(wanted_bytes)
    except (TooLarge, NoSpace) as problem:
        raise refusal(place, problem) from problem


def refusal(place: Place, problem: TooLarge | NoSpace) -> Problem:
    """What the caller is told; the rest of the body is not read."""
    close = {"Connection": "close"}
    if isinstance(problem, TooLarge):
        return Problem("too-large", f"A file may have at most {place.files.most_bytes} bytes", headers=close)
    return Problem("no-space", "The disk for uploads has no room for this file", headers=close)


async def _file_part(request: web.Request) -> BodyPartReader:
    """The part named ``file``, others passed over."""
    try:
        reader = await request.multipart()
        async for part in reader:
            if isinstance(part, BodyPartReader) and part.name == "file":
                return part
    except (ValueError, AssertionError) as problem:
        raise Problem("bad-request", "The form cannot be read") from problem
    raise invalid("file", "is missing: send the video as the form's field of that name")


async def _chunks_of(part: BodyPartReader) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                chunk = await part.read_chunk(_READ_BYTES)
        except TimeoutError:
            raise Problem("too-slow", f"Nothing came for {_SILENCE_SECONDS:g} seconds") from None
        if not chunk:
            return
        yield chunk
