"""What checkpoints promise: in PostgreSQL, and in the stand-in that the other tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from orchestrator.drivers.errors import DatabaseAwayError, TransientError
from orchestrator.drivers.stored_objects import UploadedPart
from orchestrator.transfer import Checkpoint, PostgresCheckpoints
from orchestrator.transfer.checkpoints import StoredObject
from tests.orchestrator.transfer.conftest import PART, QUICK, MemoryCheckpoints

FIRST = Checkpoint("clip", 1, "videos/u.mp4", "upload-1", PART, 3 * PART, '"v1"', "Sat, 21 Nov 2026 10:00:00 GMT")
HIDDEN = replace(FIRST, source_size_bytes=None, source_etag=None, source_last_modified=None)
STORED = StoredObject(3 * PART, "0123456789abcdef0123456789abcdef-3")


def part(number: int, size_bytes: int = PART) -> UploadedPart:
    return UploadedPart(number, f"{number:032x}", size_bytes)


@pytest.fixture
async def pool(database) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=0, max_size=4) as pool:
        yield pool


@pytest.fixture(params=["memory", "postgres"])
def kept(request):
    if request.param == "memory":
        return MemoryCheckpoints()
    return PostgresCheckpoints(request.getfixturevalue("pool"), QUICK)


async def test_nothing_is_known_at_first(kept):
    assert await kept.load("clip", 1) is None


@pytest.mark.parametrize("checkpoint", [FIRST, HIDDEN], ids=["source-known", "source-hidden"])
async def test_what_was_begun_is_loaded(kept, checkpoint):
    assert await kept.begin(checkpoint) == checkpoint
    assert await kept.load("clip", 1) == checkpoint


async def test_parts_are_kept_in_order_and_once(kept):
    await kept.begin(FIRST)
    for number in (2, 1, 10, 2):
        assert await kept.record_part(FIRST, part(number))

    loaded = await kept.load("clip", 1)
    assert [one.number for one in loaded.parts] == [1, 2, 10]

    assert await kept.record_part(FIRST, replace(part(2), etag="f" * 32))
    assert (await kept.load("clip", 1)).parts[1].etag == "f" * 32


async def test_the_first_to_begin_is_in_force(kept):
    await kept.begin(FIRST)

    assert await kept.begin(replace(FIRST, upload_id="upload-2")) == FIRST


async def test_an_upload_that_is_not_in_force_writes_nothing(kept):
    await kept.begin(FIRST)
    stale = replace(FIRST, upload_id="stale")

    assert not await kept.record_part(stale, part(1))
    assert not await kept.finish(stale, STORED)
    assert not await kept.discard(stale)
    assert await kept.load("clip", 1) == FIRST


async def test_nothing_begins_behind_a_newer_attempt(kept):
    second = replace(FIRST, attempt=2, upload_id="upload-2")
    await kept.begin(second)

    assert await kept.begin(FIRST) is None
    assert await kept.load("clip", 2) == second


async def test_the_end_replaces_the_parts(kept):
    await kept.begin(FIRST)
    await kept.record_part(FIRST, part(1))

    assert await kept.finish(FIRST, STORED)
    assert await kept.finish(FIRST, STORED)

    assert await kept.load("clip", 1) == replace(FIRST, finished=STORED)
    assert not await kept.record_part(FIRST, part(2))


async def test_a_finished_copy_is_discarded_only_knowingly(kept):
    await kept.begin(FIRST)
    await kept.finish(FIRST, STORED)

    assert not await kept.discard(FIRST)
    assert await kept.discard(replace(FIRST, finished=STORED))
    assert await kept.load("clip", 1) is None


async def test_what_is_discarded_is_gone_with_its_parts(kept):
    await kept.begin(FIRST)
    await kept.record_part(FIRST, part(1))

    assert await kept.discard(FIRST)
    assert not await kept.discard(FIRST)
    assert not await kept.record_part(FIRST, part(2))

    again = replace(FIRST, upload_id="upload-2")
    assert await kept.begin(again) == again


async def test_unfinished_uploads_of_older_attempts_are_found(kept):
    third = replace(FIRST, attempt=3, upload_id="upload-3")
    await kept.begin(FIRST)
    await kept.record_part(FIRST, part(1))
    await kept.begin(third)
    await kept.begin(replace(FIRST, clip_id="other", upload_id="upload-x"))

    assert list(await kept.unfinished("clip", 3)) == [FIRST]
    assert list(await kept.unfinished("clip", 4)) == [FIRST, third]
    await kept.finish(FIRST, STORED)
    assert list(await kept.unfinished("clip", 4)) == [third]


async def test_live_uploads_are_those_that_nobody_finished(kept):
    await kept.begin(FIRST)
    await kept.begin(replace(FIRST, clip_id="done", upload_id="upload-2"))
    await kept.finish(replace(FIRST, clip_id="done", upload_id="upload-2"), STORED)

    assert await kept.live_uploads(["upload-1", "upload-2", "upload-3"]) == {"upload-1"}
    assert await kept.live_uploads([]) == set()


async def test_checkpoints_of_long_ago_are_forgotten(kept):
    await kept.begin(FIRST)
    await kept.begin(replace(FIRST, clip_id="done", upload_id="upload-2"))
    await kept.finish(replace(FIRST, clip_id="done", upload_id="upload-2"), STORED)
    now = datetime.now(UTC)

    assert await kept.discard_unfinished(now - timedelta(hours=1)) == 0
    assert await kept.discard_unfinished(now + timedelta(hours=1)) == 1
    assert await kept.load("clip", 1) is None
    assert await kept.load("done", 1) is not None


async def test_a_part_does_not_turn_up_in_the_upload_that_follows(pool):
    """The upload is given up and another begun while the part is being recorded."""
    kept = PostgresCheckpoints(pool, QUICK)
    await kept.begin(FIRST)
    async with pool.acquire() as rival:
        async with rival.transaction():
            await rival.execute("UPDATE transfers SET upload_id = 'next' WHERE clip_id = 'clip'")
            recording = asyncio.ensure_future(kept.record_part(FIRST, part(1)))
            waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            while not recording.done() and not await rival.fetchval(waiting):
                await asyncio.sleep(0.01)
        assert not await recording

    assert (await kept.load("clip", 1)).parts == ()


async def test_lost_connections_are_outlived(pool):
    kept = PostgresCheckpoints(pool, QUICK)
    await kept.begin(FIRST)
    async with pool.acquire() as other:
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert await kept.record_part(FIRST, part(1))

    assert (await kept.load("clip", 1)).parts == (part(1),)


async def test_a_database_out_of_reach_is_passing():
    async with asyncpg.create_pool("postgresql://nobody@127.0.0.1:1/none", min_size=0) as pool:
        with pytest.raises(DatabaseAwayError):
            await PostgresCheckpoints(pool, QUICK).load("clip", 1)


async def test_a_database_that_refuses_checkpoints_is_none_that_is_away(pool):
    async with pool.acquire() as other:
        await other.execute("ALTER TABLE transfers RENAME TO elsewhere")
    with pytest.raises(TransientError) as caught:
        await PostgresCheckpoints(pool, QUICK).load("clip", 1)

    assert caught.value.code == "checkpoints_refused"


async def test_the_monitor_role_may_do_all_of_it(pool):
    """What the role is granted is enough for every statement."""
    kept = PostgresCheckpoints(RoleOnly(pool, "orchestrator_monitor"), QUICK)

    await kept.begin(FIRST)
    await kept.record_part(FIRST, part(1))
    await kept.record_part(FIRST, part(1))
    await kept.load("clip", 1)
    await kept.unfinished("clip", 2)
    await kept.live_uploads(["upload-1"])
    await kept.finish(FIRST, STORED)
    await kept.discard(replace(FIRST, finished=STORED))
    await kept.discard_unfinished(datetime.now(UTC))


class RoleOnly:
    """A pool whose connections act as one role."""

    def __init__(self, pool: asyncpg.Pool, role: str) -> None:
        self._pool, self._role = pool, role

    def acquire(self, **options):
        return _AsRole(self._pool.acquire(**options), self._role)


class _AsRole:
    def __init__(self, context, role) -> None:
        self._context, self._role = context, role

    async def __aenter__(self):
        connection = await self._context.__aenter__()
        await connection.execute(f"SET ROLE {self._role}")
        return connection

    async def __aexit__(self, *failure):
        return await self._context.__aexit__(*failure)
