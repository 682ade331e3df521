"""Writing what was decided: each guard on its own, and what the statement does with a row."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move, write_moves
from orchestrator.storage.clips import Clip, read_clip
from orchestrator.storage.pool import connect
from signals import CHANGED_CHANNEL, signal_status_update
from statusutils import Position, span

LATER = datetime.now(UTC).replace(microsecond=123456) + timedelta(minutes=1)


def step(clip: Clip, status: str, **fields: Any) -> Move:
    known: dict[str, Any] = {"look_at": LATER, "tries": 0} | fields
    before = Position(clip.attempt, clip.status, clip.progress)
    after = Position(clip.attempt, status, max(clip.progress, span(status)[0]))
    entry = Entry("moved", clip.attempt, clip.status, status, "test", {"reason": "because"})
    return Move(clip.id, before, after, clip.look_at, entries=(entry,), **known)


async def write(pool: asyncpg.Pool, term: Term, *moves: Move) -> set[str]:
    async with pool.acquire() as connection, connection.transaction():
        return await write_moves(connection, term, moves)


async def the(connection: asyncpg.Connection, clip_id: str = "c") -> Clip:
    clip = await read_clip(connection, clip_id)
    assert clip is not None
    return clip


async def test_status_progress_history_and_facts_go_together(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history
) -> None:
    await stand("c", tries=4)
    facts = {
        "duration": 12.5,
        "file_size": 2**40,
        "thumbnail_url": "https://t/",
        "hls_url": "https://h/",
        "dash_url": "https://d/",
        "mp4_url": "https://m/",
        "uploaded_at": "2026-01-02T03:04:05+00:00",
    }
    before = await the(owner)
    assert await write(pool, term, step(before, "processing", facts=facts, details={"a": 1})) == {"c"}
    clip = await the(owner)
    assert (clip.status, clip.progress, clip.tries, clip.look_at) == ("processing", 50.0, 0, LATER)
    assert {name: getattr(clip, name) for name in facts if name != "uploaded_at"} == {
        name: value for name, value in facts.items() if name != "uploaded_at"
    }
    assert clip.uploaded_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert clip.status_since > before.status_since
    assert clip.processing_details["a"] == 1
    (line,) = await history("c")
    assert (line["progress"], line["details"]) == (50.0, {"reason": "because"})


async def test_what_is_not_known_stays_as_it_was(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", hls_url="https://h/", tries=3)
    await owner.execute('UPDATE clips SET processing_details = \'{"a": 1, "b": 2}\'')
    before = await the(owner)
    still = replace(step(before, "uploading"), tries=None, entries=(), facts={"duration": 3.0}, cleared=("a", "absent"))
    assert await write(pool, term, still) == {"c"}
    clip = await the(owner)
    assert (clip.hls_url, clip.duration, clip.tries, clip.processing_details) == ("https://h/", 3.0, 3, {"b": 2})
    assert clip.status_since == before.status_since


async def test_progress_takes_the_higher_of_both(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", "processing")
    seen = await the(owner)
    await owner.execute("UPDATE clips SET progress = 58")
    still = replace(step(seen, "processing"), after=Position(1, "processing", 52.0))
    await write(pool, term, still)
    assert (await the(owner)).progress == 58.0


@pytest.mark.parametrize("guard", ["epoch", "later-epoch", "holder"])
async def test_only_the_present_leader_writes(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, guard: str
) -> None:
    await stand("c")
    wrong = {
        "epoch": Term(term.holder, term.epoch - 1),
        "later-epoch": Term(term.holder, term.epoch + 1),
        "holder": Term("another", term.epoch),
    }[guard]
    before = await the(owner)
    with pytest.raises(LeadershipLost):
        await write(pool, wrong, step(before, "queued"))
    assert await the(owner) == before


async def test_nobody_takes_over_between_a_write_and_its_commit(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c")
    taking = "SELECT epoch FROM monitor_lease FOR NO KEY UPDATE NOWAIT"  # as an UPDATE of the row locks it
    async with pool.acquire() as connection, connection.transaction():
        assert await write_moves(connection, term, [step(await the(owner), "queued")]) == {"c"}
        with pytest.raises(asyncpg.LockNotAvailableError):
            await owner.execute(taking)
    await owner.execute(taking)


async def test_a_clip_that_moved_meanwhile_is_left_alone(
    owner: asyncpg.Connection, api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand, history
) -> None:
    await stand("c")
    await signal_status_update(api, "c", "queued", {}, "test")
    seen = await the(owner)
    signal_id = await owner.fetchval("SELECT id FROM clip_signals")
    await owner.execute("UPDATE clips SET status = 'processing', progress = 50")
    move = step(seen, "queued", judged=1, signal_ids=(signal_id,))
    assert await write(pool, term, move) == set()
    assert (await the(owner)).status == "processing"
    assert (await the(owner)).pending == 1
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 1
    assert await history("c") == []


async def test_a_clip_whose_attempt_is_over_is_left_alone(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c", "queued")
    seen = await the(owner)
    await owner.execute("UPDATE clips SET status = 'error'")
    await owner.execute("UPDATE clips SET status = 'queued', attempt = 2, progress = 30")
    assert await write(pool, term, step(seen, "processing")) == set()
    assert (await the(owner)).attempt == 2


async def test_a_row_that_somebody_holds_does_not_hold_up_the_others(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("a")
    await stand("b")
    moves = [step(await the(owner, clip_id), "queued") for clip_id in "ab"]
    transaction = owner.transaction()
    await transaction.start()
    await owner.fetch("SELECT id FROM clips WHERE id = 'a' FOR UPDATE")
    async with asyncio.timeout(4):  # less than the database's own limit on waiting for a lock
        assert await write(pool, term, *moves) == {"b"}
    await transaction.rollback()
    assert await write(pool, term, *moves) == {"a"}


async def test_the_request_is_cleared_only_when_nothing_newer_is_pending(
    owner: asyncpg.Connection, api: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    await stand("c")
    await signal_status_update(api, "c", "queued", {}, "first")
    seen = await the(owner)
    first = await owner.fetchval("SELECT id FROM clip_signals")
    await signal_status_update(api, "c", "error", {}, "second")
    await write(pool, term, step(seen, "queued", judged=1, signal_ids=(first,)))
    clip = await the(owner)
    assert (clip.pending, clip.processing_details["requested_status"]) == (1, "error")
    (second,) = await owner.fetch("SELECT id, requested_status FROM clip_signals")
    assert second["requested_status"] == "error"
    await write(pool, term, step(clip, "error", judged=1, signal_ids=(second["id"],)))
    clip = await the(owner)
    assert (clip.pending, clip.status) == (0, "error")
    assert not {"requested_status", "requested_attempt", "status_request_time"} & set(clip.processing_details)


@pytest.mark.parametrize(
    ("asked_meanwhile", "planned", "expected"),
    [
        pytest.param(None, LATER, LATER, id="nobody-asked"),
        pytest.param(
            LATER - timedelta(seconds=30), LATER, LATER - timedelta(seconds=30), id="somebody-asked-for-earlier"
        ),
        pytest.param(LATER + timedelta(seconds=30), LATER, LATER, id="somebody-put-it-off"),
        pytest.param(LATER, None, LATER, id="an-ended-clip-that-somebody-wants-looked-at"),
    ],
)
async def test_a_look_that_was_asked_for_meanwhile_stands(
    owner: asyncpg.Connection,
    pool: asyncpg.Pool,
    term: Term,
    stand,
    asked_meanwhile: datetime | None,
    planned: datetime | None,
    expected: datetime,
) -> None:
    await stand("c", "error" if planned is None else "queued")
    seen = await the(owner)
    if asked_meanwhile:
        await owner.execute("UPDATE clips SET look_at = $1", asked_meanwhile)
    await write(
        pool, term, replace(step(seen, seen.status), after=Position(1, seen.status, seen.progress), look_at=planned)
    )
    assert (await the(owner)).look_at == expected


async def test_the_source_address_goes_when_the_clip_is_complete_or_deleted(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, stand
) -> None:
    addresses = "SELECT array_agg(source_url ORDER BY id) FROM clips"
    for clip_id in "abc":
        await stand(clip_id, "r2_uploading", source_url="https://s/?signature=sesame")
    await write(pool, term, step(await the(owner, "a"), "complete"))
    await write(pool, term, step(await the(owner, "b"), "error"), step(await the(owner, "c"), "error"))
    assert await owner.fetchval(addresses) == [None, *["https://s/?signature=sesame"] * 2], "a retry may need it"
    await owner.execute("UPDATE clips SET processing_details = '{\"deleted_at\": \"now\"}' WHERE id = 'b'")
    await write(pool, term, *[step(await the(owner, clip_id), "error") for clip_id in "bc"])
    assert await owner.fetchval(addresses) == [None, None, "https://s/?signature=sesame"]


async def test_listeners_are_told_which_clips_changed(
    database: str, owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term
) -> None:
    long_ids = [f"{n:03}" + "x" * 61 for n in range(300)]
    await owner.executemany("INSERT INTO clips (id) VALUES ($1)", [(clip_id,) for clip_id in long_ids])
    listener = await connect(database, "orchestrator_api", "test listener")
    heard: asyncio.Queue[str] = asyncio.Queue()
    await listener.add_listener(CHANGED_CHANNEL, lambda _c, _p, _channel, payload: heard.put_nowait(payload))
    await write(pool, term, *[step(await the(owner, clip_id), "queued") for clip_id in long_ids])
    told: set[str] = set()
    async with asyncio.timeout(10):
        while len(told) < 300:
            payload = await heard.get()
            assert len(payload) < 8000
            told |= set(payload.split(","))
    assert told == set(long_ids)
    await listener.close()
