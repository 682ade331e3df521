"""A queue on a real database, workers on it whose hands do what a test says, and the leader's side of both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from orchestrator.monitor.effects import EffectRunner
from orchestrator.monitor.leadership import Term
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.stream.effects import TransferToBucket
from orchestrator.pipelines.terms import Done, Effect, Reports, effect_name
from orchestrator.worker.running import Worker, WorkerParts
from statusutils import STREAM

KIND = "transfer-to-bucket"
Script = Callable[[Effect, Reports], Awaitable[Done]]


class ScriptedHands:
    """Carries out transfers by the script it is given."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.begun: list[str] = []
        self.stopped: list[str] = []

    def capacity(self, effect: Effect) -> int:
        return 10

    def queue_of(self, effect: Effect) -> str | None:
        return effect_name(effect)

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        self.begun.append(effect.clip_id)
        try:
            return await self.script(effect, reports)
        except asyncio.CancelledError:
            self.stopped.append(effect.clip_id)
            raise


@pytest.fixture
def database(emptied_database: str) -> str:
    """Those of one file share one, emptied before each."""
    return emptied_database


@pytest.fixture
def stand(owner: asyncpg.Connection) -> Callable[..., Awaitable[TransferToBucket]]:
    """Put a new clip where its transfer begins; the effect that its plan asks for."""

    async def place(clip_id: str) -> TransferToBucket:
        await owner.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", clip_id, f"u{clip_id}")
        floor = STREAM["mp4downloading"].min_progress
        await owner.execute(
            "UPDATE clips SET status = 'mp4downloading', progress = $2, mp4_url = 'https://d/m.mp4', duration = 5"
            " WHERE id = $1",
            clip_id,
            floor,
        )
        return TransferToBucket(clip_id, 1, f"u{clip_id}", "https://d/m.mp4", 5.0, False)

    return place


@pytest.fixture
def runner(pool: asyncpg.Pool, term: Term) -> EffectRunner:
    """The leader's, whose own hands do nothing."""
    hands = ScriptedHands(lambda effect, reports: asyncio.sleep(0, Done()))
    pipelines = dict(PIPELINES)
    return EffectRunner(pool, term, pipelines, {"stream": hands}, lambda: datetime.now(UTC), print, lambda: 10.0)  # type: ignore[dict-item]


@pytest.fixture
async def work(pool: asyncpg.Pool) -> AsyncIterator[Callable[..., Any]]:
    """Start a worker with that script; the worker, its hands, and a way to stop it. All are stopped at the end."""
    running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def start(script: Script, *, places: int = 2, monotonic: Callable[[], float] = time.monotonic) -> Any:
        hands, stop = ScriptedHands(script), asyncio.Event()
        parts = WorkerParts(
            pool,
            "test",
            dict(PIPELINES),
            {"stream": hands},
            {KIND: places},
            lambda: datetime.now(UTC),
            monotonic,  # type: ignore[dict-item]
        )
        worker = Worker(parts)
        task = asyncio.create_task(worker.run(stop))
        running.append((stop, task))
        async with asyncio.timeout(10):
            while not await pool.fetchval("SELECT count(*) FROM workers WHERE id = $1", worker.me):
                await asyncio.sleep(0.01)

        async def end() -> None:
            stop.set()
            await asyncio.wait_for(task, 10)

        return worker, hands, end

    yield start
    for stop, task in running:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
