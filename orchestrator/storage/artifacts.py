"""What a job has made: one row for each file, written when all of them are whole and served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import asyncpg


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


_WRITE = """
WITH found AS (
    SELECT * FROM jsonb_to_recordset($2::jsonb) AS f(
        number integer, name text, start_seconds float8, end_seconds float8, duration_seconds float8,
        size_bytes bigint, width integer, height integer, has_sound boolean)
), gone AS (
    DELETE FROM artifacts WHERE clip_id = $1 AND number NOT IN (SELECT number FROM found)
)
INSERT INTO artifacts (clip_id, number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width, height,
                       has_sound)
SELECT $1, number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width, height, has_sound FROM found
    ON CONFLICT (clip_id, number) DO UPDATE
   SET start_seconds = excluded.start_seconds, end_seconds = excluded.end_seconds,
       duration_seconds = excluded.duration_seconds, size_bytes = excluded.size_bytes
"""


async def write_artifacts(connection: asyncpg.Connection, clip_id: str, found: Sequence[Artifact]) -> None:
    """Note exactly *found* as what the job has made; safe to repeat."""
    await connection.execute(_WRITE, clip_id, json.dumps([asdict(each) for each in found]))


async def read_artifacts(connection: asyncpg.Connection, clip_id: str) -> list[Artifact]:
    """What the job has made, in order."""
    rows = await connection.fetch(
        "SELECT number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width, height, has_sound,"
        " published_as FROM artifacts WHERE clip_id = $1 ORDER BY number",
        clip_id,
    )
    return [Artifact(**row) for row in rows]
