"""Signals that share a commit: each caller gets his own outcome, after the commit, whatever befalls the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.web import shared_signals
from orchestrator.web.shared_signals import SHARED_SIGNALS, SharedSignals
from orchestrator.web.sharing import TooManyWaiting
from signals import Asked, Signal, UnknownClip


def signal(clip_id: str, status: str = "queued") -> Signal:
    return Signal(status, "test", clip_id=clip_id)


async def count_of(place: Any) -> int:
    count: int = await place.owner.fetchval("SELECT count(*) FROM clip_signals")
    return count


async def ended(*tasks: asyncio.Task[Any]) -> Sequence[Any]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_those_that_come_meanwhile_share_the_next_commit(place: Any, held: Any) -> None:
    ids = [await place.clip(f"c{number}") for number in range(10)]
    shared = SharedSignals(held)
    tasks = [asyncio.create_task(shared.ask(signal(clip_id))) for clip_id in ids]
    await held.asked.wait()
    held.goes_on.set()
    assert [one.clip_id for one in await ended(*tasks)] == ids
    assert await place.owner.fetchval("SELECT count(DISTINCT xmin::text) FROM clip_signals") == 1


async def test_a_lonely_signal_waits_for_no_company(place: Any) -> None:
    await place.clip("one")
    shared = SharedSignals(place.services.pool)
    loop = asyncio.get_running_loop()
    timers = []
    real, loop.call_later = loop.call_later, lambda *args, **more: timers.append(args[0]) or real(*args, **more)
    try:
        assert (await shared.ask(signal("one"))).clip_id == "one"
    finally:
        loop.call_later = real  # type: ignore[method-assign]
        await shared.close()
    assert min(timers) == shared_signals._LOOK_SECONDS  # nothing was put off: this one ends waits that are too long


async def test_nobody_is_answered_before_the_commit(place: Any, held: Any) -> None:
    await place.clip("one")
    shared = SharedSignals(held)
    asking = asyncio.create_task(shared.ask(signal("one")))
    await held.asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asking.done()
    held.goes_on.set()
    (outcome,) = await ended(asking)
    assert isinstance(outcome, Asked)
    assert await count_of(place) == 1


async def test_a_refused_one_leaves_its_neighbours(place: Any, held: Any) -> None:
    await place.clip("one")
    await place.clip("two")
    shared = SharedSignals(held)
    tasks = [asyncio.create_task(shared.ask(signal(clip_id))) for clip_id in ("one", "nobody", "two")]
    await held.asked.wait()
    held.goes_on.set()
    first, refused, last = await ended(*tasks)
    assert (first.clip_id, last.clip_id) == ("one", "two")
    assert isinstance(refused, UnknownClip)


async def test_whoever_goes_before_the_writing_leaves_nothing_and_takes_nobody_along(place: Any, held: Any) -> None:
    for clip_id in ("first", "gone", "stays"):
        await place.clip(clip_id)
    shared = SharedSignals(held)
    first = asyncio.create_task(shared.ask(signal("first")))
    await held.asked.wait()
    gone, stays = (asyncio.create_task(shared.ask(signal(clip_id))) for clip_id in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    held.goes_on.set()
    outcomes = await ended(first, stays)
    assert [one.clip_id for one in outcomes] == ["first", "stays"]
    assert gone.cancelled()
    rows = await place.owner.fetch("SELECT clip_id FROM clip_signals ORDER BY clip_id")
    assert [row["clip_id"] for row in rows] == ["first", "stays"]


async def test_several_for_one_clip_are_each_written_once(place: Any, held: Any) -> None:
    await place.clip("one", "u1")
    shared = SharedSignals(held)
    asked = [signal("one", status) for status in ("queued", "processing", "error")]
    asked.append(Signal("queued", "webhook", cloudflare_uid="u1"))
    tasks = [asyncio.create_task(shared.ask(one)) for one in asked]
    await held.asked.wait()
    held.goes_on.set()
    assert all(isinstance(outcome, Asked) for outcome in await ended(*tasks))
    rows = await place.owner.fetch("SELECT requested_status, source FROM clip_signals ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [
        ("error", "test"), ("processing", "test"), ("queued", "test"), ("queued", "webhook"),
    ]  # fmt: skip


async def test_more_than_may_wait_are_sent_away_and_told_when_to_come_again(
    client: Any, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.clip("one")
    monkeypatch.setattr(shared_signals, "WAITING_MAX", 0)
    answer = await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    assert (answer.status, (await answer.json())["code"]) == (503, "too-busy")
    assert int(answer.headers["Retry-After"]) >= 1
    assert await count_of(place) == 0
    with pytest.raises(TooManyWaiting):
        await client.app[SHARED_SIGNALS].ask(signal("one"))


async def test_a_wait_ends(place: Any, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.clip("one")
    monkeypatch.setattr(shared_signals, "_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(shared_signals, "_LOOK_SECONDS", 0.01)
    shared = SharedSignals(held)
    (outcome,) = await ended(asyncio.create_task(shared.ask(signal("one"))))
    assert isinstance(outcome, TimeoutError)
    held.goes_on.set()


async def test_a_held_clip_is_written_when_it_is_free_and_holds_up_nobody(place: Any) -> None:
    await place.clip("held")
    await place.clip("free")
    shared = SharedSignals(place.services.pool)
    async with place.owner.transaction():
        await place.owner.execute("SELECT FROM clips WHERE id = 'held' FOR UPDATE")
        waiting = asyncio.create_task(shared.ask(signal("held")))
        async with asyncio.timeout(5):
            assert (await shared.ask(signal("free"))).clip_id == "free"
        # Held for longer than a batch of the monitor: it is waited for by itself.
        async with asyncio.timeout(10):
            while not await place.owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        assert not waiting.done()
    (outcome,) = await ended(waiting)
    assert outcome.clip_id == "held"
    assert await count_of(place) == 2


async def test_a_database_that_is_away_fails_those_of_that_moment_alone(place: Any) -> None:
    await place.clip("one")

    class Away:
        def acquire(self, *, timeout: float) -> Any:
            raise ConnectionRefusedError

    shared = SharedSignals(Away())
    failed = await ended(*(asyncio.create_task(shared.ask(signal("one"))) for _ in range(3)))
    assert [type(one) for one in failed] == [ConnectionRefusedError] * 3
    shared._pool = place.services.pool
    assert (await shared.ask(signal("one"))).clip_id == "one"


async def test_two_processes_take_turns_at_the_same_clips(place: Any) -> None:
    ids = [await place.clip(f"c{number}") for number in range(20)]
    one, other = SharedSignals(place.services.pool), SharedSignals(place.services.pool)
    tasks = [
        asyncio.create_task(shared.ask(signal(clip_id)))
        for _ in range(5)
        for shared, order in ((one, ids), (other, ids[::-1]))
        for clip_id in order
    ]
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*tasks)
    assert all(isinstance(outcome, Asked) for outcome in outcomes)
    assert await count_of(place) == len(tasks)


async def test_the_end_tells_those_who_wait(held: Any) -> None:
    shared = SharedSignals(held)
    first = asyncio.create_task(shared.ask(signal("one")))
    await held.asked.wait()
    second = asyncio.create_task(shared.ask(signal("two")))
    await asyncio.sleep(0)
    await shared.close()
    await ended(first, second)
    assert first.cancelled()
    assert second.cancelled()
