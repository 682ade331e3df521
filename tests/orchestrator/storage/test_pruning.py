"""Pruning history: what goes and what stays, resumed where it stopped, and two at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from orchestrator.storage import pruning
from orchestrator.storage.pruning import count_window, prune_window, read_pruned_before, walk_history

KEEP = timedelta(days=30)
NOW = datetime.now(UTC)
_CLIP = """
INSERT INTO clips (id, status, progress, look_at) VALUES ($1, $2, 15, clock_timestamp())
"""
_LINE = "INSERT INTO clip_events (clip_id, at, kind, attempt, to_status, source) VALUES ($1, $2, $3, $4, $5, 'test')"


@pytest.fixture
async def owner(owner: asyncpg.Connection) -> asyncpg.Connection:
    """With nothing pruned yet."""
    await owner.execute("TRUNCATE transfers, transfer_parts")
    await owner.execute("UPDATE history_pruning SET pruned_through = 0, pruned_before = '-infinity', pruned_lines = 0")
    return owner


@pytest.fixture
def pool(pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> asyncpg.Pool:
    """In the monitor's role, and without a rest in between."""
    monkeypatch.setattr(pruning, "REST_TIMES", 0.0)
    return pool


async def history(owner: asyncpg.Connection, clip_id: str, status: str, *lines: tuple[float, str, str]) -> None:
    """A clip at *status* with *lines*: days ago, kind, status."""
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        await owner.execute(_CLIP, clip_id, status)
        for days, kind, to in lines:
            await owner.execute(_LINE, clip_id, NOW - timedelta(days=days), kind, 1, to)


async def left(owner: asyncpg.Connection, clip_id: str) -> list[str]:
    rows = await owner.fetch(
        "SELECT kind || ' ' || to_status AS line FROM clip_events WHERE clip_id = $1 ORDER BY id", clip_id
    )
    return [row["line"] for row in rows]


async def test_of_an_ended_clip_the_ends_stay_and_of_the_others_everything(owner, pool) -> None:
    old = ((90, "created", "uploading"), (89, "moved", "queued"))
    await history(owner, "done", "complete", *old, (88, "moved", "complete"), (87, "refused", "queued"))
    await history(
        owner, "failed", "error", *old, (80, "moved", "error"), (79, "moved", "queued"), (78, "moved", "error")
    )
    await history(owner, "on-its-way", "queued", *old)
    await history(
        owner, "young", "complete", (40, "created", "uploading"), (20, "moved", "queued"), (20, "moved", "complete")
    )
    await history(owner, "new", "complete", (2, "created", "uploading"), (1, "moved", "complete"))
    done = await walk_history(pool, KEEP)
    assert await left(owner, "done") == ["moved complete"]
    assert await left(owner, "failed") == ["moved error", "moved error"]
    assert await left(owner, "on-its-way") == ["created uploading", "moved queued"]
    assert await left(owner, "young") == ["moved queued", "moved complete"]
    assert await left(owner, "new") == ["created uploading", "moved complete"]
    assert (done.lines, done.is_done) == (7, True)
    assert await read_pruned_before(owner, "on-its-way") is None
    assert await read_pruned_before(owner, "done") == pytest.approx(NOW - timedelta(days=40), abs=timedelta(minutes=1))
    assert (await walk_history(pool, KEEP)).lines == 0


async def test_what_was_on_its_way_when_the_walk_came_by_goes_when_it_comes_to_its_end(owner, pool) -> None:
    await history(owner, "long", "queued", (90, "created", "uploading"), (89, "refused", "queued"))
    assert (await walk_history(pool, KEEP)).lines == 0
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        await owner.execute("UPDATE clips SET status = 'error' WHERE id = 'long'")
        await owner.execute(_LINE, "long", NOW - timedelta(days=31), "moved", 1, "error")
    assert (await walk_history(pool, KEEP)).lines == 2
    assert await left(owner, "long") == ["moved error"]


async def test_a_dry_run_counts_the_same_and_deletes_nothing(owner, pool, monkeypatch) -> None:
    monkeypatch.setattr(pruning, "WINDOW", 7)
    for number in range(20):
        await history(owner, f"c{number}", "complete", (60, "created", "uploading"), (59, "moved", "complete"))
    counted = await walk_history(pool, KEEP, count_window)
    assert (counted.lines, await owner.fetchval("SELECT count(*) FROM clip_events")) == (20, 40)
    assert (await walk_history(pool, KEEP, prune_window)).lines == counted.lines


async def test_it_goes_on_where_it_stopped_and_two_share_the_way(owner, pool, monkeypatch) -> None:
    monkeypatch.setattr(pruning, "WINDOW", 10)
    for number in range(50):
        await history(owner, f"c{number}", "error", (60, "created", "uploading"), (59, "moved", "error"))
    first = await walk_history(pool, KEEP, limit_seconds=0)
    assert first.lines == 0
    async with pool.acquire() as connection:
        one = await prune_window(connection, NOW - KEEP, pruning.Pruned())
    assert (one.lines, one.through) == (5, 10)
    both = await asyncio.gather(walk_history(pool, KEEP), walk_history(pool, KEEP))
    assert sum(each.lines for each in both) == 45
    assert await owner.fetchval("SELECT count(*) FROM clip_events") == 50
    assert await owner.fetchval("SELECT pruned_lines FROM history_pruning") == 50


async def test_a_flood_of_one_clip_goes_in_bounded_pieces(owner, pool, monkeypatch) -> None:
    monkeypatch.setattr(pruning, "WINDOW", 100)
    monkeypatch.setattr(pruning, "MOST", 30)
    await history(owner, "c", "error", *[(60, "refused", "queued")] * 95, (59, "moved", "error"))
    told: list[int] = []
    await walk_history(pool, KEEP, told=lambda so_far: told.append(so_far.lines))
    assert told == [30, 60, 90, 95]
    assert await left(owner, "c") == ["moved error"]


async def test_records_of_finished_transfers_go_with_it_and_unfinished_ones_stay(owner, pool) -> None:
    for clip_id in ("done", "young"):
        days = 90 if clip_id == "done" else 3
        await history(owner, clip_id, "complete", (days, "created", "uploading"), (days, "moved", "complete"))
        for attempt, finished in ((1, NOW - timedelta(days=days)), (2, None)):
            await owner.execute(
                "INSERT INTO transfers (clip_id, attempt, object_key, upload_id, part_size_bytes, finished_at,"
                " stored_size_bytes, stored_etag) VALUES ($1, $2, 'k', 'u', 5, $3, $4, $5)",
                clip_id, attempt, finished, *((1, "e") if finished else (None, None)),
            )  # fmt: skip
    assert (await walk_history(pool, KEEP)).transfers == 1
    rows = await owner.fetch("SELECT clip_id || attempt AS name FROM transfers ORDER BY 1")
    assert [row["name"] for row in rows] == ["done2", "young1", "young2"]


async def test_a_clip_that_is_tried_again_in_between_ends_no_walk(owner, pool, monkeypatch) -> None:
    """It was found ended; the trigger sees that it is not any more, and the next look leaves it out."""
    await history(owner, "c", "error", (60, "created", "uploading"), (59, "moved", "error"))
    real, tries = prune_window, []

    async def step(connection: Any, before: datetime, so_far: pruning.Pruned) -> pruning.Pruned:
        tries.append(1)
        if len(tries) == 1:
            raise asyncpg.CheckViolationError("the history of a clip on its way is kept")
        return await real(connection, before, so_far)

    assert (await walk_history(pool, KEEP, step)).lines == 1

    async def refused(*_: Any) -> pruning.Pruned:
        raise asyncpg.CheckViolationError("always")

    with pytest.raises(asyncpg.CheckViolationError):
        await walk_history(pool, KEEP, refused)


async def test_its_statements_go_by_an_index_whatever_the_size(owner) -> None:
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(
        "INSERT INTO clips (id, status, progress) SELECT 'c' || n, 'complete', 100 FROM generate_series(1, 20000) AS n"
    )
    await owner.execute(
        "INSERT INTO clip_events (clip_id, at, kind, attempt, to_status, source)"
        " SELECT 'c' || n, now() - interval '60 d', 'moved', 1, 'queued', 'test' FROM generate_series(1, 20000) AS n"
    )
    await owner.execute("ANALYZE clips, clip_events, transfers")
    before = NOW - KEEP
    for statement, values in (
        (pruning._WINDOW, (500, 2000, before)),
        (pruning._PRUNE, (500, 2500, before, 5000)),
        (pruning._COUNT, (500, 2500, before)),
        (pruning._PRUNED_BEFORE, ("c5",)),
    ):
        plan = "\n".join(row[0] for row in await owner.fetch(f"EXPLAIN {statement}", *values))
        assert "Seq Scan on clip" not in plan, plan
    await owner.execute("RESET session_replication_role")
