"""Hints and their absence: it listens first and sweeps second, notices lost connections, and needs no hint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from orchestrator.monitor import loop
from orchestrator.monitor.leadership import Lease, Term
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.pipelines.stream.plan import STREAM_PIPELINE
from orchestrator.pipelines.terms import LookKind
from orchestrator.storage.clips import Clip
from orchestrator.storage.pool import connect
from signals import signal_status_update, wake

# Round trips of another session: whoever was woken before them has swept by their end.
LONG_ENOUGH = 50
# Far above what any of this takes; only a hang meets it.
LIMIT_SECONDS = 8


class Line:
    """A listening connection: something *happens* before it listens; asked, it may find that nobody is there."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        happens: Callable[[], Awaitable[None]] | None = None,
        is_dead: bool = False,
    ) -> None:
        self._connection = connection
        self._happens = happens
        self._is_dead = is_dead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        if self._happens is not None:
            await self._happens()
        await self._connection.add_listener(channel, callback)

    async def fetchval(self, statement: str, **limits: float) -> Any:
        if self._is_dead:
            raise asyncpg.InterfaceError("nobody is there")
        return await self._connection.fetchval(statement, **limits)


class Hands:
    """A provider of which nothing is ever seen, and which counts how often it is asked."""

    def __init__(self) -> None:
        self.looked = asyncio.Event()

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        self.looked.set()
        return {}


@asynccontextmanager
async def monitor_on(
    pool: asyncpg.Pool, listening: Callable[[], Awaitable[Any]], hands: Any = None
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    parts = MonitorParts(pool, listening, {"stream": STREAM_PIPELINE}, {"stream": hands})
    running = asyncio.create_task(Monitor(parts).run(stop))
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield
    finally:
        stop.set()
        await asyncio.wait([running], timeout=LIMIT_SECONDS)


async def nobody() -> Any:
    raise ConnectionRefusedError


async def in_an_hour(owner: asyncpg.Connection) -> Any:
    return await owner.fetchval("SELECT clock_timestamp() + interval '1 hour'")


async def until_error(owner: asyncpg.Connection) -> None:
    while await owner.fetchval("SELECT status FROM clips WHERE id = 'a'") != "error":
        await asyncio.sleep(0.01)


async def test_what_is_signalled_just_before_it_listens_is_found_by_the_sweep_after(
    database: str, pool: asyncpg.Pool, owner: asyncpg.Connection, api: asyncpg.Connection, stand, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "SWEEP_SECONDS", 1000.0)  # nothing but the listener wakes the drainer
    await stand("a", look_at=await in_an_hour(owner))

    async def ask() -> None:
        for _ in range(LONG_ENOUGH):
            await api.fetchval("SELECT 1")
        await signal_status_update(api, "a", "error", {"error_message": "asked in the gap"}, "test")
        await wake(api)  # nobody hears it yet

    async def listening() -> Any:
        return Line(await connect(database, "orchestrator_monitor", "test listener"), happens=ask)

    async with monitor_on(pool, listening):
        await until_error(owner)


async def test_a_connection_that_is_lost_is_replaced(
    database: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LISTEN_AGAIN_SECONDS", 0.01)
    opened: asyncio.Queue[asyncpg.Connection] = asyncio.Queue()

    async def listening() -> Any:
        connection = await connect(database, "orchestrator_monitor", "test listener")
        opened.put_nowait(connection)
        return connection

    async with monitor_on(pool, listening):
        for _ in range(3):
            (await opened.get()).terminate()


async def test_a_peer_that_vanished_without_a_word_is_found_by_asking(
    database: str, pool: asyncpg.Pool, term: Term, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PROBE_SECONDS", 0.01)

    async def listening() -> Any:
        return Line(await connect(database, "orchestrator_monitor", "test listener"), is_dead=True)

    turn = loop._Turn(MonitorParts(pool, listening, {}, {}), Lease(pool, lambda: 0.0), term)
    async with asyncio.timeout(LIMIT_SECONDS):
        with pytest.raises(asyncpg.InterfaceError):
            await turn._listen_once()


async def test_a_signal_without_any_hint_is_judged_by_the_sweep(
    pool: asyncpg.Pool, owner: asyncpg.Connection, api: asyncpg.Connection, stand, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "SWEEP_SECONDS", 0.05)
    await stand("a", look_at=await in_an_hour(owner))
    async with monitor_on(pool, nobody):
        while await owner.fetchval("SELECT epoch FROM monitor_lease") == 0:
            await asyncio.sleep(0.01)
        for _ in range(LONG_ENOUGH):
            await owner.fetchval("SELECT 1")  # until the sweep it begins with is over
        await signal_status_update(api, "a", "error", {"error_message": "unhinted"}, "test")
        await until_error(owner)


async def test_a_clip_whose_time_has_come_is_looked_at_without_any_hint(
    pool: asyncpg.Pool, owner: asyncpg.Connection, stand, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "SWEEP_SECONDS", 0.05)
    soon = await owner.fetchval("SELECT clock_timestamp() + interval '500 ms'")
    await stand("a", look_at=soon, status_since=soon - timedelta(minutes=1))
    hands = Hands()
    async with monitor_on(pool, nobody, hands):
        await hands.looked.wait()
