"""Checkpoints in memory, where a test needs no database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.drivers.stored_objects import UploadedPart
from orchestrator.transfer.checkpoints import Checkpoint, StoredObject


class MemoryCheckpoints:
    """Checkpoints as they are promised, without a database. Keeps what was recorded, to look at."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self.rows: dict[tuple[str, int], Checkpoint] = {}
        self.started: dict[tuple[str, int], datetime] = {}
        self.recorded: list[int] = []

    async def load(self, clip_id: str, attempt: int) -> Checkpoint | None:
        return self.rows.get((clip_id, attempt))

    async def begin(self, checkpoint: Checkpoint) -> Checkpoint | None:
        name = (checkpoint.clip_id, checkpoint.attempt)
        if not any(clip == name[0] and attempt > name[1] for clip, attempt in self.rows) and name not in self.rows:
            self.rows[name], self.started[name] = checkpoint, self._clock()
        return self.rows.get(name)

    async def record_part(self, checkpoint: Checkpoint, part: UploadedPart) -> bool:
        row = self._mine(checkpoint)
        if row is None or row.finished is not None:
            return False
        self.rows[checkpoint.clip_id, checkpoint.attempt] = row.with_part(part)
        self.recorded.append(part.number)
        return True

    async def finish(self, checkpoint: Checkpoint, stored: StoredObject) -> bool:
        row = self._mine(checkpoint)
        if row is None:
            return False
        self.rows[checkpoint.clip_id, checkpoint.attempt] = replace(row, parts=(), finished=stored)
        return True

    async def discard(self, checkpoint: Checkpoint) -> bool:
        row = self._mine(checkpoint)
        if row is None or (row.finished is not None and checkpoint.finished is None):
            return False
        del self.rows[checkpoint.clip_id, checkpoint.attempt]
        return True

    async def unfinished(self, clip_id: str, before_attempt: int) -> Sequence[Checkpoint]:
        found = [
            row for (clip, attempt), row in sorted(self.rows.items()) if clip == clip_id and attempt < before_attempt
        ]
        return [replace(row, parts=()) for row in found if row.finished is None]

    async def live_uploads(self, upload_ids: Sequence[str]) -> set[str]:
        return {row.upload_id for row in self.rows.values() if row.finished is None} & set(upload_ids)

    async def discard_unfinished(self, started_before: datetime) -> int:
        old = [name for name, row in self.rows.items() if row.finished is None and self.started[name] < started_before]
        for name in old:
            del self.rows[name]
        return len(old)

    def _mine(self, checkpoint: Checkpoint) -> Checkpoint | None:
        row = self.rows.get((checkpoint.clip_id, checkpoint.attempt))
        return row if row is not None and row.upload_id == checkpoint.upload_id else None
