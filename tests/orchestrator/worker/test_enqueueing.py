"""The seam: heavy steps go to living workers in the transaction that moves the clip, and come back without one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment

from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.monitor.afar import hear, judge_failures, told_progress
from orchestrator.monitor.effects import EffectRunner
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.failures import wait_after
from orchestrator.monitor.looking import Looker, group, look, read_due
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.stream.effects import TransferToBucket
from orchestrator.pipelines.terms import Effect
from orchestrator.storage import heavy_steps
from orchestrator.storage.clips import read_clip
from orchestrator.storage.heavy_steps import HOLD_SECONDS, HeavyStep, read_step_of, read_workers, tidy_steps
from orchestrator.worker.taking import queue_settings

NOW = datetime.now(UTC)
KIND = "transfer-to-bucket"
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def worker(owner: asyncpg.Connection) -> Any:
    """Let a worker have been seen so many seconds ago."""

    async def seen(seconds: float = 0.0, kind: str = KIND) -> None:
        await owner.execute("DELETE FROM workers")
        await owner.execute(
            "INSERT INTO workers (id, name, kinds, places, seen_at)"
            " VALUES (gen_random_uuid(), 'w', $1, 1, clock_timestamp() - make_interval(secs => $2))",
            [kind],
            seconds,
        )

    return seen


async def queue(pool: asyncpg.Pool, runner: EffectRunner, *effects: TransferToBucket) -> Sequence[Effect]:
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        return await runner.enqueue(connection, "stream", effects)


async def keys(owner: asyncpg.Connection) -> list[str]:
    return [row["dedupe_key"] for row in await owner.fetch("SELECT dedupe_key FROM clip_pgqueuer ORDER BY id")]


def test_the_queue_is_what_pgqueuers_own_installer_makes() -> None:
    installed = QueryBuilderEnvironment(queue_settings()).build_install_query()
    written = (_ROOT / "migrations" / "0011_queue_heavy_steps.sql").read_text()
    assert installed[installed.index("CREATE TYPE") :].strip() in written


async def test_without_a_worker_everything_is_done_here(owner, pool, runner, stand) -> None:
    effect = await stand("a")
    assert await queue(pool, runner, effect) == (effect,)
    assert await keys(owner) == []


async def test_with_a_worker_it_is_queued_once(owner, pool, runner, stand, worker) -> None:
    await worker()
    effect = await stand("a")
    for _ in range(3):
        assert await queue(pool, runner, effect) == ()
    assert await keys(owner) == ["a/1/transfer-to-bucket"]
    payload = await owner.fetchval("SELECT payload FROM clip_pgqueuer")
    assert HeavyStep.from_payload(payload) == HeavyStep(KIND, "stream", "a", 1, KIND)


async def test_a_worker_of_another_kind_is_none(owner, pool, runner, stand, worker) -> None:
    await worker(kind="something-else")
    effect = await stand("a")
    assert await queue(pool, runner, effect) == (effect,)


async def test_a_job_lives_and_dies_with_the_transaction_that_moves_the_clip(
    owner, pool, runner, stand, worker
) -> None:
    await worker()
    effect = await stand("a")
    async with pool.acquire(timeout=5) as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await runner.enqueue(connection, "stream", [effect]) == ()
        await transaction.rollback()
    assert await keys(owner) == []
    assert await queue(pool, runner, effect) == ()


async def test_a_look_queues_in_the_transaction_that_moves_its_clips(owner, pool, term, runner, stand, worker) -> None:
    """When its commit does not come about, nothing is queued, either."""

    class Lost(Exception):
        pass

    async def enqueue(connection: asyncpg.Connection, pipeline: str, effects: Sequence[Effect]) -> Sequence[Effect]:
        assert await runner.enqueue(connection, pipeline, effects) == ()
        raise Lost

    await worker()
    await stand("a")
    stream, hands = PIPELINES["stream"], runner._hands["stream"]
    clips = await read_due(pool, ["stream"], [])
    assert [clip.id for clip in clips] == ["a"]
    group_of = group({"stream": stream}, clips)[0]
    with pytest.raises(Lost):
        await look(Looker(pool, term, lambda: NOW, enqueue), stream, hands, group_of)
    assert await keys(owner) == []
    moves, here = await look(Looker(pool, term, lambda: NOW, runner.enqueue), stream, hands, group_of)
    assert ([move.clip_id for move in moves], list(here)) == (["a"], [])
    assert await keys(owner) == ["a/1/transfer-to-bucket"]


async def test_what_runs_here_stays_here_when_a_worker_comes(owner, pool, runner, stand, worker) -> None:
    gate = asyncio.Event()

    async def script(effect: Effect, reports: Any) -> Any:
        await gate.wait()

    runner._hands["stream"].script = script  # type: ignore[index]
    effect = await stand("a")
    assert runner.start("stream", effect)
    await worker()
    assert await queue(pool, runner, effect) == (effect,)
    assert await keys(owner) == []
    await runner.close()


@pytest.mark.parametrize("left", ["queued", "picked long ago"])
async def test_what_workers_that_are_gone_have_left_is_taken_back(
    owner, pool, runner, stand, worker, left: str
) -> None:
    await worker()
    effect = await stand("a")
    await queue(pool, runner, effect)
    if left != "queued":
        await owner.execute(
            "UPDATE clip_pgqueuer SET status = 'picked', queue_manager_id = gen_random_uuid(),"
            " heartbeat = clock_timestamp() - make_interval(secs => $1)",
            HOLD_SECONDS + 1,
        )
    await worker(HOLD_SECONDS + 1)
    assert await queue(pool, runner, effect) == (effect,)
    assert await keys(owner) == []


async def test_what_is_held_is_never_taken_back(owner, pool, runner, stand, worker) -> None:
    await worker()
    effect = await stand("a")
    await queue(pool, runner, effect)
    await owner.execute(
        "UPDATE clip_pgqueuer"
        " SET status = 'picked', queue_manager_id = gen_random_uuid(), heartbeat = clock_timestamp()"
    )
    await owner.execute("DELETE FROM workers")
    assert await queue(pool, runner, effect) == ()
    assert await keys(owner) == ["a/1/transfer-to-bucket"]


@pytest.mark.parametrize("what", ["signal", "failure"])
async def test_what_has_ended_and_is_not_judged_yet_is_not_begun_again(
    owner, pool, runner, stand, worker, what: str
) -> None:
    await worker()
    effect = await stand("a")
    if what == "signal":
        await owner.execute(
            "INSERT INTO clip_signals (clip_id, attempt, requested_status, source, observed)"
            " VALUES ('a', 1, 'complete', 'transfer-to-bucket', true)"
        )
    else:
        await fail(owner, "a")
    assert await queue(pool, runner, effect) == ()
    assert await keys(owner) == []


async def test_the_queue_is_bounded(owner, pool, runner, stand, worker, monkeypatch) -> None:
    monkeypatch.setattr(heavy_steps, "MAX_QUEUED", 2)
    await worker()
    for name in "abc":
        assert await queue(pool, runner, await stand(name)) == (), "it waits; the next look asks again"
    assert await keys(owner) == ["a/1/transfer-to-bucket", "b/1/transfer-to-bucket"]
    assert runner.waiting() == {"c"}, "its clock stands still meanwhile"
    await owner.execute("DELETE FROM clip_pgqueuer")
    await queue(pool, runner, await stand("d"), TransferToBucket("c", 1, "uc", "https://d/m.mp4", 5.0, False))
    assert runner.waiting() == set()


async def test_who_waits_for_a_worker_is_heard_of(owner, pool, runner, stand, worker) -> None:
    await worker()
    await queue(pool, runner, await stand("a"), await stand("b"))
    await owner.execute("UPDATE clip_pgqueuer SET status = 'picked' WHERE dedupe_key LIKE 'a/%'")
    await owner.execute(
        "INSERT INTO worker_progress (clip_id, attempt, pipeline, status, percent, told_at) VALUES"
        " ('a', 1, 'stream', 'r2_uploading', 30, clock_timestamp()),"
        " ('b', 1, 'stream', 'r2_uploading', 30, clock_timestamp() - interval '1 minute'),"
        " ('c', 1, 'newer', 'r2_uploading', 30, clock_timestamp())"
    )
    heard = await hear(pool)
    assert (heard.is_used, heard.waiting, heard.has_failures) == (True, frozenset({"b"}), False)
    assert {key: told.percent for key, told in told_progress(heard, PIPELINES).items()} == {("a", 1): 30}


# ---- failures ------------------------------------------------------------------------------------------------------


async def fail(owner: asyncpg.Connection, clip_id: str, problem: Any = None, attempt: int = 1) -> None:
    problem = problem or TransientError("source_cut", "the line was cut", 20.0)
    await owner.execute(
        "INSERT INTO worker_failures (clip_id, attempt, effect, code, reason, is_permanent, retry_after, began_at)"
        " VALUES ($1, $2, 'transfer-to-bucket', $3, $4, $5, $6, $7)",
        clip_id,
        attempt,
        problem.code,
        problem.text,
        isinstance(problem, PermanentError),
        getattr(problem, "retry_after", None),
        NOW,
    )


async def test_the_leader_judges_a_failure_as_its_own(owner, pool, term, stand) -> None:
    await stand("a")
    await stand("b")
    await fail(owner, "a")
    await fail(owner, "b", PermanentError("too_large", "larger than allowed"))
    moves = await judge_failures(pool, term, PIPELINES, lambda: NOW)
    assert {move.clip_id for move in moves} == {"a", "b"}
    a, b = await read_clip(owner, "a"), await read_clip(owner, "b")
    assert a is not None
    assert b is not None
    assert (a.status, a.tries, a.look_at) == ("mp4downloading", 1, NOW + wait_after(1, 20.0))
    assert (b.status, b.processing_details["error_code"]) == ("error", "too_large")
    assert await owner.fetchval("SELECT count(*) FROM worker_failures") == 0


async def test_each_failure_of_a_clip_counts(owner, pool, term, stand) -> None:
    await stand("a")
    await fail(owner, "a")
    await fail(owner, "a")
    for _ in range(2):
        await judge_failures(pool, term, PIPELINES, lambda: NOW)
    assert await owner.fetchval("SELECT tries FROM clips") == 2


@pytest.mark.parametrize("case", ["attempt-over", "clip-gone"])
async def test_a_failure_that_concerns_nobody_any_more_is_forgotten(owner, pool, term, stand, case: str) -> None:
    await stand("a")
    await fail(owner, "gone" if case == "clip-gone" else "a", attempt=2)
    assert await judge_failures(pool, term, PIPELINES, lambda: NOW) == []
    assert await owner.fetchval("SELECT tries FROM clips") == 0
    assert await owner.fetchval("SELECT count(*) FROM worker_failures") == 0


async def test_a_failure_waits_for_the_leader_and_for_a_row_that_is_held(owner, pool, term, stand) -> None:
    await stand("a")
    await fail(owner, "a")
    with pytest.raises(LeadershipLost):
        await judge_failures(pool, replace(term, epoch=term.epoch - 1), PIPELINES, lambda: NOW)
    async with owner.transaction():
        await owner.execute("SELECT FROM clips FOR UPDATE")
        assert await judge_failures(pool, term, PIPELINES, lambda: NOW) == []
    assert await owner.fetchval("SELECT count(*) FROM worker_failures") == 1
    assert len(await judge_failures(pool, term, PIPELINES, lambda: NOW)) == 1


# ---- telling people ------------------------------------------------------------------------------------------------


async def test_where_a_clips_step_is_can_be_told(owner, pool, runner, stand, worker) -> None:
    await worker()
    await queue(pool, runner, await stand("a_b"))
    await stand("aXb")
    waiting = await read_step_of(owner, "a_b")
    assert waiting is not None
    assert (waiting.is_running, waiting.worker, waiting.is_served) == (False, None, True)
    assert await read_step_of(owner, "aXb") is None
    await owner.execute("UPDATE clip_pgqueuer SET status = 'picked', queue_manager_id = (SELECT id FROM workers)")
    running = await read_step_of(owner, "a_b")
    assert running is not None
    assert (running.is_running, running.worker) == (True, "w")
    assert [(each.name, each.places, each.running) for each in await read_workers(owner)] == [("w", 1, 1)]
    await worker(HOLD_SECONDS + 1)
    assert await read_workers(owner) == []


async def test_what_no_clip_needs_any_more_is_forgotten(owner, pool, runner, stand, worker) -> None:
    await worker()
    await queue(pool, runner, await stand("a"), await stand("b"))
    await owner.execute("UPDATE clip_pgqueuer SET created = created - interval '2 hours'")
    await owner.execute("UPDATE clips SET status = 'error', look_at = NULL WHERE id = 'a'")
    async with pool.acquire(timeout=5) as connection:
        await tidy_steps(connection)
    assert await keys(owner) == ["b/1/transfer-to-bucket"]
