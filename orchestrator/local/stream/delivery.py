"""Serving files: whole or in ranges, with the faults that a delivery can have."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from orchestrator.local.stream import faults
from orchestrator.local.stream.files import size_of
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.videos import DOWNLOAD_TYPES, Video
from orchestrator.local.stream.viewing import FailedDependency, Viewing

F = TypeVar("F", bound=faults.Fault)

_CHUNK_BYTES = 512 * 1024
# A throttled answer is sent in pieces of this part of a second.
_SLOW_STEP_SECONDS = 0.05
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_FILENAME = re.compile(r"[A-Za-z0-9_-]{1,120}")
_TYPES = {"default": "video/mp4", "audio": "audio/mp4"}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes *start* to *end* (exclusive) of *total*."""

    start: int
    end: int
    total: int
    # Asked for by a Range header: answered 206, even when it covers everything.
    is_part: bool = False

    @property
    def length(self) -> int:
        return self.end - self.start


def parse_range(header: str | None, total: int) -> Span | None:
    """The span a Range header asks for; the whole file for none or one we do not serve; None for 416."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group(1) == match.group(2) == "":
        return Span(0, total, total)
    first, last = match.groups()
    if first == "":
        start, end = max(0, total - int(last)), total
    else:
        start, end = int(first), min(total, int(last) + 1) if last else total
    return Span(start, end, total, is_part=True) if start < end else None


def etag_of(path: Path) -> str:
    """Changes when the file does."""
    stat = path.stat()
    return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'


class FileDelivery:
    """/{uid or token}/downloads/default.mp4 and audio.m4a"""

    def __init__(self, parts: Parts, viewing: Viewing) -> None:
        self._parts = parts
        self._viewing = viewing

    async def serve(self, request: web.Request) -> web.StreamResponse:
        video = self._viewing.video(request, for_download=True)
        kind = next((kind for kind, name in DOWNLOAD_TYPES.items() if name == request.match_info["file"]), None)
        path = None if kind is None else self._parts.downloads.file(video, kind)
        if request.method == "GET":
            self._parts.traffic.requested(video.uid, request.headers.get("Range"))
        if refused := self._bite(faults.Mp4Refused, video):
            return web.Response(status=refused.status)
        if kind is None or path is None or not path.exists():
            raise self._not_there(video)
        if "hop" not in request.query and (redirect := self._bite(faults.Mp4Redirect, video)):
            location = str(request.rel_url.update_query(hop="1"))
            return web.Response(status=redirect.status, headers={"Location": location})
        return await self._send(request, video, path, _TYPES[kind])

    def _not_there(self, video: Video) -> web.HTTPException:
        if self._bite(faults.Mp4NotReady424, video):
            return FailedDependency(text="The file is not ready.")
        return web.HTTPNotFound(text="Not Found")

    async def _send(self, request: web.Request, video: Video, path: Path, content_type: str) -> web.StreamResponse:
        cut = self._bite(faults.Mp4Truncated, video)
        total = size_of(path) if cut is None or not cut.quietly else int(size_of(path) * cut.share)
        etag = None if self._bite(faults.Mp4NoEtag, video) else etag_of(path)
        has_ranges = not self._bite(faults.Mp4NoRanges, video)
        is_same_file = request.headers.get("If-Range", etag) == etag
        span = parse_range(request.headers.get("Range") if has_ranges and is_same_file else None, total)
        headers = _headers(request, content_type, etag, has_ranges)
        if span is None:
            return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{total}"})
        answer = _opened(span, headers, has_length=not self._bite(faults.Mp4NoLength, video))
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        length = span.length if cut is None or cut.quietly else int(span.length * cut.share)
        await self._copy(answer, video, path, span.start, length)
        if length == span.length:
            await answer.write_eof()
        elif request.transport is not None:
            # An orderly end would look like a whole answer; the cut has to be seen.
            request.transport.close()
        return answer

    async def _copy(self, answer: web.StreamResponse, video: Video, path: Path, start: int, length: int) -> None:
        slow = self._bite(faults.Mp4Slow, video)
        piece = _CHUNK_BYTES if slow is None else max(1, int(slow.bytes_per_second * _SLOW_STEP_SECONDS))
        began, sent = time.monotonic(), 0
        with path.open("rb") as file:
            file.seek(start)
            while left := length - sent:
                chunk = await asyncio.to_thread(file.read, min(piece, left))
                if not chunk:
                    return
                await answer.write(chunk)
                sent += len(chunk)
                self._parts.traffic.sent(video.uid, len(chunk))
                if slow is not None:
                    await asyncio.sleep(max(0.0, began + sent / slow.bytes_per_second - time.monotonic()))

    def _bite(self, kind: type[F], video: Video) -> F | None:
        return self._parts.switches.bite(kind, *video.names)


def _opened(span: Span, headers: dict[str, str], *, has_length: bool) -> web.StreamResponse:
    answer = web.StreamResponse(status=206 if span.is_part else 200, headers=headers)
    if span.is_part:
        answer.headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{span.total}"
    if has_length:
        answer.content_length = span.length
    else:
        answer.enable_chunked_encoding()
    return answer


def _headers(request: web.Request, content_type: str, etag: str | None, has_ranges: bool) -> dict[str, str]:
    headers = {"Content-Type": content_type}
    if has_ranges:
        headers["Accept-Ranges"] = "bytes"
    if etag is not None:
        headers["ETag"] = etag
    name = request.query.get("filename")
    if name is not None:
        if not _FILENAME.fullmatch(name):
            raise web.HTTPBadRequest(text="filename: up to 120 of A-Z a-z 0-9 - _")
        extension = request.match_info["file"].rpartition(".")[2]
        headers["Content-Disposition"] = f'attachment; filename="{name}.{extension}"'
    return headers
