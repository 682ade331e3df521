"""The proof before `complete`: the object in our own bucket has the size, the bytes and the shape it should have."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_errors import ObjectMissingError
from orchestrator.drivers.stored_objects import ObjectHead, UploadedPart, is_multipart_etag, multipart_etag
from orchestrator.transfer.checkpoints import Checkpoint
from orchestrator.transfer.structure import Expected, ObjectRefusedError, check_structure

#: What is held at once while an object is read back.
_READ_BACK_BYTES = 4 * 1024 * 1024


async def verify_object(
    store: ObjectStore, checkpoint: Checkpoint, expected_duration_seconds: float | None
) -> ObjectHead:
    """What the store says of the finished object, once it is known to be the parts of *checkpoint* and a whole MP4.

    Raises:
        ObjectMissingError: there is nothing at the key.
        ObjectRefusedError: there is something else.
    """
    head = await store.head(checkpoint.key)
    if head is None:
        raise ObjectMissingError("object_missing", "The bucket does not hold the object it took.")
    if head.size_bytes != checkpoint.durable_bytes:
        raise ObjectRefusedError(
            "object_size_differs", f"The bucket holds {head.size_bytes} bytes instead of {checkpoint.durable_bytes}."
        )
    if not is_multipart_etag(head.etag):
        await _read_back(store, checkpoint.key, checkpoint.parts)
    elif head.etag != multipart_etag(checkpoint.parts):
        raise ObjectRefusedError("object_etag_differs", "The bucket's object has another ETag than its parts give.")

    async def read(start: int, length_bytes: int) -> bytes:
        return await store.read_range(checkpoint.key, start, length_bytes)

    expected = Expected(expected_duration_seconds, is_length_known=checkpoint.source_size_bytes is not None)
    await check_structure(read, head.size_bytes, expected)
    return head


async def _read_back(store: ObjectStore, key: str, parts: Sequence[UploadedPart]) -> None:
    """Compare every part with what is stored, for stores whose ETag says nothing of parts.

    R2's does; rclone's, used on one machine, is the MD5 of the whole, which a resumed copy cannot know.
    """
    start = 0
    for part in parts:
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, part.size_bytes, _READ_BACK_BYTES):
            length_bytes = min(_READ_BACK_BYTES, part.size_bytes - offset)
            digest.update(await store.read_range(key, start + offset, length_bytes))
        if digest.hexdigest() != part.etag:
            raise ObjectRefusedError("object_etag_differs", f"Part {part.number} reads back with other bytes.")
        start += part.size_bytes
