"""What is written most often touches no index: requests and progress stay heap-only updates."""

from __future__ import annotations

import asyncpg
import pytest

REQUEST = """
UPDATE clips SET processing_details = processing_details || jsonb_build_object('requested_status', 'queued',
       'status_request_time', clock_timestamp(), 'request', jsonb_build_object('source', 'test'))
"""
FREQUENT = {
    "request": REQUEST,
    "details": "UPDATE clips SET processing_details = processing_details || '{\"n\": 1}'",
    "progress": "UPDATE clips SET progress = progress + 1",
    "tries": "UPDATE clips SET tries = tries + 1",
}


async def hot_share(connection: asyncpg.Connection, statement: str) -> tuple[int, int]:
    """How many rows *statement* updates, and how many of them without a new entry in any index."""
    async with connection.transaction():
        await connection.execute(statement)
        row = await connection.fetchrow(
            "SELECT pg_stat_get_xact_tuples_updated('clips'::regclass) AS updated,"
            " pg_stat_get_xact_tuples_hot_updated('clips'::regclass) AS hot"
        )
    return row["updated"], row["hot"]


@pytest.mark.parametrize("what", FREQUENT)
async def test_what_is_written_often_touches_no_index(database: str, what: str) -> None:
    owner = await asyncpg.connect(database)
    await owner.execute("INSERT INTO clips (id) SELECT 'c' || n FROM generate_series(1, 5) AS n")
    assert await hot_share(owner, FREQUENT[what]) == (5, 5)
    await owner.close()


async def test_no_index_is_over_the_document(database: str) -> None:
    owner = await asyncpg.connect(database)
    indexes = await owner.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = 'clips'")
    assert len(indexes) >= 6
    assert not [row["indexdef"] for row in indexes if "processing_details" in row["indexdef"]]
    await owner.close()
