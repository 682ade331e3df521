"""Uploads by tus 1.0.0, with Stream's own rules on top of the standard.

A chunk is a multiple of 256 KiB, at least 5 MiB and at most 200 MiB; the last one (or the only one)
may be any size below that. What arrives before a connection breaks is kept in whole 256 KiB.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from orchestrator.local.stream import faults
from orchestrator.local.stream.admission import TUS_RESERVATION_SECONDS
from orchestrator.local.stream.envelope import UNDOCUMENTED, ApiProblem, bad_request, not_found
from orchestrator.local.stream.fields import TusUpload, expiry_at, parsed, tus_metadata
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.receiving import UploaderGone, save
from orchestrator.local.stream.videos import Video

CHUNK_STEP_BYTES = 262_144
CHUNK_MIN_BYTES = 5_242_880
CHUNK_MAX_BYTES = 209_715_200
VERSION = "1.0.0"
_PROTOCOL = {"Tus-Resumable": VERSION}


def chunk_problem(offset: int, chunk: int, total: int) -> str | None:
    """Why a chunk of this size is refused at *offset* of *total* bytes; None when it is right."""
    if offset + chunk > total:
        return "The chunk goes beyond Upload-Length."
    if chunk > CHUNK_MAX_BYTES:
        return f"The chunk is larger than {CHUNK_MAX_BYTES} bytes."
    if offset + chunk == total:
        return None
    if chunk % CHUNK_STEP_BYTES:
        return "The chunk size must be a multiple of 256KiB."
    if chunk < CHUNK_MIN_BYTES:
        return f"The chunk is smaller than {CHUNK_MIN_BYTES} bytes."
    return None


class TusUploads:
    """Creation, HEAD and PATCH; OPTIONS is answered with the CORS headers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._writing: set[str] = set()

    async def create(self, request: web.Request) -> web.Response:
        """POST /stream with tus headers: 201, Location, stream-media-id."""
        _check_version(request)
        length = _number(request, "Upload-Length")
        if not 0 < length <= self._parts.options.file_limit_bytes:
            problem = "Upload-Length must be the size of the file in bytes."
            raise ApiProblem(413, UNDOCUMENTED, "The file is too large.") if length else bad_request(problem)
        is_direct = request.query.get("direct_user", "").lower() == "true"
        wanted = parsed(TusUpload, tus_metadata(request.headers.get("Upload-Metadata", "")))
        reserve = wanted.max_duration_seconds or (TUS_RESERVATION_SECONDS if is_direct else 0)
        self._parts.admission.check("POST /stream", reserve)
        fields = wanted.record_fields()
        if creator := request.headers.get("Upload-Creator"):
            fields["creator"] = parsed(TusUpload, {"creator": creator}).creator
        if is_direct or wanted.expiry is not None:
            fields["upload_expires_at"] = expiry_at(wanted.expiry)
        arrival = "direct_tus" if is_direct else "tus"
        video = self._parts.store.create(
            arrival,  # type: ignore[arg-type]
            "pendingupload",
            percent=0.0,
            upload_length_bytes=length,
            **fields,
        )
        headers = {"Location": self._location(video), "stream-media-id": video.uid, **_PROTOCOL}
        return web.Response(status=201, headers=headers)

    async def head(self, request: web.Request) -> web.Response:
        """How many bytes are there."""
        video = self._find(request)
        headers = self._state(video, self._offset(video))
        return web.Response(status=200, headers={**headers, "Cache-Control": "no-store"})

    async def patch(self, request: web.Request) -> web.Response:
        """One chunk: 204 with the new Upload-Offset."""
        _check_version(request)
        if request.content_type != "application/offset+octet-stream":
            raise ApiProblem(415, UNDOCUMENTED, "Content-Type must be application/offset+octet-stream.")
        video = self._find(request)
        if video.uid in self._writing:
            raise ApiProblem(423, UNDOCUMENTED, "Another request is writing to this upload.")
        self._writing.add(video.uid)
        try:
            return await self._patch(request, video)
        finally:
            self._writing.discard(video.uid)

    async def _patch(self, request: web.Request, video: Video) -> web.Response:
        offset, total = self._offset(video), video.upload_length_bytes or 0
        if _number(request, "Upload-Offset") != offset:
            raise ApiProblem(409, UNDOCUMENTED, f"Upload-Offset must be {offset}.", self._state(video, offset))
        if video.uploaded_at is not None:
            return web.Response(status=204, headers=self._state(video, offset))
        announced = request.content_length
        if announced is not None and (problem := chunk_problem(offset, announced, total)):
            raise bad_request(problem)
        received = await self._receive(request, video, offset)
        if problem := chunk_problem(offset, received, total):
            _truncate(self._draft(video), offset)
            raise bad_request(problem)
        if offset + received == total:
            self._complete(video, total)
        return web.Response(status=204, headers=self._state(video, offset + received))

    async def _receive(self, request: web.Request, video: Video, offset: int) -> int:
        """Bring the body to disk; of a broken one keep whole steps."""
        draft = self._draft(video)
        limit = min(CHUNK_MAX_BYTES, (video.upload_length_bytes or 0) - offset)
        cut_at = self._bitten_at(request, video)
        try:
            received = await save(
                request.content.readany,
                draft,
                offset,
                limit if cut_at is None else min(limit, cut_at),
                self._parts.options.stall_timeout_seconds,
            )
        except (UploaderGone, ApiProblem):
            _truncate(draft, _kept(offset, draft.stat().st_size))
            raise
        if cut_at is not None:
            _truncate(draft, _kept(offset, draft.stat().st_size))
            raise ApiProblem(408, UNDOCUMENTED, "stream timeout")
        return received

    def _bitten_at(self, request: web.Request, video: Video) -> int | None:
        fault = self._parts.switches.bite(faults.TusPatch408, *video.names)
        return None if fault is None else (request.content_length or 0) // 2

    def _complete(self, video: Video, total: int) -> None:
        self._draft(video).replace(self._parts.store.source(video.uid))
        self._parts.store.change(video.uid, size_bytes=total, uploaded_at=datetime.now(UTC))
        self._parts.processing.begin(video.uid)

    def _find(self, request: web.Request) -> Video:
        video = self._parts.store.get(request.match_info["uid"])
        if video.upload_length_bytes is None:
            raise not_found()
        is_expired = video.upload_expires_at is not None and video.upload_expires_at < datetime.now(UTC)
        if is_expired and video.state == "pendingupload":
            raise ApiProblem(410, UNDOCUMENTED, "This address has expired.")
        return video

    def _offset(self, video: Video) -> int:
        draft = self._draft(video)
        if draft.exists():
            return draft.stat().st_size
        return 0 if video.uploaded_at is None else video.upload_length_bytes or 0

    def _state(self, video: Video, offset: int) -> dict[str, str]:
        lengths = {"Upload-Offset": str(offset), "Upload-Length": str(video.upload_length_bytes)}
        return {**_PROTOCOL, **lengths, "stream-media-id": video.uid}

    def _location(self, video: Video) -> str:
        if video.arrival == "direct_tus":
            return f"{self._parts.base_url}/tus/{video.uid}?tusv2=true"
        return f"{self._parts.api_url}/media/{video.uid}?tusv2=true"

    def _draft(self, video: Video) -> Path:
        return self._parts.store.folder(video.uid) / "source.part"


def _kept(offset: int, arrived_to: int) -> int:
    return offset + (arrived_to - offset) // CHUNK_STEP_BYTES * CHUNK_STEP_BYTES


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def _check_version(request: web.Request) -> None:
    if request.headers.get("Tus-Resumable") != VERSION:
        raise ApiProblem(412, UNDOCUMENTED, "Tus-Resumable must be 1.0.0.", {"Tus-Version": VERSION})


def _number(request: web.Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isdecimal():
        raise bad_request(f"{header} must be a number of bytes.")
    return int(text)
