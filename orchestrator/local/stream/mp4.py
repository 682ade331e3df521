"""Duration and picture size of an MP4, read from its boxes: no child process, no matter how large the file.

Only what "copy" mode needs: whether the file is a whole MP4 with a picture, and how long it is.
Box layouts are those of ISO/IEC 14496-12 (mvhd 8.2.2, tkhd 8.3.2, hdlr 8.4.3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# A moov of a few hours of video has a few MB; more is not read into memory.
MOOV_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mp4Facts:
    """What the boxes say; width and height are 0 without a picture."""

    duration_seconds: float
    width: int
    height: int
    is_whole: bool


def looks_like_mp4(path: Path) -> bool:
    """Whether the file begins the way an MP4 does."""
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def read_mp4(path: Path) -> Mp4Facts | None:
    """The facts of the MP4 at *path*; None when there is no readable `moov`."""
    size = path.stat().st_size
    moov, is_whole = b"", True
    with path.open("rb") as file:
        for name, start, end in _boxes(file, size):
            is_whole = end <= size
            if name == b"moov" and is_whole and end - start <= MOOV_LIMIT_BYTES:
                file.seek(start)
                moov = file.read(end - start)
    try:
        return _facts(moov, is_whole) if moov else None
    except (struct.error, ZeroDivisionError):
        return None


def _facts(moov: bytes, is_whole: bool) -> Mp4Facts:
    duration, width, height = 0.0, 0, 0
    for name, body in _children(moov):
        if name == b"mvhd":
            duration = _duration(body)
        elif name == b"trak" and not width:
            width, height = _picture(body)
    return Mp4Facts(duration, width, height, is_whole)


def _duration(mvhd: bytes) -> float:
    scale, duration = struct.unpack_from(">IQ", mvhd, 20) if mvhd[0] == 1 else struct.unpack_from(">II", mvhd, 12)
    return float(duration) / float(scale)


def _picture(trak: bytes) -> tuple[int, int]:
    """Width and height of a video track, (0, 0) of any other."""
    parts = dict(_children(trak))
    handler = dict(_children(parts.get(b"mdia", b""))).get(b"hdlr", b"")[8:12]
    if handler != b"vide":
        return 0, 0
    # The last eight bytes are width and height as 16.16 fixed point.
    width, height = struct.unpack(">II", parts[b"tkhd"][-8:]) if b"tkhd" in parts else (0, 0)
    return width >> 16, height >> 16


def _children(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(body):
        size, name = struct.unpack_from(">I4s", body, at)
        if size < 8:
            return
        yield name, body[at + 8 : at + size]
        at += size


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each top-level box; the end may lie beyond the file."""
    at = 0
    while at + 8 <= size:
        file.seek(at, os.SEEK_SET)
        header = file.read(16)
        length, name = struct.unpack_from(">I4s", header)
        skip = 8
        if length == 1 and len(header) == 16:
            length, skip = struct.unpack_from(">Q", header, 8)[0], 16
        elif length == 0:
            length = size - at
        if length < skip:
            return
        yield name, at + skip, at + length
        at += length
