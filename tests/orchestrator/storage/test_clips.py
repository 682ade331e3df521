"""Rows as values."""

from __future__ import annotations

from datetime import UTC

import asyncpg

from orchestrator.storage.clips import COLUMNS, Clip, read_clip, read_clip_by_uid, read_events


async def test_a_clip_is_read_by_its_id_and_by_its_uid(api: asyncpg.Connection) -> None:
    await api.execute(
        "INSERT INTO clips (id, cloudflare_uid, title, processing_details, source_url)"
        " VALUES ('c', 'u', 'A title', '{\"a\": {\"b\": [1, null]}}', 'https://x/?signature=sesame')"
    )
    clip = await read_clip(api, "c")
    assert clip is not None
    assert clip == await read_clip_by_uid(api, "u")
    assert (clip.status, clip.progress, clip.attempt, clip.title) == ("uploading", 15.0, 1, "A title")
    assert type(clip.progress) is float
    assert clip.processing_details["a"] == {"b": [1, None]}
    assert clip.created_at.tzinfo == UTC
    assert "sesame" not in repr(clip)
    assert await read_clip(api, "d") is None
    assert await read_clip_by_uid(api, "c") is None


def test_a_clip_has_every_column_that_is_read() -> None:
    assert tuple(name.strip() for name in COLUMNS.split(",")) == Clip.__slots__


async def test_history_is_read_oldest_first_and_page_by_page(api: asyncpg.Connection, database: str) -> None:
    await api.execute("INSERT INTO clips (id) VALUES ('c'), ('d')")
    owner = await asyncpg.connect(database)
    await owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, source, details)"
        " SELECT 'c', 'noted', 1, 'test', jsonb_build_object('n', n) FROM generate_series(1, 5) AS n"
    )
    await owner.close()
    first = await read_events(api, "c", limit=3)
    rest = await read_events(api, "c", after=first[-1].id)
    assert [event.kind for event in first] == ["created", "noted", "noted"]
    assert [event.details["n"] for event in first[1:] + rest] == [1, 2, 3, 4, 5]
    assert await read_events(api, "nobody") == []
