"""One clip's file from the delivery host into the bucket.

One part is in flight at a time, so a crash reads at most one part twice. In ranged mode its bytes
go from socket to socket; where the host sends only whole files, one part is held at a time. A
part is believed when the store's ETag is the MD5 of the bytes that passed, the object when it has
been verified in the bucket.

Cancelling leaves the upload and its checkpoint for whoever resumes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import structlog

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_errors import UploadLostError
from orchestrator.drivers.stored_objects import UploadedPart, is_multipart_etag, may_hold
from orchestrator.transfer.answers import NotYetThereError, RangeIgnoredError, SourceChangedError, SourceFacts
from orchestrator.transfer.checkpoints import Checkpoint, Checkpoints, StoredObject
from orchestrator.transfer.clearing import give_up, give_up_before, give_up_quietly
from orchestrator.transfer.jobs import TransferJob, TransferLimits, TransferProgress, TransferResult
from orchestrator.transfer.parts import missing_parts, part_size_bytes, part_span
from orchestrator.transfer.piping import FilledPart, Passage, filled_parts, slices
from orchestrator.transfer.progress import ProgressMeter
from orchestrator.transfer.source import HttpSource
from orchestrator.transfer.structure import ObjectRefusedError
from orchestrator.transfer.verifying import verify_object

if TYPE_CHECKING:
    from hashlib import _Hash

log = structlog.get_logger(__name__)


async def copy_to_bucket(
    job: TransferJob,
    source: HttpSource,
    store: ObjectStore,
    checkpoints: Checkpoints,
    report: Callable[[TransferProgress], None],
    limits: TransferLimits | None = None,
) -> TransferResult:
    """Copy the file of *job*, or finish a copy begun before; returns once the object is verified.

    Safe to repeat and to run twice at once: both ends are the same bytes at the same key. Memory is
    bounded whatever the file's size.

    Raises:
        TransientError: calling again later continues where this call ended.
        PermanentError: it cannot be copied; the unfinished upload is given up.
    """
    limits = limits or TransferLimits()
    transfer = _Transfer(job, source, store, checkpoints, ProgressMeter(report), limits)
    try:
        async with asyncio.timeout(limits.deadline_seconds):
            return await transfer.run()
    except TimeoutError:
        raise TransientError("transfer_deadline", f"Not copied within {limits.deadline_seconds:.0f} s.") from None


class _Transfer:
    """One call's way through; everything that must outlive it is in the checkpoint."""

    def __init__(
        self,
        job: TransferJob,
        source: HttpSource,
        store: ObjectStore,
        checkpoints: Checkpoints,
        meter: ProgressMeter,
        limits: TransferLimits,
    ) -> None:
        self._job = job
        self._source = source
        self._store = store
        self._checkpoints = checkpoints
        self._meter = meter
        self._limits = limits
        self._log = log.bind(clip_id=job.clip_id, attempt=job.attempt)
        #: The upload being filled, as far as this call knows.
        self._current: Checkpoint | None = None
        #: SHA-256 of everything so far; None once some of it did not pass through this call.
        self._whole: _Hash | None = None

    async def run(self) -> TransferResult:
        await give_up_before(self._store, self._checkpoints, self._job.clip_id, self._job.attempt)
        try:
            return await self._run_with_one_fresh_start()
        except PermanentError as exc:
            # A refused token may be replaced by a fresh one; everything else ends this attempt.
            if self._current is not None and exc.code != "source_forbidden":
                await give_up_quietly(self._store, self._checkpoints, self._current)
            raise

    async def _run_with_one_fresh_start(self) -> TransferResult:
        try:
            return await self._continue()
        except (UploadLostError, SourceChangedError) as exc:
            self._log.warning("The copy begins afresh", code=exc.code)
            if self._current is not None:
                await self._give_up_unless_completed(self._current)
        return await self._continue()

    async def _give_up_unless_completed(self, checkpoint: Checkpoint) -> None:
        """Give up a lost upload; one is lost, too, when somebody else has just completed it.

        Touches nothing if another upload has been begun, or this one finished, meanwhile.
        """
        now = await self._checkpoints.load(checkpoint.clip_id, checkpoint.attempt)
        if now is None or now.upload_id != checkpoint.upload_id or not await self._was_completed(now):
            await give_up(self._store, self._checkpoints, checkpoint)

    async def _continue(self) -> TransferResult:
        self._current = await self._checkpoints.load(self._job.clip_id, self._job.attempt)
        if self._current is not None and self._current.finished is not None:
            return await self._found_again(self._current, self._current.finished)
        if self._current is not None and self._current.is_whole:
            self._meter.begin(self._current.durable_bytes, self._current.source_size_bytes)
            return await self._finish(self._current)
        return await self._finish(await self._copy())

    async def _found_again(self, checkpoint: Checkpoint, stored: StoredObject) -> TransferResult:
        """The result of an earlier call, if the bucket still holds it."""
        head = await self._store.head(checkpoint.key)
        if head is None or (head.size_bytes, head.etag) != (stored.size_bytes, stored.etag):
            raise UploadLostError("object_gone", "The bucket no longer holds the object that was finished.")
        return self._result(checkpoint, stored)

    async def _copy(self) -> Checkpoint:
        """Bring every part into the bucket; returns the checkpoint that lists them all."""
        facts = await self._source.probe(self._job.source_url)
        if facts.size_bytes is not None and facts.size_bytes > self._job.max_bytes:
            raise _too_large(self._job.max_bytes)
        checkpoint = self._current or await self._begin(facts)
        self._current = checkpoint
        if not checkpoint.is_about(facts):
            raise SourceChangedError("source_changed", "The source is another file than the one begun with.")
        if facts.size_bytes is None and await self._was_completed(checkpoint):
            return checkpoint
        self._meter.begin(checkpoint.durable_bytes, facts.size_bytes)
        if facts.is_ranged and facts.size_bytes is not None:
            try:
                return await self._copy_spans(checkpoint, facts, facts.size_bytes)
            except RangeIgnoredError:
                self._log.warning("The source no longer answers ranges, reads it whole")
        return await self._copy_whole(self._current, facts)

    async def _begin(self, facts: SourceFacts) -> Checkpoint:
        job = self._job
        upload_id = await self._store.create_multipart(job.key, job.labels)
        part_bytes = part_size_bytes(facts.size_bytes or job.max_bytes, self._limits.part_floor_bytes)
        mine = Checkpoint(
            clip_id=job.clip_id,
            attempt=job.attempt,
            key=job.key,
            upload_id=upload_id,
            part_size_bytes=part_bytes,
            source_size_bytes=facts.size_bytes,
            source_etag=facts.etag,
            source_last_modified=facts.last_modified,
        )
        in_force = await self._checkpoints.begin(mine)
        if in_force is None or in_force.upload_id != upload_id:
            await self._store.abort(job.key, upload_id)
        if in_force is None:
            raise PermanentError("attempt_superseded", "A newer attempt of this clip has begun.")
        self._log.info("A copy begins", size_bytes=facts.size_bytes, part_bytes=part_bytes, ranged=facts.is_ranged)
        return in_force

    async def _was_completed(self, checkpoint: Checkpoint) -> bool:
        """Whether the bucket holds the object already, and only the record of it is missing.

        A source that hides its length leaves it to the ETag to say that no part is missing.
        """
        if not checkpoint.parts:
            return False
        head = await self._store.head(checkpoint.key)
        if not may_hold(head, checkpoint.parts) or head is None:
            return False
        return checkpoint.is_whole or is_multipart_etag(head.etag)

    async def _copy_spans(self, checkpoint: Checkpoint, facts: SourceFacts, size_bytes: int) -> Checkpoint:
        """Ranged mode: each missing part by a read of its own."""
        self._whole = None if checkpoint.parts else hashlib.sha256()
        there = (part.number for part in checkpoint.parts)
        for number in missing_parts(size_bytes, checkpoint.part_size_bytes, there):
            # What another try of the same part cannot mend goes to those who can.
            retrying = self._limits.patience.retrying(
                UploadLostError, SourceChangedError, RangeIgnoredError, NotYetThereError
            )
            part: UploadedPart = await retrying(self._copy_span, checkpoint, facts, number, size_bytes)
            checkpoint = await self._keep(checkpoint, part)
        return checkpoint

    async def _copy_span(
        self, checkpoint: Checkpoint, facts: SourceFacts, number: int, size_bytes: int
    ) -> UploadedPart:
        span = part_span(number, size_bytes, checkpoint.part_size_bytes)
        passage = Passage(number, self._meter, self._whole)
        async with self._source.read_span(self._job.source_url, span, facts) as chunks:
            part = await self._send(checkpoint, passage, chunks, span.length_bytes)
        self._whole = passage.whole
        return part

    async def _copy_whole(self, checkpoint: Checkpoint, facts: SourceFacts) -> Checkpoint:
        """Whole-file mode: one read from the first byte; parts that are durable already are compared, not sent."""
        self._whole = hashlib.sha256()
        there = {part.number: part for part in checkpoint.parts}
        async with self._source.read_all(self._job.source_url, facts) as chunks:
            async for filled in filled_parts(self._counted(chunks), checkpoint.part_size_bytes):
                kept = there.pop(filled.number, None)
                if kept is None:
                    retrying = self._limits.patience.retrying(UploadLostError)
                    checkpoint = await self._keep(checkpoint, await retrying(self._send_filled, checkpoint, filled))
                elif (kept.etag, kept.size_bytes) != (filled.md5, len(filled.data)):
                    raise SourceChangedError("source_changed", f"Part {filled.number} reads with other bytes now.")
        if there:
            raise SourceChangedError("source_changed", "The source is shorter than what was copied of it.")
        return checkpoint

    async def _send_filled(self, checkpoint: Checkpoint, filled: FilledPart) -> UploadedPart:
        passage = Passage(filled.number, self._meter, None)
        return await self._send(checkpoint, passage, slices(filled.data), len(filled.data))

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """*chunks* up to the most that a file may have, an endless one included."""
        seen_bytes = 0
        async for chunk in chunks:
            seen_bytes += len(chunk)
            if seen_bytes > self._job.max_bytes:
                raise _too_large(self._job.max_bytes)
            if self._whole is not None:
                self._whole.update(chunk)
            yield chunk

    async def _send(
        self, checkpoint: Checkpoint, passage: Passage, chunks: AsyncIterator[bytes], length_bytes: int
    ) -> UploadedPart:
        address = await self._store.presign_part(checkpoint.key, checkpoint.upload_id, passage.part)
        try:
            sent = passage.through(chunks)
            etag = await self._store.put_part(address, sent, length_bytes, self._limits.stall_seconds)
        except DriverError:
            if passage.failure is not None:
                raise passage.failure from None
            raise
        if etag != passage.md5:
            raise TransientError("part_differs", f"The bucket took part {passage.part} with other bytes.")
        return UploadedPart(passage.part, etag, length_bytes)

    async def _keep(self, checkpoint: Checkpoint, part: UploadedPart) -> Checkpoint:
        if not await self._checkpoints.record_part(checkpoint, part):
            raise TransientError("transfer_superseded", "Somebody else has taken over this copy.")
        self._current = checkpoint.with_part(part)
        self._meter.part_is_durable(part.number, part.size_bytes)
        return self._current

    async def _finish(self, checkpoint: Checkpoint) -> TransferResult:
        await self._store.complete(checkpoint.key, checkpoint.upload_id, checkpoint.parts)
        try:
            head = await verify_object(self._store, checkpoint, self._job.expected_duration_seconds)
        except ObjectRefusedError as exc:
            self._log.warning("The copied object is refused", code=exc.code)
            await self._remove_refused(checkpoint)
            raise
        stored = StoredObject(head.size_bytes, head.etag)
        if not await self._checkpoints.finish(checkpoint, stored):
            raise TransientError("transfer_superseded", "Somebody else has taken over this copy.")
        self._meter.end()
        self._log.info("The copy is verified", size_bytes=head.size_bytes)
        return self._result(checkpoint, stored)

    async def _remove_refused(self, checkpoint: Checkpoint) -> None:
        """Remove the object, unless it is another's by now: a finished copy is never deleted by a late one."""
        now = await self._checkpoints.load(checkpoint.clip_id, checkpoint.attempt)
        if now is not None and now.upload_id == checkpoint.upload_id and now.finished is None:
            await self._store.delete(checkpoint.key)
            await give_up(self._store, self._checkpoints, checkpoint)

    def _result(self, checkpoint: Checkpoint, stored: StoredObject) -> TransferResult:
        return TransferResult(
            key=checkpoint.key,
            public_url=self._store.public_url(checkpoint.key),
            size_bytes=stored.size_bytes,
            etag=stored.etag,
            sha256=self._whole.hexdigest() if self._whole is not None else None,
        )


def _too_large(max_bytes: int) -> PermanentError:
    return PermanentError("source_too_large", f"The source is larger than {max_bytes} bytes.")
