"""Where a transfer stands, kept so that a crash costs at most one part.

Every write names the upload it is about. A writer whose upload has been given up, or whose
attempt is no longer the newest, changes nothing and is told so; that is all the fencing a
transfer needs, because the store itself has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from orchestrator.drivers.stored_objects import UploadedPart
from orchestrator.transfer.answers import SourceFacts


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object as it was when it had been verified; *etag* as the store's HEAD gives it."""

    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One upload of one attempt, and what of it is durable."""

    clip_id: str
    attempt: int
    key: str
    upload_id: str
    part_size_bytes: int
    source_size_bytes: int | None
    source_etag: str | None
    source_last_modified: str | None
    parts: tuple[UploadedPart, ...] = ()
    finished: StoredObject | None = None

    @property
    def durable_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)

    @property
    def is_whole(self) -> bool:
        """Whether every part is durable; never true while the source hides its length."""
        return self.source_size_bytes is not None and self.durable_bytes == self.source_size_bytes

    def is_about(self, facts: SourceFacts) -> bool:
        """Whether the source is still the file of which the parts were taken.

        The date counts only where there is no ETag, and only here: two edges of a delivery network
        may disagree about it, which may cost one fresh start but must not stop every part.
        """
        if facts.size_bytes != self.source_size_bytes:
            return False
        if facts.etag is not None and self.source_etag is not None:
            return facts.etag == self.source_etag
        both_dated = facts.last_modified is not None and self.source_last_modified is not None
        return not both_dated or facts.last_modified == self.source_last_modified

    def with_part(self, part: UploadedPart) -> Checkpoint:
        if not self.parts or part.number > self.parts[-1].number:
            return replace(self, parts=(*self.parts, part))
        others = [one for one in self.parts if one.number != part.number]
        return replace(self, parts=tuple(sorted([*others, part], key=lambda one: one.number)))


class Checkpoints(Protocol):
    """Durable memory of transfers. Every call may be repeated; failures are TransientError."""

    async def load(self, clip_id: str, attempt: int) -> Checkpoint | None:
        """What is known of this attempt, parts in order."""

    async def begin(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Keep *checkpoint* unless there is one; returns the one in force, None if a newer attempt exists."""

    async def record_part(self, checkpoint: Checkpoint, part: UploadedPart) -> bool:
        """Keep a durable part; False if this upload is no longer the one in force."""

    async def finish(self, checkpoint: Checkpoint, stored: StoredObject) -> bool:
        """Keep the verified end; False if this upload is no longer the one in force."""

    async def discard(self, checkpoint: Checkpoint) -> bool:
        """Forget this upload; False if it was not the one in force, or was finished unknown to the caller."""

    async def unfinished(self, clip_id: str, before_attempt: int) -> Sequence[Checkpoint]:
        """Uploads of older attempts that nobody finished, without their parts."""

    async def live_uploads(self, upload_ids: Sequence[str]) -> set[str]:
        """Those of *upload_ids* that an unfinished checkpoint knows."""

    async def discard_unfinished(self, started_before: datetime) -> int:
        """Forget unfinished checkpoints from before that moment; returns how many."""
