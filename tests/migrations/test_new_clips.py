"""A new clip begins at the beginning, whatever its row says."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest


async def test_a_new_clip_starts_where_its_pipeline_starts(api: asyncpg.Connection) -> None:
    await api.execute(
        "INSERT INTO clips (id, title, processing_details) VALUES ('c', 'A title', '{\"created_by\": \"tests\"}')"
    )
    clip = await api.fetchrow("SELECT status, progress, attempt, pending, look_at, version FROM clips")
    assert (clip["status"], clip["progress"], clip["attempt"], clip["pending"]) == ("uploading", 15, 1, 0)
    assert clip["look_at"] is not None
    created = await api.fetchrow("SELECT kind, to_status, from_status, progress, source FROM clip_events")
    assert tuple(created) == ("created", "uploading", None, 15, "tests")


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "complete", "progress": 100},
        {"status": "queued"},
        {"progress": 20},
        {"progress": 0},
        {"attempt": 2},
        {"status": "error"},
        {"status": "sleeping"},
        {"pipeline": "cinema"},
    ],
    ids=str,
)
async def test_no_role_can_begin_anywhere_else(
    owner: asyncpg.Connection, monitor: asyncpg.Connection, columns: dict[str, Any]
) -> None:
    names = ", ".join(columns)
    marks = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    for connection in (owner, monitor):
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"INSERT INTO clips (id, {names}) VALUES ('c', {marks})", *columns.values())
        assert await connection.fetchval("SELECT count(*) FROM clips") == 0


async def test_pending_cannot_be_given(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO clips (id, pending) VALUES ('c', 5)")
    assert await owner.fetchval("SELECT pending FROM clips") == 0


async def test_a_request_in_a_new_clip_is_filed_like_any_other(api: asyncpg.Connection) -> None:
    details = json.dumps({"requested_status": "stream_ready", "created_by": "importer", "note": 1})
    await api.execute("INSERT INTO clips (id, processing_details) VALUES ('c', $1)", details)
    assert tuple(await api.fetchrow("SELECT status, pending FROM clips")) == ("uploading", 1)
    filed = await api.fetchrow("SELECT clip_id, attempt, requested_status, source, observed FROM clip_signals")
    assert tuple(filed) == ("c", 1, "stream_ready", "importer", False)
    document = json.loads(await api.fetchval("SELECT processing_details FROM clips"))
    assert document["note"] == 1
    assert document["requested_attempt"] == 1
    assert "status_request_time" in document


async def test_an_insert_that_meets_a_conflict_leaves_nothing_behind(api: asyncpg.Connection) -> None:
    await api.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('c', 'u')")
    for clip_id in ("c", "d"):
        await api.execute(
            "INSERT INTO clips (id, cloudflare_uid, processing_details)"
            " VALUES ($1, 'u', '{\"requested_status\": \"error\"}') ON CONFLICT DO NOTHING",
            clip_id,
        )
    assert await api.fetchval("SELECT count(*) FROM clip_events") == 1
    assert await api.fetchval("SELECT count(*) FROM clip_signals") == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "../etc/passwd"),
        ("id", ""),
        ("id", "a" * 65),
        ("id", "ä"),
        ("cloudflare_uid", "a/b"),
        ("cloudflare_uid", "u" * 65),
        ("title", "t" * 501),
        ("source_url", "https://x/" + "a" * 4096),
    ],
)
async def test_texts_are_bounded(api: asyncpg.Connection, column: str, value: str) -> None:
    columns, values = ("id", [value]) if column == "id" else (f"id, {column}", ["c", value])
    marks = "$1" if column == "id" else "$1, $2"
    with pytest.raises(asyncpg.CheckViolationError):
        await api.execute(f"INSERT INTO clips ({columns}) VALUES ({marks})", *values)


async def test_where_a_clip_is_fetched_from_is_known_to_the_monitor_alone(
    api: asyncpg.Connection, monitor: asyncpg.Connection
) -> None:
    address = "https://files.example/v.mp4?signature=sesame"
    await api.execute("INSERT INTO clips (id, source_url) VALUES ('c', $1)", address)
    assert json.loads(await api.fetchval("SELECT processing_details FROM clips"))["has_source_url"] is True
    for statement in ("SELECT source_url FROM clips", "SELECT * FROM clips", "SELECT clips FROM clips"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.fetch(statement)
    assert await monitor.fetchval("SELECT source_url FROM clips") == address
    history = await api.fetch("SELECT details::text AS details FROM clip_events")
    assert not any("sesame" in row["details"] for row in history)
