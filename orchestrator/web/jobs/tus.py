"""Files sent to be cut in resumable pieces: tus 1.0.0 with creation and termination.

    POST   /api/videos/tus         Upload-Length, Upload-Metadata (filename, uploadId) -> 201, Location
    HEAD   /api/videos/tus/{id}    -> Upload-Offset
    PATCH  /api/videos/tus/{id}    Upload-Offset, bytes -> 204, Upload-Offset; with the last byte the upload is stored
    DELETE /api/videos/tus/{id}    -> 204

The offset is the size of the file on disk, so that nothing can tell another one after a crash.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from orchestrator.storage.upload_files import NoSpace, TooLarge
from orchestrator.storage.uploads import read_upload, store_upload
from orchestrator.web.connections import connection_of
from orchestrator.web.jobs.place import Place, place_of
from orchestrator.web.jobs.uploads import (
    FILENAME_MAX_CHARACTERS,
    UPLOAD_ID,
    refusal,
    refuse_what_cannot_fit,
    upload_id_from,
)
from orchestrator.web.problems import Problem, invalid

_PROTOCOL = {"Tus-Resumable": "1.0.0", "Cache-Control": "no-store"}
_EXTENSIONS = "creation,termination"
_SILENCE_SECONDS = 60.0
# One request at a time writes to one file; the others are told to come again.
_WRITING: web.AppKey[set[str]] = web.AppKey("tus writing", set)


def prepare(app: web.Application) -> None:
    """What the handlers keep in the application."""
    app[_WRITING] = set()


async def show_options(request: web.Request) -> web.Response:
    """What this server can do."""
    headers = {
        **_PROTOCOL,
        "Tus-Version": "1.0.0",
        "Tus-Extension": _EXTENSIONS,
        "Tus-Max-Size": str(place_of(request).files.most_bytes),
    }
    return web.Response(status=204, headers=headers)


async def create(request: web.Request) -> web.Response:
    """Begin an upload; the same id with the same length goes on with the one that was begun."""
    place = place_of(request)
    _check_version(request)
    length = _number(request, "Upload-Length")
    if length < 1:
        raise invalid("Upload-Length", "must be the size of the file in bytes", length)
    metadata = _metadata(request.headers.get("Upload-Metadata", ""))
    upload_id = upload_id_from(metadata.get("uploadId"))
    refuse_what_cannot_fit(place, length)
    async with connection_of(request) as connection:
        if await read_upload(connection, upload_id) is not None:
            raise Problem("upload-differs", f"Upload {upload_id} exists already")
    begun = {"length": length, "filename": metadata.get("filename", "")[:FILENAME_MAX_CHARACTERS] or None}
    known = await asyncio.to_thread(_begin, place, upload_id, begun)
    if known["length"] != length:
        raise Problem("upload-differs", f"Upload {upload_id} was begun with {known['length']} bytes")
    location = f"{request.scheme}://{request.host}/api/videos/tus/{upload_id}"
    return web.Response(status=201, headers={**_PROTOCOL, "Location": location})


async def show_offset(request: web.Request) -> web.Response:
    """How much has arrived; of a stored upload, all of it."""
    place, upload_id = place_of(request), _id_of(request)
    _check_version(request)
    begun = await asyncio.to_thread(_read, place, upload_id)
    if begun is None:
        async with connection_of(request) as connection:
            stored = await read_upload(connection, upload_id)
        if stored is None:
            raise Problem("unknown-upload", f"There is no upload {upload_id}")
        return _at(stored.size_bytes, stored.size_bytes)
    return _at(place.files.begun(upload_id).stat().st_size, begun["length"])


async def append(request: web.Request) -> web.Response:
    """Add the body at its offset; with the last byte the file is stored as an upload."""
    place, upload_id = place_of(request), _id_of(request)
    _check_version(request)
    if request.content_type != "application/offset+octet-stream":
        raise Problem("unsupported-media", "Content-Type must be application/offset+octet-stream")
    writing = request.app[_WRITING]
    if upload_id in writing:
        raise Problem("upload-busy", "Another request is writing to this upload", headers={"Retry-After": "1"})
    writing.add(upload_id)
    try:
        begun = await asyncio.to_thread(_read, place, upload_id)
        if begun is None:
            raise Problem("unknown-upload", f"No upload {upload_id} has been begun")
        offset = place.files.begun(upload_id).stat().st_size
        if _number(request, "Upload-Offset") != offset:
            raise Problem(
                "wrong-offset", f"The upload is at {offset}", headers={**_PROTOCOL, "Upload-Offset": str(offset)}
            )
        offset = await place.files.append(upload_id, _body(request), begun["length"])
        if offset == begun["length"]:
            await _store(request, place, upload_id, begun)
    except (TooLarge, NoSpace) as problem:
        raise refusal(place, problem) from problem
    finally:
        writing.discard(upload_id)
    return web.Response(status=204, headers={**_PROTOCOL, "Upload-Offset": str(offset)})


async def terminate(request: web.Request) -> web.Response:
    """Give an unfinished upload up."""
    place, upload_id = place_of(request), _id_of(request)
    _check_version(request)
    if await asyncio.to_thread(_read, place, upload_id) is None:
        raise Problem("unknown-upload", f"No upload {upload_id} has been begun")
    await asyncio.to_thread(_forget, place, upload_id)
    return web.Response(status=204, headers=_PROTOCOL)


async def _store(request: web.Request, place: Place, upload_id: str, begun: dict[str, Any]) -> None:
    received = await place.files.finish(upload_id)
    async with connection_of(request) as connection:
        await store_upload(connection, upload_id, begun["filename"], received.size_bytes, received.sha256)
    await asyncio.to_thread(_forget, place, upload_id)


def _begin(place: Place, upload_id: str, begun: dict[str, Any]) -> dict[str, Any]:
    """What was begun under the id: now, or before."""
    note = _note(place, upload_id)
    known = _read(place, upload_id)
    if known is not None:
        return known
    place.files.begun(upload_id).open("ab").close()
    # The note comes last: it says that the file is there.
    note.with_suffix(".new").write_text(json.dumps(begun), "utf-8")
    note.with_suffix(".new").replace(note)
    return begun


def _read(place: Place, upload_id: str) -> dict[str, Any] | None:
    try:
        begun: dict[str, Any] = json.loads(_note(place, upload_id).read_text("utf-8"))
    except FileNotFoundError:
        return None
    return begun if place.files.begun(upload_id).exists() else None


def _forget(place: Place, upload_id: str) -> None:
    _note(place, upload_id).unlink(missing_ok=True)
    place.files.begun(upload_id).unlink(missing_ok=True)


def _note(place: Place, upload_id: str) -> Any:
    path = place.files.begun(upload_id)
    return path.with_name(f"{path.name}.json")


def _at(offset: int, length: int) -> web.Response:
    headers = {**_PROTOCOL, "Upload-Offset": str(offset), "Upload-Length": str(length)}
    return web.Response(status=200, headers=headers)


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                chunk = await request.content.readany()
        except TimeoutError:
            raise Problem("too-slow", f"Nothing came for {_SILENCE_SECONDS:g} seconds") from None
        if not chunk:
            return
        yield chunk


def _id_of(request: web.Request) -> str:
    upload_id = request.match_info["id"]
    if not UPLOAD_ID.fullmatch(upload_id):
        raise Problem("unknown-upload", "There is no such upload")
    return upload_id


def _check_version(request: web.Request) -> None:
    if request.headers.get("Tus-Resumable") != "1.0.0":
        raise Problem("wrong-tus", "Tus-Resumable must be 1.0.0", headers={"Tus-Version": "1.0.0"})


def _number(request: web.Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise invalid(name, "must be a whole number of bytes", text or None)
    return int(text)


def _metadata(header: str) -> dict[str, str]:
    """``key base64,key base64`` as texts; what is no UTF-8 counts as not said."""
    found = {}
    for pair in header.split(","):
        key, _, value = pair.strip().partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
    return found
