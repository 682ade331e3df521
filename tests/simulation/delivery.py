"""The simulated delivery host: MP4 files with ranges, ETags and tokens, and answers written byte by byte on command."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web

from simulation.doors import answer_through, until_gone
from simulation.faults import Call, Fault, Raw, Reply
from simulation.videos import SimulatedVideo

_RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z")
#: What is written at once; the network of the simulation carries pieces of any size.
_PIECE_BYTES = 64 * 1024
#: A reset overtakes what is on its way; this is more than bytes travel.
_ARRIVED_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """Bytes that left for one reader."""

    at: datetime
    uid: str
    reader: str
    start: int
    length_bytes: int
    version: int


class Videos(Protocol):
    """What the delivery host has to know of the provider."""

    def now(self) -> datetime: ...

    def shown_under(self, name: str) -> tuple[SimulatedVideo | None, bool]:
        """The video of a uid or of a token, and whether it may be shown."""
        ...

    def fault(self, name: str, about: str) -> Fault | None:
        """What befalls this call; counts it."""
        ...


class Wire:
    """One request for a file, and the means to answer it as no good host would."""

    def __init__(self, host: DeliveryHost, request: web.Request, video: SimulatedVideo, span: tuple[int, int] | None):
        self.span = span
        self.video = video
        self.data = video.files[-1]
        self._host = host
        self._request = request

    @property
    def etag(self) -> str:
        return etag_of(self.data)

    async def begin(self, data: bytes) -> None:
        """Bytes as they stand, which are no part of the file."""
        await self._write(data)

    async def head(self, status: str, **headers: Any) -> None:
        """The status line and *headers*, underscores read as dashes; nothing is added."""
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        await self._write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def part_head(self, **headers: Any) -> None:
        """The head of a good answer to the range that was asked for, with *headers* put over it (None: left out)."""
        assert self.span is not None
        first, last = self.span
        good = {
            "Content_Type": "video/mp4",
            "Content_Length": last - first + 1,
            "Content_Range": f"bytes {first}-{last}/{len(self.data)}",
            "ETag": self.etag,
        }
        await self.head("206 Partial Content", **{k: v for k, v in {**good, **headers}.items() if v is not None})

    async def whole_head(self, **headers: Any) -> None:
        """The head of a good answer with the whole file, likewise."""
        good = {"Content_Type": "video/mp4", "Content_Length": len(self.data), "ETag": self.etag}
        await self.head("200 OK", **{k: v for k, v in {**good, **headers}.items() if v is not None})

    async def send(self, data: bytes, start: int = 0) -> None:
        """Body bytes, counted as they leave; *start* is where they stand in the file."""
        for offset in range(0, len(data), _PIECE_BYTES):
            piece = data[offset : offset + _PIECE_BYTES]
            await self._write(piece)
            self._host.note(self.video, self._request, start + offset, len(piece))

    async def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; an empty one ends it."""
        await self._write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    @property
    def is_gone(self) -> bool:
        """Whether nobody listens any more."""
        return self._request.transport is None or self._request.transport.is_closing()

    def close(self) -> None:
        """End the connection in good order."""
        if self._request.transport is not None:
            self._request.transport.close()

    async def reset(self) -> None:
        """End the connection as a crash does, after what was written has arrived."""
        await asyncio.sleep(_ARRIVED_AFTER_SECONDS)
        if self._request.transport is not None:
            self._request.transport.abort()

    async def stall(self) -> None:
        """Send nothing more until the reader has gone."""
        await until_gone(self._request)

    async def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        await asyncio.sleep(0)


class DeliveryHost:
    """`/{uid or token}/downloads/default.mp4`"""

    def __init__(self, videos: Videos) -> None:
        self._videos = videos
        self.delivered: list[Delivered] = []
        #: Whether ranges are honoured, and whether files have ETags: both are documented nowhere.
        self.has_ranges = True
        self.has_etags = True

    async def serve(self, request: web.Request, name: str) -> web.StreamResponse:
        """The file of *name*, or a part of it, with whatever befalls it."""
        video, may_be_shown = self._videos.shown_under(name)
        span = _span(request)
        kind = "whole" if span is None else "probe" if span == (0, 15) else "span"
        fault = self._videos.fault(kind, video.uid if video else "")
        if video is None or not may_be_shown or not video.is_served(self._videos.now()):
            status = 401 if video is not None and not may_be_shown else 404
            page = Reply(status, {"Content-Type": "text/html"}, b"<p>no</p>")
            return await answer_through(request, fault, lambda: page)
        if isinstance(fault, Raw):
            await fault.write(Wire(self, request, video, span))
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        return await answer_through(request, fault, self._performing(request, video, span))

    def note(self, video: SimulatedVideo, request: web.Request, start: int, length_bytes: int) -> None:
        """Keep that bytes have left."""
        now, reader = self._videos.now(), str(request.remote)
        self.delivered.append(Delivered(now, video.uid, reader, start, length_bytes, len(video.files)))

    def _performing(
        self, request: web.Request, video: SimulatedVideo, span: tuple[int, int] | None
    ) -> Callable[[], Reply]:
        def perform() -> Reply:
            data = video.files[-1]
            headers = {"Content-Type": "video/mp4"}
            if self.has_etags:
                headers["ETag"] = etag_of(data)
            is_same = request.headers.get("If-Range") in (None, headers.get("ETag"))
            if span is None or not self.has_ranges or not is_same:
                self.note(video, request, 0, len(data))
                return Reply(200, headers, data)
            start, last = span[0], min(span[1], len(data) - 1)
            if start > last:
                return Reply(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
            self.note(video, request, start, last - start + 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(data)}"
            return Reply(206, headers, data[start : last + 1])

        return perform


def etag_of(data: bytes) -> str:
    """Another one for other bytes."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _span(request: web.Request) -> tuple[int, int] | None:
    found = _RANGE.match(request.headers.get("Range", ""))
    return (int(found[1]), int(found[2])) if found else None


__all__ = ["Call", "Delivered", "DeliveryHost", "Wire", "etag_of"]
