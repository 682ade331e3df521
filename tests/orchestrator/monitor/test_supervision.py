"""No task of the loop dies unseen: the real monitor, whose dependencies fail in every way nobody foresaw."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.drivers.cloudflare_models import Video, VideoState
from orchestrator.monitor import loop
from orchestrator.monitor.errors import LeadershipLost, Stalled, TaskEnded
from orchestrator.monitor.leadership import Lease
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.pipelines.limits import Limit
from orchestrator.pipelines.stream.effects import TransferToBucket
from orchestrator.pipelines.stream.plan import StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Effect, LookKind, Pipeline, Reports
from orchestrator.storage.clips import Clip, read_clip
from orchestrator.storage.pool import connect, create_pool
from signals import signal_status_update

LIMIT_SECONDS = 20
STREAM = stream_pipeline(StreamPolicy(timedelta(milliseconds=50), timedelta(seconds=1)))

# Nobody foresaw these; each must end the process, or be outlived.
UNFORESEEN = [RecursionError("deep"), MemoryError(), KeyError("x"), AssertionError("never"), UnicodeError("odd")]
# The database is away, or there and refusing to work: the process stands by and tries again.
TROUBLE = [
    asyncpg.InternalClientError("got result for unknown protocol state"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.DiskFullError("no space left"),
    asyncpg.ReadOnlySQLTransactionError("a standby took its place"),
    asyncpg.InsufficientPrivilegeError("revoked"),
    asyncpg.DeadlockDetectedError("deadlock"),
    asyncpg.UndefinedColumnError("another schema"),
    asyncpg.PostgresError("of no class at all"),
    ConnectionResetError(),
    TimeoutError(),
]


def name(problem: Exception) -> str:
    return type(problem).__name__


class Hands:
    """A provider that still encodes, or whose transfers hang."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.looks = 0
        self.stopped = asyncio.Event()
        self.tidying: Exception | None = None

    def queue_of(self, effect: Effect) -> str | None:
        return None

    def capacity(self, effect: Effect) -> int:
        return 50

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        self.looks += 1
        return {clip.id: Video(clip.cloudflare_uid or "", VideoState.QUEUED, "queued", 10.0) for clip in clips}

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        self.asked[type(effect).__name__] += 1
        if not isinstance(effect, TransferToBucket):
            return Done()
        reports.progress("r2_uploading", 50.0)
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()
        raise AssertionError

    async def tidy(self) -> Mapping[str, int]:
        self.asked["tidy"] += 1
        if self.tidying is not None:
            raise self.tidying
        return {}


@asynccontextmanager
async def monitor_on(
    database: str, hands: Hands, pipeline: Pipeline = STREAM, listening: Callable[[], Awaitable[Any]] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """A monitor that leads; at the end it is stopped, unless it has ended by itself."""
    pool = await create_pool(database, "orchestrator_monitor", "test monitor")
    connecting = listening or (lambda: connect(database, "orchestrator_monitor", "test listener"))
    stop = asyncio.Event()
    parts = MonitorParts(pool, connecting, {"stream": pipeline}, {"stream": hands})
    task = asyncio.create_task(Monitor(parts).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait([task], timeout=LIMIT_SECONDS)
        await pool.close()


def breaking(
    monkeypatch: pytest.MonkeyPatch, what: str, problem: Exception, times: int = 1_000_000, after: int = 0
) -> Callable[[], int]:
    """Have what the loop calls by that name raise *problem*, so often, *after* some calls; how often it was called."""
    real, calls = getattr(loop, what), 0

    async def call(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if after < calls <= after + times:
            raise problem
        return await real(*arguments, **more)

    monkeypatch.setattr(loop, what, call)
    return lambda: calls


async def until(holds: Callable[[], Awaitable[Any] | Any]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            answer = holds()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.02)


async def status(api: asyncpg.Connection, clip_id: str) -> str:
    clip = await read_clip(api, clip_id)
    assert clip is not None
    return clip.status


async def ended_with(task: asyncio.Task[None]) -> list[BaseException]:
    await asyncio.wait([task], timeout=LIMIT_SECONDS)
    assert task.done(), "the process would go on without its task"
    problem = task.exception()
    assert problem is not None, "the process would end as if all were well"
    return loop._leaves(problem)


# ---- drainer and looker: the process ends, or the database is waited for -------------------------------------------


@pytest.mark.parametrize("problem", UNFORESEEN, ids=name)
@pytest.mark.parametrize("what", ["drain", "read_due"])
async def test_the_process_ends_with_its_drainer_or_looker(
    database: str, monkeypatch: pytest.MonkeyPatch, what: str, problem: Exception
) -> None:
    breaking(monkeypatch, what, problem)
    async with monitor_on(database, Hands()) as task:
        assert await ended_with(task) == [problem]


@pytest.mark.parametrize("problem", TROUBLE, ids=name)
@pytest.mark.parametrize("what", ["drain", "read_due"])
async def test_a_database_that_refuses_to_work_is_waited_for(
    database: str, api: asyncpg.Connection, stand, monkeypatch: pytest.MonkeyPatch, what: str, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "TROUBLE_SECONDS", 0.01)
    calls = breaking(monkeypatch, what, problem, times=2)
    await stand("a")
    async with monitor_on(database, Hands()) as task:
        await until(lambda: calls() > 2)

        async def moved() -> bool:
            return await status(api, "a") == "queued"

        await until(moved)
        assert not task.done()
    assert await api.fetchval("SELECT epoch FROM monitor_lease") == 3


@pytest.mark.parametrize("problem", [*TROUBLE, LeadershipLost("over")], ids=name)
async def test_a_look_that_meets_a_database_in_trouble_ends_the_term_and_no_more(
    database: str, api: asyncpg.Connection, stand, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "TROUBLE_SECONDS", 0.01)
    breaking(monkeypatch, "look", problem, times=1)
    await stand("a")
    async with monitor_on(database, Hands()) as task:

        async def moved() -> bool:
            return await status(api, "a") == "queued"

        await until(moved)
        assert not task.done()
    assert await api.fetchval("SELECT epoch FROM monitor_lease") == 2


@pytest.mark.parametrize("problem", UNFORESEEN, ids=name)
async def test_the_process_ends_with_what_breaks_a_look_as_a_whole(
    database: str, stand, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    breaking(monkeypatch, "look", problem)
    await stand("a")
    async with monitor_on(database, Hands()) as task:
        assert await ended_with(task) == [problem]


@pytest.mark.parametrize("what", ["drain", "read_due", "write_progress"])
async def test_a_task_that_is_cancelled_by_nobody_ends_the_process(
    database: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A group of tasks takes no notice of it: half a monitor would go on."""
    monkeypatch.setattr(loop, "TICK_SECONDS", 0.01)
    breaking(monkeypatch, what, asyncio.CancelledError())  # type: ignore[arg-type]
    async with monitor_on(database, Hands()) as task:
        (problem,) = await ended_with(task)
        assert isinstance(problem, TaskEnded)


async def test_a_task_that_returns_ends_the_process(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def returning(self: object) -> None:
        return None

    monkeypatch.setattr(loop._Turn, "_tick", returning)
    async with monitor_on(database, Hands()) as task:
        assert [str(problem) for problem in await ended_with(task)] == ["the ticker has ended"]


async def test_a_look_that_is_cancelled_by_nobody_does_not_turn_in_a_circle(
    database: str, stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = breaking(monkeypatch, "look", asyncio.CancelledError())  # type: ignore[arg-type]
    await stand("a")
    async with monitor_on(database, Hands()) as task:
        await until(lambda: calls() >= 2)
        so_far, started = calls(), asyncio.get_running_loop().time()
        await until(lambda: calls() >= so_far + 1)
        assert asyncio.get_running_loop().time() - started > 0.2
        assert not task.done()


# ---- the keeper ----------------------------------------------------------------------------------------------------


async def test_a_loop_that_does_not_come_round_ends_the_process(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(loop, "RENEWAL_SECONDS", 0.1)

    async def hanging(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "read_due", hanging)
    async with monitor_on(database, Hands()) as task:
        (problem,) = await ended_with(task)
        assert isinstance(problem, Stalled)


@pytest.mark.parametrize("problem", [KeyError("x"), MemoryError()], ids=name)
async def test_the_process_ends_with_its_keeper(
    database: str, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    async def renew(*_: Any) -> None:
        raise problem

    monkeypatch.setattr(Lease, "renew", renew)
    async with monitor_on(database, Hands()) as task:
        assert await ended_with(task) == [problem]


@pytest.mark.parametrize("problem", TROUBLE, ids=name)
async def test_a_lease_that_cannot_be_taken_is_asked_for_again(
    database: str, api: asyncpg.Connection, stand, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "STANDBY_SECONDS", 0.01)
    real, calls = Lease.take, 0

    async def take(self: Lease) -> Any:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise problem
        return await real(self)

    monkeypatch.setattr(Lease, "take", take)
    async with monitor_on(database, Hands()) as task:

        async def leads() -> bool:
            return bool(await api.fetchval("SELECT epoch FROM monitor_lease") == 1)

        await until(leads)
        assert not task.done()


# ---- ticker, tidier, listener: outlived ----------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [*UNFORESEEN, *TROUBLE], ids=name)
async def test_a_ticker_that_fails_ends_no_leadership(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "TICK_SECONDS", 0.01)
    calls = breaking(monkeypatch, "write_progress", problem, times=3)
    with capture_logs() as logs:
        async with monitor_on(database, Hands()) as task:
            await until(lambda: calls() > 5)
            assert not task.done()
    assert [entry["event"] for entry in logs].count("progress could not be written") == 3
    assert await api.fetchval("SELECT epoch FROM monitor_lease") == 1


@pytest.mark.parametrize("problem", [*UNFORESEEN, *TROUBLE], ids=name)
async def test_a_hearer_that_fails_ends_no_leadership(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "ALONE_SECONDS", 0.01)
    calls = breaking(monkeypatch, "hear", problem, times=3)
    async with monitor_on(database, Hands()) as task:
        await until(lambda: calls() > 5)
        assert not task.done()
    assert await api.fetchval("SELECT epoch FROM monitor_lease") == 1


async def test_what_failed_on_a_worker_is_heard_of_and_judged(
    database: str, owner: asyncpg.Connection, stand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "ALONE_SECONDS", 0.01)
    await stand("c", "mp4downloading", look_at=datetime.now(UTC) + timedelta(hours=1))
    await owner.execute(
        "INSERT INTO worker_failures (clip_id, attempt, effect, code, reason, is_permanent, began_at)"
        " VALUES ('c', 1, 'transfer-to-bucket', 'too_large', 'larger than allowed', true, now())"
    )
    async with monitor_on(database, Hands()):
        async with asyncio.timeout(10):
            while await owner.fetchval("SELECT count(*) FROM worker_failures"):
                await asyncio.sleep(0.02)
        assert await owner.fetchval("SELECT status || ' ' || error_message FROM clips") == "error larger than allowed"


@pytest.mark.parametrize("problem", [*UNFORESEEN, *TROUBLE], ids=name)
async def test_a_tidier_that_fails_ends_no_leadership(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "TIDY_SECONDS", 0.01)
    hands = Hands()
    hands.tidying = problem
    async with monitor_on(database, hands) as task:
        await until(lambda: hands.asked["tidy"] > 2)
        assert not task.done()
    assert await api.fetchval("SELECT epoch FROM monitor_lease") == 1


@pytest.mark.parametrize("problem", [*UNFORESEEN, *TROUBLE], ids=name)
async def test_a_listener_that_fails_is_told_of_and_listens_again(
    database: str, api: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(loop, "LISTEN_AGAIN_SECONDS", 0.01)
    calls = 0

    async def listening() -> Any:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise problem
        return await connect(database, "orchestrator_monitor", "test listener")

    with capture_logs() as logs:
        async with monitor_on(database, Hands(), listening=listening) as task:
            await until(lambda: calls == 4)
            assert not task.done()
    assert sum("it listens again" in entry["event"] for entry in logs) == 3
    assert await api.fetchval("SELECT epoch FROM monitor_lease") == 1


async def test_the_listener_listens_again_first_and_sweeps_second(
    database: str, owner: asyncpg.Connection, api: asyncpg.Connection, stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is signalled while nobody listens, its hint lost, is found by the sweep after the new LISTEN."""
    monkeypatch.setattr(loop, "SWEEP_SECONDS", 1000.0)  # nothing but the listener wakes the drainer
    monkeypatch.setattr(loop, "LISTEN_AGAIN_SECONDS", 0.01)
    may_connect = asyncio.Event()
    may_connect.set()
    connecting = 0

    async def listening() -> Any:
        nonlocal connecting
        connecting += 1
        await may_connect.wait()
        return await connect(database, "orchestrator_monitor", "test listener")

    await stand("a", look_at=await owner.fetchval("SELECT clock_timestamp() + interval '1 hour'"))
    async with monitor_on(database, Hands(), listening=listening):

        async def listens() -> bool:
            statement = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test listener' AND query LIKE $1"
            )
            return bool(await owner.fetchval(statement, "LISTEN%"))

        await until(listens)
        may_connect.clear()
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test listener'"
        )
        await until(lambda: connecting == 2)
        await signal_status_update(api, "a", "error", {"error_message": "while nobody listened"}, "test")
        await owner.execute("NOTIFY orchestrator_wake")
        may_connect.set()

        async def ended() -> bool:
            return await status(api, "a") == "error"

        await until(ended)


# ---- nothing rests at 95 % -----------------------------------------------------------------------------------------


async def test_a_transfer_that_hangs_for_ever_is_stopped_by_its_deadline(
    database: str, api: asyncpg.Connection, stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever limits the transfer has inside: the engine has its own."""
    monkeypatch.setattr("orchestrator.pipelines.stream.plan.WHILE_WORKING", timedelta(milliseconds=50))
    short = {**STREAM.limits, "r2_uploading": Limit(timedelta(seconds=1))}
    hands = Hands()
    await stand("a", "r2_uploading", mp4_url="https://d/m.mp4")
    async with monitor_on(database, hands, replace(STREAM, limits=short)):

        async def ended() -> bool:
            return await status(api, "a") == "error"

        await until(ended)
        await asyncio.wait_for(hands.stopped.wait(), LIMIT_SECONDS)
    clip = await read_clip(api, "a")
    assert clip is not None
    assert (clip.processing_details["error_code"], clip.progress >= 95) == ("deadline_passed", True)
    assert "retry_at" in clip.processing_details


async def test_a_failed_clip_is_tried_again_by_itself(
    database: str, api: asyncpg.Connection, owner: asyncpg.Connection, stand
) -> None:
    failed = '{"error_code": "source_cut", "error_message": "cut", "retry_at": "2026-01-01T00:00:00+00:00"}'
    await stand("a", "error", mp4_url="https://d/m.mp4")
    await owner.execute("UPDATE clips SET processing_details = $1, error_message = 'cut' WHERE id = 'a'", failed)
    hands = Hands()
    async with monitor_on(database, hands):
        await until(lambda: hands.asked["TransferToBucket"] == 1)
    clip = await read_clip(api, "a")
    assert clip is not None
    assert (clip.status, clip.attempt, clip.error_message) == ("mp4downloading", 2, None)
    assert not {"error_code", "error_message", "retry_at"} & set(clip.processing_details)


def test_the_process_says_why_and_ends_with_an_error(database: str) -> None:
    """What ends the loop reaches whoever started the program: an exit code that is not 0, and the reason."""
    program = (
        "import sys, orchestrator.assembly as assembly\n"
        "from orchestrator.monitor.errors import Stalled\n"
        "async def run_monitor(settings, stop):\n"
        "    raise ExceptionGroup('unhandled errors in a TaskGroup', [Stalled('no round for 31 s')])\n"
        "assembly.run_monitor = run_monitor\n"
        "from orchestrator.__main__ import main\n"
        "sys.exit(main(['monitor']))\n"
    )
    settings = {
        "DATABASE_URL": database, "CLOUDFLARE_ACCOUNT_ID": "a", "CLOUDFLARE_API_TOKEN": "t" * 20, "R2_ACCOUNT_ID": "a",
        "R2_ACCESS_KEY_ID": "k", "R2_SECRET_ACCESS_KEY": "s", "R2_BUCKET_NAME": "bucket",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "no round for 31 s" in done.stderr
