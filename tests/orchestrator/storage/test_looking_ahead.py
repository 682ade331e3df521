"""What looks at the provider rest on, on the real database: notes of what was asked for, and how long clips took."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import asyncpg

from orchestrator.storage.provider_asks import KEPT_FOR, forget_asks, note_first_ask
from orchestrator.storage.timing import read_arrivals, stays_of


async def test_only_the_first_note_is_the_first(owner: asyncpg.Connection, database: str) -> None:
    assert await note_first_ask(owner, "a", "copy 1")
    assert not await note_first_ask(owner, "a", "copy 1")
    assert await note_first_ask(owner, "a", "copy 2")
    other = await asyncpg.connect(database)
    try:
        transaction = owner.transaction()
        await transaction.start()
        assert await note_first_ask(owner, "b", "copy 1")
        waiting = asyncio.create_task(note_first_ask(other, "b", "copy 1"))
        await transaction.commit()
        assert not await waiting, "of two at once one is the first"
    finally:
        await other.close()


async def test_notes_are_dropped_when_nobody_can_want_them_any_more(owner: asyncpg.Connection) -> None:
    for name, age in (("old", KEPT_FOR + timedelta(hours=1)), ("young", KEPT_FOR - timedelta(hours=1))):
        await note_first_ask(owner, name, "mp4 u")
        await owner.execute("UPDATE provider_asks SET asked_at = asked_at - $2::interval WHERE clip_id = $1", name, age)
    await forget_asks(owner)
    kept = {row["clip_id"] for row in await owner.fetch("SELECT clip_id FROM provider_asks")}
    assert ("young" in kept, "old" in kept) == (True, False)


async def test_stays_are_told_with_what_is_unsure_of_them_whatever_strangers_wrote(owner: asyncpg.Connection) -> None:
    began = await owner.fetchval("SELECT clock_timestamp() - interval '1 hour'")
    for clip_id, size in (("good", 5_000_000), ("odd", "many")):
        details = json.dumps({"upload_size_bytes": size})
        await owner.execute("INSERT INTO clips (id, processing_details) VALUES ($1, $2)", clip_id, details)
        async with owner.transaction():  # what the law keeps makes room for another history
            await owner.execute("SET LOCAL session_replication_role = replica")
            await owner.execute("DELETE FROM clip_events WHERE clip_id = $1", clip_id)
        not_before = {"good": (began + timedelta(seconds=25)).isoformat(), "odd": "long ago"}[clip_id]
        for kind, status, seconds, said in (
            ("created", "uploading", 0, {}),
            ("moved", "processing", 30, {"not_before": not_before}),
            ("refused", "queued", 31, {}),
            ("moved", "complete", 100, {}),
        ):
            await owner.execute(
                "INSERT INTO clip_events (clip_id, kind, attempt, to_status, source, at, details)"
                " VALUES ($1, $2, 1, $3, 'monitor', $4, $5)",
                clip_id, kind, status, began + timedelta(seconds=seconds), json.dumps(said),
            )  # fmt: skip
    stays = {
        (stay.arrival.clip_id, stay.arrival.status): (stay.seconds, stay.unsure_seconds, stay.arrival.size_bytes)
        for stay in stays_of(await read_arrivals(owner))
    }
    assert stays == {
        ("good", "uploading"): (30.0, 5.0, 5_000_000.0),
        ("good", "processing"): (70.0, 0.0, 5_000_000.0),
        ("odd", "uploading"): (30.0, 0.0, None),
        ("odd", "processing"): (70.0, 0.0, None),
    }
