"""Bytes from the network to disk, a piece at a time; and the form upload on top of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from aiohttp import BodyPartReader, ClientError, web

from orchestrator.local.stream.envelope import UNDOCUMENTED, ApiProblem, bad_request
from orchestrator.local.stream.files import is_there

_T = TypeVar("_T")

# One hop to the disk a megabyte: memory stays flat and the loop stays free.
_PIECE_BYTES = 1024 * 1024
_FORM_CHUNK_BYTES = 256 * 1024
# Boundaries and headers around the file; what exceeds them is the file itself.
_FORM_OVERHEAD_BYTES = 64 * 1024


class UploaderGone(ConnectionError):
    """The connection ended before the body did; *kept_bytes* arrived and are on disk."""

    def __init__(self, kept_bytes: int) -> None:
        super().__init__("the uploader is gone")
        self.kept_bytes = kept_bytes


@dataclass(frozen=True, slots=True)
class FormFile:
    """The file part of a form, as it arrived."""

    size_bytes: int
    filename: str | None
    content_type: str | None


async def save(
    read: Callable[[], Awaitable[bytes]], target: Path, offset: int, limit_bytes: int, stall_seconds: float
) -> int:
    """Write what *read* gives into *target* from *offset* on, until it gives b""; return the number of bytes.

    Stops once more than *limit_bytes* came: the caller sees a count above its limit.
    Raises ApiProblem (408) when nothing comes for *stall_seconds*, UploaderGone when the connection ends.
    """
    received, waiting = 0, bytearray()
    with target.open("r+b" if is_there(target) else "w+b") as file:
        file.seek(offset)
        try:
            while received <= limit_bytes and (chunk := await _within(stall_seconds, read())):
                received += len(chunk)
                waiting += chunk
                if len(waiting) >= _PIECE_BYTES:
                    await asyncio.to_thread(file.write, bytes(waiting))
                    waiting.clear()
        except TimeoutError as exc:
            raise ApiProblem(408, UNDOCUMENTED, "stream timeout") from exc
        except (ConnectionError, ClientError, web.RequestPayloadError) as exc:
            raise UploaderGone(received) from exc
        finally:
            file.write(waiting)
    return received


async def save_form(request: web.Request, target: Path, limit_bytes: int, stall_seconds: float) -> FormFile:
    """Save the part named `file`. Raises ApiProblem: 400 without one, 413 above the limit, 408 on a stall."""
    if (request.content_length or 0) > limit_bytes + _FORM_OVERHEAD_BYTES:
        raise _too_large(limit_bytes)
    if not request.content_type.startswith("multipart/"):
        raise bad_request("The body must be multipart/form-data with a part named file.")
    try:
        part = await _file_part(request, stall_seconds)
        size = await save(lambda: part.read_chunk(_FORM_CHUNK_BYTES), target, 0, limit_bytes, stall_seconds)
    except ValueError as exc:
        raise bad_request("The form is broken.") from exc
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return FormFile(size, part.filename, part.headers.get("Content-Type"))


async def _file_part(request: web.Request, stall_seconds: float) -> BodyPartReader:
    reader = await request.multipart()
    while (part := await _within(stall_seconds, reader.next())) is not None:
        if isinstance(part, BodyPartReader) and part.name == "file":
            return part
        if isinstance(part, BodyPartReader):
            await part.release()
    raise bad_request("The form has no part named file.")


def _too_large(limit_bytes: int) -> ApiProblem:
    return ApiProblem(413, UNDOCUMENTED, f"The file is larger than {limit_bytes} bytes; upload it with tus.")


async def _within(seconds: float, read: Awaitable[_T]) -> _T:
    """What *read* brings, or TimeoutError."""
    async with asyncio.timeout(seconds):
        return await read
