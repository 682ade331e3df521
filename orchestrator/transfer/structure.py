"""Whether an object is a whole MP4: its boxes walked from the first to exactly the last byte.

A file cut in the middle keeps its header, and the header still claims the full duration. What
it cannot keep is the sum: some box now reaches beyond the end. Only headers are read, in small
windows, so a file of any size costs a handful of reads, a fragmented one one read per 64 KiB or
fragment.

Boxes: ISO/IEC 14496-12. A header is a 32-bit size and a name; size 1 means a 64-bit size follows,
size 0 means the box reaches to the end of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.drivers.errors import TransientError

ReadRange = Callable[[int, int], Awaitable[bytes]]

_WINDOW_BYTES = 64 * 1024
#: 10,000 fragments of two boxes each are 5 hours of 2-second fragments; the provider's file is not fragmented at all.
_MOST_BOXES = 20_000
#: mvhd is the first child of moov by custom, not by law.
_MOST_CHILDREN = 64


class ObjectRefusedError(TransientError):
    """The object in the bucket is not the file that was announced; reading the source again may give it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of the file from elsewhere."""

    duration_seconds: float | None
    #: False when the source hid its length, so that a cut between two boxes is possible too.
    is_length_known: bool


@dataclass(frozen=True, slots=True)
class Box:
    name: bytes
    start: int
    header_bytes: int
    end: int
    #: The box names no size of its own.
    is_open: bool = False

    @property
    def body(self) -> int:
        return self.start + self.header_bytes


async def check_structure(read: ReadRange, size_bytes: int, expected: Expected) -> None:
    """Raise unless the *size_bytes* bytes behind *read* are one whole MP4 of the expected duration.

    Raises:
        ObjectRefusedError: `object_not_mp4`, `object_cut`, `object_incomplete` or `object_duration_differs`.
    """
    window = _Window(read, size_bytes)
    seen: dict[bytes, Box] = {}
    last = Box(b"", 0, 0, 0)
    for count in range(_MOST_BOXES + 1):
        if last.end == size_bytes:
            break
        if count == _MOST_BOXES:
            raise _refused("object_incomplete", f"more than {_MOST_BOXES} boxes")
        last = await _box_at(window, last.end, size_bytes)
        if count == 0 and last.name != b"ftyp":
            raise _refused("object_not_mp4", "no ftyp box at the start")
        seen.setdefault(last.name, last)
    _check_boxes(seen, last, expected)
    await _check_duration(window, seen[b"moov"], expected.duration_seconds)


def _check_boxes(seen: dict[bytes, Box], last: Box, expected: Expected) -> None:
    for name in (b"moov", b"mdat"):
        if name not in seen:
            raise _refused("object_incomplete", f"no {name.decode()} box")
    if expected.is_length_known:
        return
    if last.is_open:
        raise _refused("object_incomplete", "its last box is open and the source hid its length")
    if b"moof" in seen and last.name != b"mfra":
        raise _refused("object_incomplete", "fragments without an index at the end, and the source hid its length")


async def _check_duration(window: _Window, moov: Box, expected_seconds: float | None) -> None:
    if expected_seconds is None or expected_seconds <= 0:
        return
    seconds = await _duration_seconds(window, moov)
    if seconds is None:
        return
    # The provider's figure and the file's differ by an audio frame or a rounding, not by more.
    allowed_seconds = max(1.0, expected_seconds * 0.01)
    if abs(seconds - expected_seconds) > allowed_seconds:
        raise _refused("object_duration_differs", f"{seconds:.1f} s long instead of {expected_seconds:.1f} s")


async def _duration_seconds(window: _Window, moov: Box) -> float | None:
    """The duration in mvhd; None where it is left open, as in fragmented files."""
    position = moov.body
    for _ in range(_MOST_CHILDREN):
        if position >= moov.end:
            break
        child = await _box_at(window, position, moov.end)
        if child.name == b"mvhd":
            return _read_mvhd(await window.at(child.body, min(32, child.end - child.body)))
        position = child.end
    raise _refused("object_incomplete", "no mvhd box")


def _read_mvhd(body: bytes) -> float | None:
    try:
        # Version, flags, creation and modification time, then time scale and duration.
        if body[0] == 1:
            scale, units = struct.unpack_from(">IQ", body, 20)
            is_open = units == 2**64 - 1
        else:
            scale, units = struct.unpack_from(">II", body, 12)
            is_open = units == 2**32 - 1
    except (IndexError, struct.error):
        raise _refused("object_cut", "its mvhd box is too short") from None
    return None if is_open or units == 0 or scale == 0 else units / scale


async def _box_at(window: _Window, start: int, limit: int) -> Box:
    """The box that begins at *start* and must end at or before *limit*."""
    header = await window.at(start, min(16, limit - start))
    if len(header) < 8:
        raise _refused("object_cut", "it ends inside a box header")
    size, name = struct.unpack_from(">I4s", header)
    header_bytes, is_open = 8, False
    if size == 1:
        if len(header) < 16:
            raise _refused("object_cut", "it ends inside a box header")
        (size,), header_bytes = struct.unpack_from(">Q", header, 8), 16
    elif size == 0:
        if name != b"mdat":  # allowed by the letter for others; in practice it is padding after the end
            raise _refused("object_not_mp4", "an open box that is not mdat")
        size, is_open = limit - start, True
    if size < header_bytes:
        raise _refused("object_not_mp4", "a box smaller than its own header")
    if start + size > limit:
        raise _refused("object_cut", "a box reaches beyond the end")
    return Box(name, start, header_bytes, start + size, is_open)


class _Window:
    """Small reads served from one larger one, since neighbouring headers are often close together."""

    def __init__(self, read: ReadRange, size_bytes: int) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._start = 0
        self._held = b""

    async def at(self, start: int, length_bytes: int) -> bytes:
        if not self._start <= start <= start + length_bytes <= self._start + len(self._held):
            wanted = min(_WINDOW_BYTES, self._size_bytes - start)
            self._start, self._held = start, await self._read(start, wanted)
            if len(self._held) != wanted:
                raise _refused("object_cut", "it is shorter than the store said")
        offset = start - self._start
        return self._held[offset : offset + length_bytes]


def _refused(code: str, what: str) -> ObjectRefusedError:
    return ObjectRefusedError(code, f"The copied object is not a whole MP4: {what}.")
