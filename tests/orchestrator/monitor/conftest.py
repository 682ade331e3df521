"""A leader's term on a real database, and clips to judge."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import structlog

from orchestrator.storage.clips import Clip
from statusutils import ERROR, STREAM


@pytest.fixture(autouse=True, scope="module")
def plain_tracebacks() -> Iterator[None]:
    """As in production: without local variables, whose drawing takes longer than most tests here."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])
    yield
    structlog.reset_defaults()


@pytest.fixture
def database(emptied_database: str) -> str:
    """Those of one file share one, emptied before each."""
    return emptied_database


@pytest.fixture
def stand(owner: asyncpg.Connection) -> Callable[..., Awaitable[str]]:
    """Put a new clip at a status, by moves that the law allows; its uid is its id with a u before it."""

    async def place(clip_id: str, status: str = "uploading", **columns: Any) -> str:
        await owner.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", clip_id, f"u{clip_id}")
        if status != STREAM.first.name:
            floor = STREAM[status].min_progress if status != ERROR else STREAM.first.min_progress
            await owner.execute("UPDATE clips SET status = $2, progress = $3 WHERE id = $1", clip_id, status, floor)
        for name, value in columns.items():
            await owner.execute(f"UPDATE clips SET {name} = $2 WHERE id = $1", clip_id, value)
        return clip_id

    return place


@pytest.fixture
def report(pool: asyncpg.Pool) -> Callable[..., Awaitable[None]]:
    """File a signal as the engine's own steps do: on something seen."""

    async def file(clip_id: str, status: str, attempt: int = 1, **details: Any) -> None:
        await pool.execute(
            "INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, observed)"
            " VALUES ($1, $2, $3, 'step', $4, true)",
            clip_id,
            attempt,
            status,
            json.dumps(details),
        )

    return file


@pytest.fixture
def history(owner: asyncpg.Connection) -> Callable[[str], Awaitable[list[asyncpg.Record]]]:
    """What was written of a clip after its creation, oldest first; details as a dict."""

    async def read(clip_id: str) -> list[dict[str, Any]]:
        rows = await owner.fetch(
            "SELECT kind, attempt, from_status, to_status, progress::float8 AS progress, source, details"
            " FROM clip_events WHERE clip_id = $1 AND kind <> 'created' ORDER BY id",
            clip_id,
        )
        return [{**row, "details": json.loads(row["details"])} for row in rows]

    return read


@pytest.fixture
def a_clip() -> Callable[..., Clip]:
    """A clip as a value, at the beginning unless told otherwise."""
    then = datetime(2026, 1, 1, tzinfo=UTC)
    plain = Clip(
        id="c", pipeline="stream", cloudflare_uid="u", title=None, status="uploading", progress=15.0,
        processing_details={}, attempt=1, duration=None, file_size=None, thumbnail_url=None, hls_url=None,
        dash_url=None, mp4_url=None, r2_url=None, error_message=None, uploaded_at=None, completed_at=None,
        created_at=then, updated_at=then, upload_expires_at=None, status_since=then, look_at=then, tries=0,
        pending=0, epoch=0, version=1,
    )  # fmt: skip

    def make(**changes: Any) -> Clip:
        values = {name: getattr(plain, name) for name in Clip.__slots__} | changes
        if "status" in changes and "progress" not in changes:
            values["progress"] = STREAM[changes["status"]].min_progress
        return Clip(**values)

    return make
