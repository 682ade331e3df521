"""Asking for many new attempts in one statement: each on its own terms, none twice."""

from __future__ import annotations

import asyncpg
import pytest

from signals import DetailsNotAccepted, Retry, signal_retries


async def put(owner: asyncpg.Connection, name: str, status: str = "error", attempt: int = 1, pending: int = 0) -> Retry:
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(
        "INSERT INTO clips (id, status, progress, attempt, pending, processing_details)"
        " VALUES ($1, $2, 50, $3, $4, '{\"kept\": true}')",
        name,
        status,
        attempt,
        pending,
    )
    await owner.execute("SET session_replication_role = origin")
    return Retry(name, attempt, "uploading")


async def test_each_is_filed_as_a_request_for_its_next_attempt(service, owner) -> None:
    retries = [await put(owner, "a"), await put(owner, "b", attempt=2)]
    assert await signal_retries(service, retries, "test") == {"a", "b"}
    rows = await owner.fetch("SELECT clip_id, requested_status, attempt, source FROM clip_signals ORDER BY clip_id")
    assert [tuple(row) for row in rows] == [("a", "uploading", 2, "test"), ("b", "uploading", 3, "test")]
    assert await owner.fetchval("SELECT count(*) FROM clips WHERE pending = 1 AND processing_details ? 'kept'") == 2


async def test_the_same_call_again_asks_for_nothing(service, owner) -> None:
    retries = [await put(owner, "a")]
    assert await signal_retries(service, retries, "test") == {"a"}
    assert await signal_retries(service, retries, "test") == set()
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 1


async def test_clips_that_moved_or_are_asked_for_already_are_left_out(service, owner) -> None:
    retries = [
        await put(owner, "moved", status="processing"),
        await put(owner, "asked", pending=1),
        Retry("unknown", 1, "uploading"),
        Retry((await put(owner, "later", attempt=3)).clip_id, 2, "uploading"),
        await put(owner, "good"),
    ]
    assert await signal_retries(service, retries, "test") == {"good"}


async def test_two_that_ask_at_once_ask_once(service, owner, database) -> None:
    retries = [await put(owner, f"c{n:02}") for n in range(20)]
    other = await asyncpg.connect(database, server_settings={"role": "orchestrator_api"})
    await other.execute("SET lock_timeout = '2s'")
    async with service.transaction():
        assert len(await signal_retries(service, retries[10:], "test")) == 10
        assert len(await signal_retries(other, retries[::-1], "test")) == 10  # and waits for nobody
    await other.close()
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 20


async def test_one_that_the_database_refuses_leaves_all_as_they_were(service, owner) -> None:
    retries = [await put(owner, "good"), await put(owner, "full")]
    text = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1800) AS n)"
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(f"UPDATE clips SET processing_details = jsonb_build_object('text', {text}) WHERE id = 'full'")
    with pytest.raises(DetailsNotAccepted):
        await signal_retries(service, retries, "test")
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 0
