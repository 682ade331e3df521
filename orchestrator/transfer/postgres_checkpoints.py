"""Checkpoints in the tables `transfers` and `transfer_parts`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import asyncpg

from orchestrator.drivers.database import connection_of
from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.patience import Patience
from orchestrator.drivers.stored_objects import UploadedPart
from orchestrator.transfer.checkpoints import Checkpoint, StoredObject

T = TypeVar("T")

#: One statement on a few rows; a database that needs longer is ill.
_STATEMENT_SECONDS = 10.0

_COLUMNS = """clip_id, attempt, object_key, upload_id, part_size_bytes, source_size_bytes, source_etag,
    source_last_modified"""

_LOAD = f"""
-- load_transfer: one attempt with its parts
SELECT {_COLUMNS}, finished_at, stored_size_bytes, stored_etag,
       (SELECT coalesce(array_agg(ARRAY[p.number::text, p.etag, p.size_bytes::text] ORDER BY p.number), '{{}}')
          FROM transfer_parts AS p WHERE p.clip_id = t.clip_id AND p.attempt = t.attempt) AS parts
  FROM transfers AS t WHERE clip_id = $1 AND attempt = $2
"""

_BEGIN = f"""
-- begin_transfer: only if this attempt has none, and no newer attempt has begun
INSERT INTO transfers ({_COLUMNS})
SELECT $1, $2::int, $3, $4, $5::bigint, $6::bigint, $7, $8
 WHERE NOT EXISTS (SELECT FROM transfers WHERE clip_id = $1 AND attempt > $2)
ON CONFLICT (clip_id, attempt) DO NOTHING
"""

_RECORD_PART = """
-- record_part: only while this upload is the one in force; the lock holds off whoever gives it up
WITH mine AS (
    SELECT clip_id, attempt FROM transfers
     WHERE clip_id = $1 AND attempt = $2 AND upload_id = $3 AND finished_at IS NULL FOR SHARE)
INSERT INTO transfer_parts (clip_id, attempt, number, etag, size_bytes)
SELECT clip_id, attempt, $4::int, $5, $6::bigint FROM mine
ON CONFLICT (clip_id, attempt, number) DO UPDATE SET etag = excluded.etag, size_bytes = excluded.size_bytes
RETURNING true
"""

_FINISH = """
-- finish_transfer: only this upload; its parts are of no more use
WITH mine AS (
    UPDATE transfers SET finished_at = coalesce(finished_at, now()), stored_size_bytes = $4, stored_etag = $5
     WHERE clip_id = $1 AND attempt = $2 AND upload_id = $3 RETURNING clip_id, attempt),
     cleared AS (DELETE FROM transfer_parts USING mine
                  WHERE transfer_parts.clip_id = mine.clip_id AND transfer_parts.attempt = mine.attempt)
SELECT true FROM mine
"""

_DISCARD = """
-- discard_transfer: only this upload, and a finished one only for somebody who knows that it is
DELETE FROM transfers
 WHERE clip_id = $1 AND attempt = $2 AND upload_id = $3 AND (finished_at IS NULL OR $4::boolean)
RETURNING true
"""

_UNFINISHED = f"""
-- unfinished_transfers: what older attempts left behind
SELECT {_COLUMNS} FROM transfers WHERE clip_id = $1 AND attempt < $2 AND finished_at IS NULL ORDER BY attempt
"""

_LIVE = "SELECT upload_id FROM transfers WHERE finished_at IS NULL AND upload_id = ANY($1::text[])"

_DISCARD_UNFINISHED = "DELETE FROM transfers WHERE finished_at IS NULL AND started_at < $1 RETURNING 1"


class PostgresCheckpoints:
    """Implements `Checkpoints`. A database that restarts under a transfer is waited out: every statement here
    may be repeated.
    """

    def __init__(self, pool: Any, patience: Patience | None = None) -> None:
        self._pool = pool
        self._patience = patience or Patience()

    async def load(self, clip_id: str, attempt: int) -> Checkpoint | None:
        row = await self._run(lambda db: db.fetchrow(_LOAD, clip_id, attempt))
        return None if row is None else _with_ending(_checkpoint(row), row)

    async def begin(self, checkpoint: Checkpoint) -> Checkpoint | None:
        one = checkpoint
        values = (one.clip_id, one.attempt, one.key, one.upload_id, one.part_size_bytes)
        source = (one.source_size_bytes, one.source_etag, one.source_last_modified)
        await self._run(lambda db: db.execute(_BEGIN, *values, *source))
        return await self.load(one.clip_id, one.attempt)

    async def record_part(self, checkpoint: Checkpoint, part: UploadedPart) -> bool:
        values = (*_name(checkpoint), part.number, part.etag, part.size_bytes)
        return bool(await self._run(lambda db: db.fetchval(_RECORD_PART, *values)))

    async def finish(self, checkpoint: Checkpoint, stored: StoredObject) -> bool:
        values = (*_name(checkpoint), stored.size_bytes, stored.etag)
        return bool(await self._run(lambda db: db.fetchval(_FINISH, *values)))

    async def discard(self, checkpoint: Checkpoint) -> bool:
        values = (*_name(checkpoint), checkpoint.finished is not None)
        return bool(await self._run(lambda db: db.fetchval(_DISCARD, *values)))

    async def unfinished(self, clip_id: str, before_attempt: int) -> Sequence[Checkpoint]:
        return [_checkpoint(row) for row in await self._run(lambda db: db.fetch(_UNFINISHED, clip_id, before_attempt))]

    async def live_uploads(self, upload_ids: Sequence[str]) -> set[str]:
        rows = await self._run(lambda db: db.fetch(_LIVE, list(upload_ids)))
        return {str(row["upload_id"]) for row in rows}

    async def discard_unfinished(self, started_before: datetime) -> int:
        return len(await self._run(lambda db: db.fetch(_DISCARD_UNFINISHED, started_before)))

    async def _run(self, statement: Callable[[Any], Awaitable[T]]) -> T:
        return await self._patience.retrying()(self._once, statement)

    async def _once(self, statement: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with connection_of(self._pool, _STATEMENT_SECONDS) as connection:
                async with asyncio.timeout(_STATEMENT_SECONDS):
                    return await statement(connection)
        except asyncpg.PostgresError as exc:
            raise TransientError("checkpoints_refused", f"No checkpoint now ({type(exc).__name__}).") from exc


def _name(checkpoint: Checkpoint) -> tuple[str, int, str]:
    return checkpoint.clip_id, checkpoint.attempt, checkpoint.upload_id


def _checkpoint(row: Any) -> Checkpoint:
    return Checkpoint(
        clip_id=row["clip_id"],
        attempt=row["attempt"],
        key=row["object_key"],
        upload_id=row["upload_id"],
        part_size_bytes=row["part_size_bytes"],
        source_size_bytes=row["source_size_bytes"],
        source_etag=row["source_etag"],
        source_last_modified=row["source_last_modified"],
    )


def _with_ending(checkpoint: Checkpoint, row: Any) -> Checkpoint:
    parts = tuple(UploadedPart(int(number), etag, int(size)) for number, etag, size in row["parts"])
    finished = StoredObject(row["stored_size_bytes"], row["stored_etag"]) if row["finished_at"] else None
    return replace(checkpoint, parts=parts, finished=finished)
