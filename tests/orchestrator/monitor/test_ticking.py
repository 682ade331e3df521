"""Progress while bytes move: within its span, upwards, and only by the leader."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from orchestrator.monitor.leadership import Term
from orchestrator.monitor.ticking import Told, write_progress
from orchestrator.storage.clips import read_clip
from signals import CHANGED_CHANNEL


async def shown(connection: asyncpg.Connection, clip_id: str = "c") -> float:
    clip = await read_clip(connection, clip_id)
    assert clip is not None
    return clip.progress


async def test_progress_is_scaled_and_never_falls(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", "mp4downloading")
    for percent, expected in ((0.0, 85.0), (50.0, 89.99), (20.0, 89.99), (100.0, 94.99), (500.0, 94.99)):
        await write_progress(pool, term, {("c", 1): Told("stream", "mp4downloading", percent)})
        assert await shown(owner) == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({("c", 1): Told("stream", "r2_uploading", 50.0)}, id="a-status-it-is-not-at-yet"),
        pytest.param({("c", 1): Told("stream", "processing", 50.0)}, id="a-status-it-has-left"),
        pytest.param({("c", 2): Told("stream", "mp4downloading", 50.0)}, id="another-attempt"),
        pytest.param({("d", 1): Told("stream", "mp4downloading", 50.0)}, id="nobody"),
        pytest.param({("c", 1): Told("stream", "mp4downloading", float("nan"))}, id="no-number"),
        pytest.param({}, id="nothing"),
    ],
)
async def test_what_does_not_fit_changes_nothing(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, told
) -> None:
    await stand("c", "mp4downloading")
    before = await read_clip(owner, "c")
    await write_progress(pool, term, told)
    assert await read_clip(owner, "c") == before


async def test_a_term_that_is_over_writes_no_progress(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", "mp4downloading")
    for stale in (Term(term.holder, term.epoch - 1), Term("another", term.epoch)):
        await write_progress(pool, stale, {("c", 1): Told("stream", "mp4downloading", 50.0)})
    assert await shown(owner) == 85.0


async def test_a_held_row_holds_up_no_other_and_listeners_hear_of_the_rest(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    for clip_id in "abc":
        await stand(clip_id, "mp4downloading")
    heard: asyncio.Queue[str] = asyncio.Queue()
    await owner.add_listener(CHANGED_CHANNEL, lambda _c, _p, _channel, payload: heard.put_nowait(payload))
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.fetch("SELECT 1 FROM clips WHERE id = 'b' FOR UPDATE")
        async with asyncio.timeout(4):  # less than the database's own limit on waiting for a lock
            await write_progress(
                pool, term, {(clip_id, 1): Told("stream", "mp4downloading", 50.0) for clip_id in "abc"}
            )
        await transaction.rollback()
    assert set((await asyncio.wait_for(heard.get(), 10)).split(",")) == {"a", "c"}
    assert [await shown(owner, clip_id) > 85 for clip_id in "abc"] == [True, False, True]
