"""Where finished clips are served from: a directory of this host, or the bucket."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.stored_objects import ObjectLabels, UploadedPart, may_hold
from orchestrator.pipelines.cut.workshop import Workshop, clip_name, told
from orchestrator.transfer.parts import ByteSpan, part_count, part_size_bytes, part_span

#: Below this in the bucket; as in the addresses.
PREFIX = "outputs/"
_PART_FLOOR_BYTES = 16 * 1024**2
_CHUNK_BYTES = 256 * 1024
_STALL_SECONDS = 60.0
# As the provider's own end of unfinished uploads, but sooner: an export lasts minutes.
_ORPHAN_AGE = timedelta(hours=24)


class Outlet(Protocol):
    """One way of serving clips. Everything is safe to repeat."""

    async def export(self, job_id: str, number: int) -> None:
        """Put the finished clip where it is served. Raises as the drivers do."""
        ...

    async def whole(self, job_id: str, number: int) -> Path:
        """A file with exactly the bytes that are served, to be probed. Raises as the drivers do."""
        ...

    async def withdraw(self, job_id: str, count: int) -> None:
        """Serve the job's clips no longer. Raises as the drivers do."""
        ...

    async def tidy(self) -> int:
        """Remove what crashes have left there; how many things. Raises as the drivers do."""
        ...


class DirectoryOutlet:
    """Clips as files below OUTPUT_ROOT."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def export(self, job_id: str, number: int) -> None:
        """Move it; a rename where that is possible."""
        await asyncio.to_thread(self._workshop.export, job_id, number)

    async def whole(self, job_id: str, number: int) -> Path:
        """The served file itself."""
        return self._workshop.served(job_id, number)

    async def withdraw(self, job_id: str, count: int) -> None:
        """Remove the job's directory."""
        await asyncio.to_thread(self._workshop.withdraw, job_id)

    async def tidy(self) -> int:
        """Nothing: unfinished copies go with their job."""
        return 0


class BucketOutlet:
    """Clips as objects; what was made stays in the work directory until the job is over."""

    def __init__(self, workshop: Workshop, store: ObjectStore) -> None:
        self._workshop = workshop
        self._store = store

    async def export(self, job_id: str, number: int) -> None:
        """Upload it in parts, unless the object is there already."""
        path, key = self._workshop.made(job_id, number), _key(job_id, number)
        with told(f"the clip {path.name}"):
            size_bytes = path.stat().st_size
            part_bytes = part_size_bytes(size_bytes, _PART_FLOOR_BYTES)
            spans = [part_span(n, size_bytes, part_bytes) for n in range(1, part_count(size_bytes, part_bytes) + 1)]
            parts = [await asyncio.to_thread(_part, path, n, span) for n, span in enumerate(spans, 1)]
            if may_hold(await self._store.head(key), parts):
                return
            upload_id = await self._store.create_multipart(key, ObjectLabels())
            for part, span in zip(parts, spans, strict=True):
                address = await self._store.presign_part(key, upload_id, part.number)
                chunks = _chunks(path, span)
                etag = await self._store.put_part(address, chunks, span.length_bytes, _STALL_SECONDS)
                if etag != part.etag:
                    raise TransientError("store_damaged", f"The store took other bytes of {path.name} than were sent")
            await self._store.complete(key, upload_id, parts)
            if not may_hold(await self._store.head(key), parts):
                raise TransientError("store_damaged", f"The store does not hold {path.name} as it was sent")

    async def whole(self, job_id: str, number: int) -> Path:
        """What was uploaded, once the store is seen to hold as many bytes."""
        path = self._workshop.made(job_id, number)
        head = await self._store.head(_key(job_id, number))
        with told(f"the clip {path.name}"):
            if head is None or head.size_bytes != path.stat().st_size:
                raise TransientError("clip_lost", f"{path.name} is not in the bucket as it was made")
        return path

    async def withdraw(self, job_id: str, count: int) -> None:
        """Delete the objects."""
        for number in range(1, count + 1):
            await self._store.delete(_key(job_id, number))

    async def tidy(self) -> int:
        """Abort uploads that stopped half-way a day ago."""
        now = datetime.now(UTC)
        orphans = [each for each in await self._store.list_uploads(PREFIX) if now - each.started_at > _ORPHAN_AGE]
        for orphan in orphans:
            await self._store.abort(orphan.key, orphan.upload_id)
        return len(orphans)


def _key(job_id: str, number: int) -> str:
    return f"{PREFIX}{job_id}/{clip_name(number)}"


def _part(path: Path, number: int, span: ByteSpan) -> UploadedPart:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(span.start)
        left = span.length_bytes
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            digest.update(chunk)
            left -= len(chunk)
    return UploadedPart(number, digest.hexdigest(), span.length_bytes)


async def _chunks(path: Path, span: ByteSpan) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(span.start)
        left = span.length_bytes
        while left:
            chunk = await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk
