"""Bytes on their way through: counted, hashed, told; and the one buffer used where parts cannot be read singly."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.drivers.errors import DriverError
from orchestrator.transfer.progress import ProgressMeter

if TYPE_CHECKING:
    from hashlib import _Hash

_SLICE_BYTES = 128 * 1024


class Passage:
    """One try at one part: what passed, and whether it was the source that failed.

    *whole* is the running SHA-256 of everything before this part; it is copied, so that a try which
    fails leaves no trace in it.
    """

    def __init__(self, part: int, meter: ProgressMeter, whole: _Hash | None) -> None:
        self.part = part
        self.failure: DriverError | None = None
        self.whole = whole.copy() if whole is not None else None
        self._meter = meter
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._seen_bytes = 0

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    async def through(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """*chunks* unchanged. A failure of their source is kept: the client that pulls them would wrap it."""
        try:
            async for chunk in chunks:
                self._md5.update(chunk)
                if self.whole is not None:
                    self.whole.update(chunk)
                self._seen_bytes += len(chunk)
                self._meter.moved(self.part, self._seen_bytes)
                yield chunk
        except DriverError as exc:
            self.failure = exc
            raise


@dataclass(frozen=True, slots=True)
class FilledPart:
    """A part held in memory; valid until the next one is asked for."""

    number: int
    data: memoryview
    md5: str


async def filled_parts(chunks: AsyncIterator[bytes], part_bytes: int) -> AsyncIterator[FilledPart]:
    """*chunks* cut into parts of exactly *part_bytes*, the last one shorter; one buffer serves them all."""
    buffer = bytearray(part_bytes)
    number, held, digest = 1, 0, hashlib.md5(usedforsecurity=False)
    async for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = rest[: part_bytes - held]
            buffer[held : held + len(taken)] = taken
            digest.update(taken)
            held += len(taken)
            rest = rest[len(taken) :]
            if held == part_bytes:
                yield FilledPart(number, memoryview(buffer), digest.hexdigest())
                number, held, digest = number + 1, 0, hashlib.md5(usedforsecurity=False)
    if held:
        yield FilledPart(number, memoryview(buffer)[:held], digest.hexdigest())


async def slices(data: memoryview) -> AsyncIterator[bytes]:
    """*data* in pieces that a socket takes without holding up the loop."""
    for start in range(0, len(data), _SLICE_BYTES):
        yield bytes(data[start : start + _SLICE_BYTES])
