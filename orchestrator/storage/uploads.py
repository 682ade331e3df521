"""Files that were sent to be cut: the rows. Their bytes are on disk before there is a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

_COLUMNS = "id, filename, size_bytes, sha256, created_at"
_READ = f"SELECT {_COLUMNS} FROM uploads WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Upload:
    """One stored file."""

    id: str
    filename: str | None
    size_bytes: int
    sha256: str
    created_at: datetime


async def read_upload(connection: asyncpg.Connection, upload_id: str) -> Upload | None:
    """The upload, or None when there is none."""
    row = await connection.fetchrow(_READ, upload_id)
    return Upload(**row) if row else None


async def store_upload(
    connection: asyncpg.Connection, upload_id: str, filename: str | None, size_bytes: int, sha256: str
) -> Upload:
    """Note a file whose bytes are on disk; where the id is known already, what is known of it."""
    row = await connection.fetchrow(
        f"INSERT INTO uploads (id, filename, size_bytes, sha256) VALUES ($1, $2, $3, $4)"
        f" ON CONFLICT (id) DO UPDATE SET used_at = clock_timestamp() RETURNING {_COLUMNS}",
        upload_id,
        filename,
        size_bytes,
        sha256,
    )
    return Upload(**row)


async def use_upload(connection: asyncpg.Connection, upload_id: str) -> Upload | None:
    """The upload, kept for another while because somebody wants it; None when there is none."""
    row = await connection.fetchrow(
        f"UPDATE uploads SET used_at = clock_timestamp() WHERE id = $1 RETURNING {_COLUMNS}", upload_id
    )
    return Upload(**row) if row else None


async def forget_uploads(connection: asyncpg.Connection, unused_for: timedelta) -> list[str]:
    """Delete the rows of uploads nobody has wanted for that long; their ids. The bytes are the caller's to remove.

    An upload that an unfinished job names stays, and so does one that is wanted at this very moment.
    """
    rows = await connection.fetch(
        "DELETE FROM uploads u WHERE u.used_at < statement_timestamp() - $1::interval AND NOT EXISTS ("
        " SELECT FROM clips c WHERE c.look_at IS NOT NULL AND c.processing_details ->> 'upload_id' = u.id)"
        " RETURNING u.id",
        unused_for,
    )
    return [row["id"] for row in rows]
