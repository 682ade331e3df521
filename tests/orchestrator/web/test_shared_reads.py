"""Reads that share a statement: each caller gets what was read after he asked, whatever befalls the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from orchestrator.storage.clips import read_versions
from orchestrator.web import shared_reads
from orchestrator.web.shared_reads import STANDINGS, VERSIONS, SharedReads
from orchestrator.web.sharing import TooManyWaiting


class Reading:
    """Reads versions, remembers which were asked for together, and waits or fails when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.fails: list[Exception] = []
        self.goes_on: list[asyncio.Event] = []
        self.began = asyncio.Semaphore(0)

    async def __call__(self, connection: asyncpg.Connection, clip_ids: Sequence[str]) -> Mapping[str, int]:
        self.batches.append(sorted(clip_ids))
        self.began.release()
        if self.goes_on:
            await self.goes_on.pop(0).wait()
        if self.fails:
            raise self.fails.pop(0)
        return await read_versions(connection, clip_ids)


async def all_of(shared: SharedReads[int], *clip_ids: str) -> list[Any]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*map(shared.get, clip_ids), return_exceptions=True)


async def test_those_that_come_meanwhile_share_the_next_statement(place, held):
    ids = [await place.clip(f"c{number}") for number in range(4)]
    reading = Reading()
    shared = SharedReads(held, reading)
    held.goes_on.set()
    assert await all_of(shared, *ids, "nobody", ids[0]) == [1, 1, 1, 1, None, 1]
    assert reading.batches == [["c0", "c1", "c2", "c3", "nobody"]]


async def test_who_asks_again_at_once_is_answered_again(place):
    await place.clip("one")
    shared = SharedReads(place.services.pool, Reading())
    async with asyncio.timeout(10):
        assert [await shared.get("one") for _ in range(3)] == [1, 1, 1]


async def test_a_statement_takes_so_many_and_the_rest_the_next(place, held, monkeypatch):
    monkeypatch.setattr(shared_reads, "TOGETHER_MAX", 2)
    reading = Reading()
    held.goes_on.set()
    ids = [await place.clip(f"c{number}") for number in range(5)]
    assert await all_of(SharedReads(held, reading), *ids) == [1] * 5
    assert reading.batches == [["c0", "c1"], ["c2", "c3"], ["c4"]]


async def test_who_asks_while_one_is_read_is_told_what_was_read_after_that(place, held):
    await place.clip("one")
    reading = Reading()
    shared = SharedReads(held, reading)
    held.goes_on.set()
    waits = asyncio.Event()
    reading.goes_on = [waits]
    first = asyncio.create_task(shared.get("one"))
    async with asyncio.timeout(10):
        await reading.began.acquire()
    await place.move("one", "queued")
    second = asyncio.create_task(shared.get("one"))
    await asyncio.sleep(0)
    assert len(shared._waiting) == 1, "it waits for a statement of its own"
    waits.set()
    async with asyncio.timeout(10):
        await first
        assert await second == await place.owner.fetchval("SELECT version FROM clips")
    assert reading.batches == [["one"], ["one"]]


async def test_a_failure_concerns_those_it_was_read_for_and_nobody_after_them(place, held):
    await place.clip("one")
    reading = Reading()
    reading.fails = [ConnectionResetError("gone")]
    shared = SharedReads(held, reading)
    held.goes_on.set()
    assert [type(one) for one in await all_of(shared, "one", "two")] == [ConnectionResetError] * 2
    assert await all_of(shared, "one", "two") == [1, None]


async def test_without_a_connection_everybody_who_waits_is_told(place, held, monkeypatch):
    class Exhausted:
        def acquire(self, *, timeout: float) -> Any:
            raise TimeoutError

    shared = SharedReads(Exhausted(), Reading())  # type: ignore[arg-type]
    assert [type(one) for one in await all_of(shared, "one", "two")] == [TimeoutError] * 2


async def test_who_goes_takes_nobody_along(place, held):
    await place.clip("one")
    reading = Reading()
    shared = SharedReads(held, reading)
    goes, stays = (asyncio.create_task(shared.get(name)) for name in ("goes", "one"))
    await held.asked.wait()
    goes.cancel()
    held.goes_on.set()
    async with asyncio.timeout(10):
        assert await stays == 1
    assert goes.cancelled()
    assert reading.batches == [["one"]]


async def test_a_line_that_is_silent_holds_up_only_those_in_it(place, monkeypatch):
    monkeypatch.setattr(shared_reads, "_SLOW_SECONDS", 0.0)
    ids = [await place.clip(f"c{number}") for number in range(4)]
    reading = Reading()
    silent = asyncio.Event()
    reading.goes_on = [silent] * shared_reads.READERS_MAX
    shared = SharedReads(place.services.pool, reading)
    held_up = []
    try:
        async with asyncio.timeout(10):
            for clip_id in ids[: shared_reads.READERS_MAX - 1]:
                held_up.append(asyncio.create_task(shared.get(clip_id)))
                await reading.began.acquire()
        reading.goes_on = []
        async with asyncio.timeout(10):
            assert await shared.get(ids[-1]) == 1
        assert not any(task.done() for task in held_up)
        silent.set()
        async with asyncio.timeout(10):
            assert await asyncio.gather(*held_up) == [1, 1]
    finally:
        await shared.close()


async def test_more_than_may_wait_are_sent_away_and_told_when_to_come_again(client, place, monkeypatch):
    await place.clip("one")
    monkeypatch.setattr(shared_reads, "WAITING_MAX", 0)
    for path, headers in (("/api/clips/one/status", {}), ("/api/clips/one", {"If-None-Match": '"v1"'})):
        answer = await client.get(path, headers=headers)
        assert (answer.status, (await answer.json())["code"]) == (503, "too-busy")
        assert int(answer.headers["Retry-After"]) >= 1
    with pytest.raises(TooManyWaiting):
        await client.app[VERSIONS].get("one")


async def test_closing_tells_those_who_wait(place, held):
    shared = SharedReads(held, Reading())
    waits = asyncio.create_task(shared.get("one"))
    await held.asked.wait()
    await shared.close()
    assert isinstance((await asyncio.gather(waits, return_exceptions=True))[0], asyncio.CancelledError)


async def test_the_web_process_reads_status_and_versions_so(client, place):
    await place.clip("one")
    asked = [client.app[name] for name in (STANDINGS, VERSIONS)]
    assert all(isinstance(shared, SharedReads) for shared in asked)
    answers = await asyncio.gather(*(client.get(f"/api/clips/{name}/status") for name in ("one", "two") * 20))
    assert [(await answer.json())["known"] for answer in answers] == [True, False] * 20
