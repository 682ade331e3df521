"""A batch with a clip in it that cannot be written."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from orchestrator.monitor import batches
from orchestrator.monitor.batches import SET_ASIDE_FOR, write_each
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move
from orchestrator.storage.clips import read_clip
from statusutils import Position

AT = datetime.now(UTC)


def move(clip_id: str, status: str = "queued", progress: float = 30.0, **changes: object) -> Move:
    entry = Entry("moved", 1, "uploading", status, "test", {"reason": "because"})
    plain = Move(clip_id, Position(1, "uploading", 15.0), Position(1, status, progress), AT, AT, 0, entries=(entry,))
    return replace(plain, **changes)  # type: ignore[arg-type]


async def write(pool: asyncpg.Pool, term: Term, *moves: Move) -> set[str]:
    async with pool.acquire() as connection, connection.transaction():
        return await write_each(connection, term, moves)


BAD = {
    "refused-by-the-law": {"after": Position(1, "queued", 99.0)},
    "not-a-number": {"facts": {"duration": "a while"}},
    "out-of-range": {"facts": {"file_size": 2**70}},
    "taken-uid": {"facts": {"cloudflare_uid": "ug"}},
    "nul-in-the-details": {"details": {"text": "\0"}},
    "nul-in-the-history": {"entries": (Entry("moved", 1, "uploading", "queued", "test", {"text": "\0"}),)},
    "too-large-a-document": {"details": {"text": "x" * 70_000}},
    "never-looked-at-again": {"look_at": None},
    "no-json": {"details": {"at": datetime(2026, 1, 1, tzinfo=UTC)}},
    "no-moment": {"look_at": 7},
    "nested-beyond-words": {"details": {"deep": functools.reduce(lambda inner, _: [inner], range(20_000), [])}},
}


@pytest.mark.parametrize("name", BAD)
async def test_the_one_at_fault_is_set_aside_and_the_rest_are_written(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history, name: str
) -> None:
    for clip_id in "abcdefg":
        await stand(clip_id, look_at=AT)
    moves = [move(clip_id) for clip_id in "abdef"]
    moves.insert(2, move("c", **BAD[name]))
    assert await write(pool, term, *moves) == set("abdef")
    clip = await read_clip(owner, "c")
    assert clip is not None
    assert (clip.status, clip.progress) == ("uploading", 15.0)
    assert set(clip.processing_details) == {"last_problem"}
    assert clip.processing_details["last_problem"]["code"] == "database_refused"
    assert clip.look_at is not None
    assert timedelta(0) < clip.look_at - datetime.now(UTC) <= SET_ASIDE_FOR
    (line,) = await history("c")
    assert (line["kind"], line["to_status"], line["details"]["rule"]) == ("refused", "queued", "database")


async def test_a_bad_move_towards_an_end_is_looked_at_again_too(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", look_at=AT)
    ending = move("c", "complete", 100.0, look_at=None, facts={"duration": "a while"})
    assert await write(pool, term, ending) == set()
    clip = await read_clip(owner, "c")
    assert clip is not None
    assert clip.status == "uploading"
    assert clip.look_at is not None
    assert clip.look_at > datetime.now(UTC)


async def test_all_of_them_at_fault(owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history) -> None:
    for clip_id in "abc":
        await stand(clip_id, look_at=AT)
    assert await write(pool, term, *[move(clip_id, progress=99.0) for clip_id in "abc"]) == set()
    assert [len(await history(clip_id)) for clip_id in "abc"] == [1, 1, 1]


async def test_nothing_to_write_is_nothing(pool: asyncpg.Pool, term: Term) -> None:
    assert await write(pool, term) == set()


async def test_a_lost_term_is_no_refusal(pool: asyncpg.Pool, term: Term, stand) -> None:
    await stand("c", look_at=AT)
    with pytest.raises(LeadershipLost):
        await write(pool, Term(term.holder, term.epoch - 1), move("c"), move("c", progress=99.0))


async def test_a_row_that_refuses_even_to_be_set_aside_hurts_nobody(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    """As after a restored back-up: the row carries an epoch that is yet to come."""
    for clip_id in "abc":
        await stand(clip_id, look_at=AT)
    await owner.execute("UPDATE clips SET epoch = 1000000 WHERE id = 'b'")
    assert await write(pool, term, *[move(clip_id) for clip_id in "abc"]) == {"a", "c"}


def test_what_a_row_may_refuse_does_not_include_the_database_being_away() -> None:
    assert not issubclass(asyncpg.AdminShutdownError, batches._REFUSALS)
    assert not issubclass(asyncpg.LockNotAvailableError, batches._REFUSALS)
    assert not issubclass(LeadershipLost, batches._REFUSALS)
