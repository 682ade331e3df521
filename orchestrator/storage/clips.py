"""Reading clips and their history: the rows as values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

# Everything about a clip but where it was fetched from, which only the monitor may read.
COLUMNS = (
    "id, pipeline, cloudflare_uid, title, status, progress, processing_details, attempt, duration, file_size,"
    " thumbnail_url, hls_url, dash_url, mp4_url, r2_url, error_message, uploaded_at, completed_at, created_at,"
    " updated_at, upload_expires_at, status_since, look_at, tries, pending, epoch, version"
)


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of ``clips``; times are aware UTC, *duration* seconds, *file_size* bytes, *progress* 0-100."""

    id: str
    pipeline: str
    cloudflare_uid: str | None
    title: str | None
    status: str
    progress: float
    processing_details: Mapping[str, Any]
    attempt: int
    duration: float | None
    file_size: int | None
    thumbnail_url: str | None
    hls_url: str | None
    dash_url: str | None
    mp4_url: str | None
    r2_url: str | None
    error_message: str | None
    uploaded_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    upload_expires_at: datetime | None
    status_since: datetime
    look_at: datetime | None
    tries: int
    pending: int
    epoch: int
    version: int


def clip_from_row(row: Mapping[str, Any]) -> Clip:
    """A clip from a row that has `COLUMNS`."""
    values = {name: row[name] for name in Clip.__slots__}
    values["progress"] = float(values["progress"])
    values["processing_details"] = json.loads(values["processing_details"])
    return Clip(**values)


async def read_clip(connection: asyncpg.Connection, clip_id: str) -> Clip | None:
    """The clip, or None when there is none."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM clips WHERE id = $1", clip_id)
    return clip_from_row(row) if row else None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a clip stands: of its row what changes and is asked for most, and nothing of any size."""

    id: str
    pipeline: str
    status: str
    progress: float
    error_message: str | None
    updated_at: datetime
    status_since: datetime
    version: int


async def read_standings(connection: asyncpg.Connection, clip_ids: Sequence[str]) -> dict[str, Standing]:
    """Where the clips stand, by id; those that do not exist are left out."""
    rows = await connection.fetch(_STANDINGS, clip_ids)
    return {row["id"]: Standing(*row.values()) for row in rows}


async def read_versions(connection: asyncpg.Connection, clip_ids: Sequence[str]) -> dict[str, int]:
    """The number of each clip's last change, by id; those that do not exist are left out."""
    return dict(await connection.fetch(_VERSIONS, clip_ids))


# The arrays are hidden from the planner, which would plan anew for each of their lengths.
_STANDINGS = """
SELECT id, pipeline, status, progress::float8 AS progress, error_message, updated_at, status_since, version
  FROM unnest((SELECT $1::text[])) AS wanted(id_of_clip) JOIN clips ON id = id_of_clip
"""
_VERSIONS = "SELECT id, version FROM unnest((SELECT $1::text[])) AS wanted(id_of_clip) JOIN clips ON id = id_of_clip"


async def read_clip_by_uid(connection: asyncpg.Connection, uid: str) -> Clip | None:
    """The clip that has this provider id, or None."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM clips WHERE cloudflare_uid = $1", uid)
    return clip_from_row(row) if row else None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a clip's history."""

    id: int
    at: datetime
    kind: str
    attempt: int
    from_status: str | None
    to_status: str | None
    progress: float | None
    source: str
    details: Mapping[str, Any]


async def read_events(connection: asyncpg.Connection, clip_id: str, after: int = 0, limit: int = 200) -> list[Event]:
    """The history of a clip, oldest first, past the event id *after*."""
    rows = await connection.fetch(f"{_EVENTS} AND id > $2 ORDER BY id LIMIT $3", clip_id, after, limit)
    return [_event_from_row(row) for row in rows]


async def read_newest_events(connection: asyncpg.Connection, clip_id: str, limit: int) -> list[Event]:
    """The end of a clip's history, oldest first."""
    rows = await connection.fetch(f"{_EVENTS} ORDER BY id DESC LIMIT $2", clip_id, limit)
    return [_event_from_row(row) for row in reversed(rows)]


async def read_newest_moves(connection: asyncpg.Connection, clip_id: str, limit: int) -> list[Event]:
    """The moves at the end of a clip's history, its creation among them, oldest first: whatever else stands between."""
    where = f"{_EVENTS} AND kind IN ('created', 'moved')"
    rows = await connection.fetch(f"{where} ORDER BY id DESC LIMIT $2", clip_id, limit)
    return [_event_from_row(row) for row in reversed(rows)]


_EVENTS = (
    "SELECT id, at, kind, attempt, from_status, to_status, progress::float8 AS progress, source, details"
    " FROM clip_events WHERE clip_id = $1"
)


def _event_from_row(row: Mapping[str, Any]) -> Event:
    return Event(**{**row, "details": json.loads(row["details"])})
