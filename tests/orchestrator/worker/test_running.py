"""A worker: takes what it has places for, holds it, files once what it came to, and lets go of it in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import pytest

from orchestrator.drivers.errors import DATABASE_AWAY, PermanentError, TransientError
from orchestrator.drivers.fencing import changing
from orchestrator.monitor.effects import EffectRunner
from orchestrator.pipelines.stream.effects import TransferToBucket
from orchestrator.pipelines.terms import Done, Effect, Reports, Step
from orchestrator.storage.heavy_steps import HOLD_SECONDS, RENEWAL_SECONDS
from orchestrator.worker import running
from orchestrator.worker.filing import Filing

LIMIT_SECONDS = 10
COMPLETE = Done(Step("complete", "verified", {"file_size": 3}, {"sha256": "x"}), {"r2_key": "k"})


async def done(effect: Effect, reports: Reports) -> Done:
    return COMPLETE


async def never(effect: Effect, reports: Reports) -> Done:
    await asyncio.Event().wait()
    raise AssertionError


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


async def queue(pool: asyncpg.Pool, runner: EffectRunner, *effects: TransferToBucket) -> Sequence[Effect]:
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        return await runner.enqueue(connection, "stream", effects)


async def jobs(owner: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await owner.fetch("SELECT dedupe_key, status::text FROM clip_pgqueuer ORDER BY id")
    return [(row["dedupe_key"], row["status"]) for row in rows]


async def age(owner: asyncpg.Connection, seconds: float) -> None:
    """Let the last renewals have been that much earlier."""
    await owner.execute("UPDATE clip_pgqueuer SET heartbeat = heartbeat - make_interval(secs => $1)", seconds)


async def is_empty(owner: asyncpg.Connection) -> bool:
    return not await jobs(owner)


def test_three_renewals_fit_into_one_hold_and_who_gives_up_does_so_before_it_ends() -> None:
    assert 3 * RENEWAL_SECONDS <= HOLD_SECONDS
    assert running.WATCH_SECONDS < running.MARGIN_SECONDS < HOLD_SECONDS - 2 * RENEWAL_SECONDS


async def test_what_a_job_came_to_is_a_signal_filed_with_the_end_of_the_job(owner, pool, runner, stand, work) -> None:
    async def script(effect: Effect, reports: Reports) -> Done:
        await reports.step(Step("r2_uploading", "first part"))
        return COMPLETE

    _, hands, _ = await work(script)
    before = await owner.fetchrow("SELECT * FROM clips")
    assert await queue(pool, runner, await stand("a_b")) == ()
    await until(lambda: is_empty(owner))
    assert hands.begun == ["a_b"]
    rows = await owner.fetch(
        "SELECT clip_id, attempt, requested_status, source, observed, details FROM clip_signals ORDER BY id"
    )
    assert [tuple(row)[:5] for row in rows] == [
        ("a_b", 1, "r2_uploading", "transfer-to-bucket", True),
        ("a_b", 1, "complete", "transfer-to-bucket", True),
    ]
    assert json.loads(rows[1]["details"]) == {
        "reason": "verified", "facts": {"file_size": 3}, "sha256": "x", "r2_key": "k",
    }  # fmt: skip
    assert before is None
    clip = await owner.fetchrow("SELECT status, version FROM clips")
    assert clip["status"] == "mp4downloading", "a worker asks; the judge moves"


async def test_no_more_jobs_than_places_and_the_oldest_first(owner, pool, runner, stand, work) -> None:
    gate = asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        await gate.wait()
        return COMPLETE

    _, hands, _ = await work(script, places=2)
    await queue(pool, runner, *[await stand(name) for name in "abcd"])
    await until(lambda: len(hands.begun) == 2)
    await asyncio.sleep(1.2)  # another look at the queue
    assert sorted(hands.begun) == ["a", "b"]
    assert await jobs(owner) == [
        ("a/1/transfer-to-bucket", "picked"),
        ("b/1/transfer-to-bucket", "picked"),
        ("c/1/transfer-to-bucket", "queued"),
        ("d/1/transfer-to-bucket", "queued"),
    ]
    gate.set()
    await until(lambda: is_empty(owner))
    assert sorted(hands.begun) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("problem", "row"),
    [
        (TransientError("source_cut", "cut", 7.0), ("source_cut", "cut", False, 7.0)),
        (PermanentError("too_large", "30 GB"), ("too_large", "30 GB", True, None)),
        (KeyError("secret"), ("internal", "transfer-to-bucket broke; the log says where", False, None)),
        (asyncio.CancelledError(), ("internal", "transfer-to-bucket broke; the log says where", False, None)),
    ],
    ids=["transient", "permanent", "a fault of ours", "a cancellation by nobody"],
)
async def test_a_failure_is_left_for_the_leader_to_judge(
    owner, pool, runner, stand, work, problem: BaseException, row: tuple[Any, ...]
) -> None:
    async def script(effect: Effect, reports: Reports) -> Done:
        raise problem

    await work(script)
    await queue(pool, runner, await stand("a"))
    await until(lambda: is_empty(owner))
    found = await owner.fetch(
        "SELECT clip_id, attempt, effect, code, reason, is_permanent, retry_after FROM worker_failures"
    )
    assert [tuple(each) for each in found] == [("a", 1, "transfer-to-bucket", *row)]
    assert await owner.fetchval("SELECT tries FROM clips") == 0


_END_WHO_WAITS = """
SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity
 WHERE application_name = 'test pool' AND wait_event_type = 'Lock'
"""


@pytest.mark.parametrize("when", ["in the middle", "at the end"])
async def test_sessions_that_the_database_ends_are_not_blamed_on_the_clip(
    owner, pool, runner, stand, work, when: str
) -> None:
    """In the middle the leader is told of it, who blames nobody; at the end nobody can be, and the hold runs out."""
    tells = asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        await tells.wait()
        if when == "in the middle":
            await reports.step(Step("r2_uploading", "first part"))
        return COMPLETE

    worker, _, _ = await work(script)
    await queue(pool, runner, await stand("a"))
    await until(lambda: worker._held)
    async with owner.transaction(), asyncio.timeout(LIMIT_SECONDS):
        await owner.execute("LOCK TABLE clip_signals IN EXCLUSIVE MODE")
        tells.set()
        while not await owner.fetchval(_END_WHO_WAITS):
            await asyncio.sleep(0.01)
    if when == "at the end":
        await until(lambda: not worker._held)
        assert await owner.fetchval("SELECT count(*) FROM worker_failures") == 0
        await age(owner, HOLD_SECONDS)
    await until(lambda: is_empty(owner))
    failures = await owner.fetch("SELECT code FROM worker_failures")
    assert [row["code"] for row in failures] == ([DATABASE_AWAY] if when == "in the middle" else [])
    signals = await owner.fetch("SELECT requested_status FROM clip_signals")
    assert [row["requested_status"] for row in signals] == ([] if when == "in the middle" else ["complete"])


async def test_a_job_whose_holder_has_not_renewed_it_is_anothers_and_the_late_one_tells_nothing(
    owner, pool, runner, stand, work
) -> None:
    """As a worker that was stopped, and goes on where it was."""
    gate = asyncio.Event()

    async def late(effect: Effect, reports: Reports) -> Done:
        await gate.wait()
        await reports.step(Step("r2_uploading", "first part"))
        return COMPLETE

    _, first, _ = await work(late)
    await queue(pool, runner, await stand("a"))
    await until(lambda: first.begun)
    await age(owner, HOLD_SECONDS + 1)
    _, second, _ = await work(never)
    await until(lambda: second.begun)
    gate.set()
    await asyncio.sleep(0.3)
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 0
    assert await jobs(owner) == [("a/1/transfer-to-bucket", "picked")], "the other one's job is still there"
    assert not second.stopped


async def test_a_job_that_is_renewed_stays_with_its_holder(owner, pool, runner, stand, work, monkeypatch) -> None:
    monkeypatch.setattr(running, "RENEWAL_SECONDS", 0.1)
    _, first, _ = await work(never)
    await queue(pool, runner, await stand("a"))
    await until(lambda: first.begun)
    for _ in range(4):
        await age(owner, HOLD_SECONDS / 2)
        await asyncio.sleep(0.3)
    _, second, _ = await work(never)
    await asyncio.sleep(1.2)
    assert not second.begun
    assert not first.stopped


async def test_what_cannot_be_renewed_is_stopped_before_another_may_take_it(
    owner, pool, runner, stand, work, monkeypatch
) -> None:
    """By the local clock, counted from the start of the taking; the fence closes for what cannot be stopped."""
    now, refused = [100.0], asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        with changing():
            pass
        try:
            await asyncio.Event().wait()
        finally:
            now[0] += HOLD_SECONDS
            try:
                with changing():
                    pass
            except running.HoldLost:
                refused.set()
        raise AssertionError

    async def hangs(*_: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(Filing, "renew", hangs)
    _, hands, _ = await work(script, monotonic=lambda: now[0])
    await queue(pool, runner, await stand("a"))
    await until(lambda: hands.begun)
    now[0] += HOLD_SECONDS - running.MARGIN_SECONDS - 0.1
    await asyncio.sleep(2 * running.WATCH_SECONDS)
    assert not hands.stopped
    now[0] += 0.1
    await until(lambda: hands.stopped)
    assert refused.is_set()


@pytest.mark.parametrize("why", ["ended", "another attempt", "gone"])
async def test_what_nobody_wants_any_more_is_stopped_and_forgotten(
    owner, pool, runner, stand, work, monkeypatch, why: str
) -> None:
    monkeypatch.setattr(running, "RENEWAL_SECONDS", 0.1)
    _, hands, _ = await work(never)
    await queue(pool, runner, await stand("a"))
    await until(lambda: hands.begun)
    await owner.execute(
        {
            "ended": "UPDATE clips SET status = 'error'",
            "another attempt": "UPDATE clips SET status = 'error';"
            " UPDATE clips SET status = 'mp4downloading', attempt = 2",
            "gone": "DELETE FROM clips",
        }[why]
    )
    await until(lambda: hands.stopped)
    await until(lambda: is_empty(owner))


async def test_a_job_of_which_the_row_wants_nothing_is_not_begun(owner, pool, runner, stand, work) -> None:
    effects = [await stand(name) for name in "abc"]
    await owner.execute(
        "INSERT INTO workers (id, name, kinds, places) VALUES (gen_random_uuid(), 'x', $1, 1)", ["transfer-to-bucket"]
    )
    await queue(pool, runner, *effects)
    await owner.execute("UPDATE clips SET status = 'error' WHERE id = 'a'")
    await owner.execute(
        "INSERT INTO clip_signals (clip_id, attempt, requested_status, source, observed)"
        " VALUES ('b', 1, 'complete', 'transfer-to-bucket', true)"
    )
    _, hands, _ = await work(done)
    await until(lambda: is_empty(owner))
    assert hands.begun == ["c"]


async def test_who_stops_gives_everything_back_at_once(owner, pool, runner, stand, work) -> None:
    _, hands, end = await work(never)
    await queue(pool, runner, await stand("a"), await stand("b"))
    await until(lambda: len(hands.begun) == 2)
    started = asyncio.get_running_loop().time()
    await end()
    assert asyncio.get_running_loop().time() - started < 2
    assert sorted(hands.stopped) == ["a", "b"]
    assert [status for _, status in await jobs(owner)] == ["queued", "queued"]
    assert await owner.fetchval("SELECT count(*) FROM workers") == 0
    _, other, _ = await work(done)
    await until(lambda: is_empty(owner))
    assert sorted(other.begun) == ["a", "b"]


async def test_progress_is_told_for_the_leader(owner, pool, runner, stand, work) -> None:
    async def script(effect: Effect, reports: Reports) -> Done:
        reports.progress("mp4downloading", None)
        reports.progress("mp4downloading", 40.0)
        return await never(effect, reports)

    await work(script)
    await queue(pool, runner, await stand("a"))
    await until(lambda: owner.fetchval("SELECT count(*) FROM worker_progress"))
    row = await owner.fetchrow("SELECT clip_id, attempt, pipeline, status, percent FROM worker_progress")
    assert tuple(row) == ("a", 1, "stream", "mp4downloading", 40.0)


async def test_two_workers_never_have_the_same_job(owner, pool, runner, stand, work) -> None:
    workers = [await work(done, places=3) for _ in range(3)]
    names = [f"c{number}" for number in range(30)]
    await queue(pool, runner, *[await stand(name) for name in names])
    await until(lambda: is_empty(owner))
    begun = [name for _, hands, _ in workers for name in hands.begun]
    assert sorted(begun) == sorted(names)
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == len(names)
