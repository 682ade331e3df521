"""What a job makes: one row for each file, from the moment it is cut; they are served once the job is complete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import asyncpg

from signals import CHANGED_CHANNEL


@dataclass(frozen=True, slots=True)
class Artifact:
    """One finished clip of a job; *number* counts from 1, *name* is its file's."""

    number: int
    name: str
    start_seconds: float
    end_seconds: float
    duration_seconds: float
    size_bytes: int
    width: int
    height: int
    has_sound: bool
    published_as: str | None = None


_UPSERT = """
WITH found AS (
    SELECT * FROM jsonb_to_recordset($2::jsonb) AS f(
        number integer, name text, start_seconds float8, end_seconds float8, duration_seconds float8,
        size_bytes bigint, width integer, height integer, has_sound boolean)
){gone}
INSERT INTO artifacts (clip_id, number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width, height,
                       has_sound)
SELECT $1, number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width, height, has_sound FROM found
    ON CONFLICT (clip_id, number) DO UPDATE
   SET start_seconds = excluded.start_seconds, end_seconds = excluded.end_seconds,
       duration_seconds = excluded.duration_seconds, size_bytes = excluded.size_bytes
"""
_NOTE = _UPSERT.format(gone="")
# What a former attempt made and this one did not is no part of the job.
_WRITE = _UPSERT.format(
    gone=""", gone AS (
    DELETE FROM artifacts WHERE clip_id = $1 AND number NOT IN (SELECT number FROM found)
)"""
)


async def write_artifacts(connection: asyncpg.Connection, clip_id: str, found: Sequence[Artifact]) -> None:
    """Note exactly *found* as what the job has made; safe to repeat."""
    await connection.execute(_WRITE, clip_id, json.dumps([asdict(each) for each in found]))


async def note_artifact(connection: asyncpg.Connection, clip_id: str, found: Artifact) -> None:
    """Note one more file of the job, and tell who looks on; safe to repeat."""
    async with connection.transaction():
        await connection.execute(_NOTE, clip_id, json.dumps([asdict(found)]))
        await connection.execute("SELECT pg_notify($1, $2)", CHANGED_CHANNEL, clip_id)


async def read_artifacts(connection: asyncpg.Connection, clip_id: str) -> list[Artifact]:
    """What the job has made, in order."""
    rows = await connection.fetch(
        "SELECT number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width, height, has_sound,"
        " published_as FROM artifacts WHERE clip_id = $1 ORDER BY number",
        clip_id,
    )
    return [Artifact(**row) for row in rows]


# publish: one clip for each file, under an id that follows from the job's, so that a repeat makes no second one
_PUBLISH = """
WITH made AS (
    SELECT a.number, $1 || '_' || to_char(a.number, 'FM0000') AS id, $3 || '/outputs/' || $1 || '/' || a.name AS url,
           coalesce(c.title, $1) || ' · ' || a.number AS title
      FROM artifacts a JOIN clips c ON c.id = a.clip_id WHERE a.clip_id = $1
), carried AS (
    INSERT INTO clips (id, pipeline, title, source_url, processing_details)
    SELECT id, $2, left(title, 500), url,
           jsonb_build_object('created_by', 'cut', 'origin', 'url', 'has_source_url', true, 'parent', $1::text,
                              'parent_number', number)
      FROM made
        ON CONFLICT (id) DO NOTHING
)
UPDATE artifacts a SET published_as = made.id FROM made WHERE a.clip_id = $1 AND a.number = made.number
RETURNING made.id
"""


async def publish_artifacts(connection: asyncpg.Connection, clip_id: str, pipeline: str, base_url: str) -> list[str]:
    """Make a clip of *pipeline* of each file the job has made; their ids. Safe to repeat."""
    rows = await connection.fetch(_PUBLISH, clip_id, pipeline, base_url)
    return [row["id"] for row in rows]
