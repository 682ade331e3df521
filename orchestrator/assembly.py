"""Puts the processes together: reads the settings' values into drivers, opens pools, starts what was asked for.

With the command line, the only place that knows everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import structlog

from orchestrator.drivers.budget import BudgetSettings, SharedCallBudget
from orchestrator.drivers.call_log import CallLog
from orchestrator.drivers.cloudflare import CloudflareSettings, CloudflareStream
from orchestrator.drivers.egress import EgressPolicy
from orchestrator.memory import unused_memory_returned
from orchestrator.pipelines.cut.plan import CUT_PIPELINE
from orchestrator.pipelines.cut.workshop import Workshop
from orchestrator.pipelines.terms import Hands, Pipeline
from orchestrator.settings import DatabaseSettings, Settings
from orchestrator.storage.clock import DatabaseClock
from orchestrator.storage.migrations import MigrationError, pending_migrations
from orchestrator.storage.pool import CannotListen, connect, connect_to_listen, create_pool, find_access
from orchestrator.storage.pruning import walk_history

if TYPE_CHECKING:
    from orchestrator.drivers.object_store import ObjectStore
    from orchestrator.pipelines.cut.hands import CutHands

log = structlog.get_logger(__name__)

# Of the tidier's hour. A fifth of it is work: some two million lines, as many as 500 signals a second make in an hour.
_PRUNE_SECONDS = 900.0
# A setting is wrong; whoever mends it starts the process anew, or moves the server to the address that is named.
_CANNOT_LISTEN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Tools:
    """Pipelines, and the hands that carry out their effects, by the pipeline's name."""

    pipelines: dict[str, Pipeline]
    hands: dict[str, Hands]


@asynccontextmanager
async def open_pool(settings: DatabaseSettings, role: str, name: str) -> AsyncIterator[tuple[asyncpg.Pool, str | None]]:
    """A pool that acts in *role*, and the role it really has; closed within five seconds."""
    dsn = settings.database_url.get_secret_value()
    access = await find_access(dsn, role)
    pool = await create_pool(dsn, access.role, name, pooled=access.pooled)
    try:
        yield pool, access.role
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await pool.close()
        pool.terminate()


async def refuse_unmigrated(settings: Settings) -> None:
    """Stop before anything is moved when program and database do not fit.

    Raises:
        MigrationError: what is missing, and the command that mends it.
    """
    # As through a pooler: that works without one, too.
    dsn = settings.database_url.get_secret_value()
    connection = await connect(dsn, None, "clip-orchestrator start", pooled=True)
    try:
        missing = await pending_migrations(connection)
    finally:
        await connection.close(timeout=5)
    if missing:
        raise MigrationError(f"the database lacks {', '.join(missing)}; run `orchestrator migrate`")


@asynccontextmanager
async def open_stream(settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[CloudflareStream]:
    """The provider's driver, on the budget that all processes share."""
    account = settings.cloudflare_account_id
    limits = BudgetSettings(calls=settings.cloudflare_calls, window_seconds=settings.cloudflare_calls_window_seconds)
    async with CallLog(pool).kept() as calls:
        stream = CloudflareStream(
            CloudflareSettings(account, settings.cloudflare_api_token.get_secret_value(), settings.cloudflare_api_url),
            SharedCallBudget(pool, limits, account),
            on_call=calls.note,
        )
        try:
            yield stream
        finally:
            await stream.close()


def egress_policy(settings: Settings) -> EgressPolicy:
    """Where finished files may be read from."""
    hosts = settings.cloudflare_delivery_hosts
    origins = [host for host in hosts if urlsplit(host).scheme]
    return EgressPolicy.allowing(origins, [host for host in hosts if host not in origins])


@asynccontextmanager
async def open_hands(settings: Settings, pool: asyncpg.Pool, clock: Callable[[], datetime]) -> AsyncIterator[Tools]:
    """The pipelines this process has, and the drivers with which their effects are carried out by that *clock*."""
    # The web process has no hands and moves no bytes.
    from orchestrator.drivers.object_store import ObjectStore
    from orchestrator.drivers.object_store_client import ObjectStoreSettings
    from orchestrator.pipelines.stream.foresight import Foresight
    from orchestrator.pipelines.stream.hands import StreamHands
    from orchestrator.pipelines.stream.plan import StreamPolicy, stream_pipeline
    from orchestrator.transfer import HttpSource, PostgresCheckpoints

    async with open_stream(settings, pool) as stream:
        store = ObjectStore(
            ObjectStoreSettings(
                endpoint_url=settings.bucket_endpoint,
                access_key_id=settings.r2_access_key_id.get_secret_value(),
                secret_access_key=settings.r2_secret_access_key.get_secret_value(),
                bucket=settings.r2_bucket_name,
                public_url=settings.bucket_public_url,
            )
        )
        source = HttpSource(egress_policy(settings))
        foresight = Foresight()
        hands = StreamHands(
            stream,
            store,
            source,
            PostgresCheckpoints(pool),
            pool,
            settings.max_transfers,
            clock=clock,
            removes_ghosts=settings.remove_ghost_videos,
            foresight=foresight,
        )
        policy = StreamPolicy(
            timedelta(seconds=settings.look_interval_seconds), timedelta(seconds=settings.full_quality_wait_seconds)
        )
        tools = Tools({"stream": stream_pipeline(policy, foresight.outlook)}, {"stream": hands})
        cutting = _cutting(settings, pool, store)
        if cutting is not None:
            tools.pipelines["cut"], tools.hands["cut"] = CUT_PIPELINE, cutting
        try:
            yield tools
        finally:
            await source.close()
            await store.close()


async def run_monitor(settings: Settings, stop: asyncio.Event) -> None:
    """Stand by, lead and move clips until *stop* is set."""
    from orchestrator.monitor.loop import Monitor, MonitorParts

    await refuse_unmigrated(settings)
    async with (
        open_pool(settings, "orchestrator_monitor", "clip-orchestrator monitor") as (pool, role),
        DatabaseClock(pool).kept() as clock,
        open_hands(settings, pool, clock) as tools,
        unused_memory_returned(),
    ):
        parts = MonitorParts(
            pool=pool,
            connect=lambda: _connect_to_listen(settings, role),
            pipelines=tools.pipelines,
            hands=tools.hands,
            clock=clock,
            prune=_pruning(settings, pool),
        )
        await Monitor(parts).run(stop)


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Take heavy steps and carry them out until *stop* is set."""
    from orchestrator.pipelines.stream.hands import TRANSFERS
    from orchestrator.worker.running import Worker, WorkerParts

    await refuse_unmigrated(settings)
    async with (
        open_pool(settings, "orchestrator_monitor", "clip-orchestrator worker") as (pool, _),
        DatabaseClock(pool).kept() as clock,
        open_hands(settings, pool, clock) as tools,
        unused_memory_returned(),
    ):
        parts = WorkerParts(
            pool=pool,
            name=f"{socket.gethostname()[:100]}:{os.getpid()}",
            pipelines=tools.pipelines,
            hands=tools.hands,
            kinds={TRANSFERS: settings.max_transfers},
            clock=clock,
            monotonic=time.monotonic,
        )
        await Worker(parts).run(stop)


def _pruning(settings: Settings, pool: asyncpg.Pool) -> Callable[[], Awaitable[Mapping[str, int]]] | None:
    """Prunes history for a while; None where it is kept for ever."""
    keep = settings.history_keep
    if keep is None:
        return None

    async def prune() -> Mapping[str, int]:
        done = await walk_history(pool, keep, limit_seconds=_PRUNE_SECONDS)
        return {"lines": done.lines, "transfers": done.transfers}

    return prune


def _cutting(settings: Settings, pool: asyncpg.Pool, store: ObjectStore) -> CutHands | None:
    """The hands of the cut pipeline; None where its directories are not set.

    Raises:
        FfmpegMissing: they are, and there is nothing to cut with.
    """
    workshop = Workshop.at(settings.upload_tmp_dir, settings.process_work_dir, settings.output_root)
    if workshop is None:
        return None
    # Only who cuts needs what it cuts with.
    from orchestrator.drivers.ffmpeg import find_ffmpeg
    from orchestrator.pipelines.cut.hands import CutHands, CutTools
    from orchestrator.pipelines.cut.outlets import BucketOutlet

    ffmpeg = find_ffmpeg(settings.ffmpeg)
    outlet = BucketOutlet(workshop, store) if settings.outputs_in_bucket else None
    return CutHands(CutTools(workshop, ffmpeg, settings.max_cuts, settings.upload_keep_hours, outlet), pool)


async def _connect_to_listen(settings: Settings, role: str | None) -> asyncpg.Connection:
    """The connection on which the monitor hears hints; as long as there can be none, its sweep finds every signal."""
    while True:
        try:
            return await connect_to_listen(settings.direct_url, role, "clip-orchestrator listener")
        except CannotListen as problem:
            log.warning("no hint can be heard; signals are found by looking every second", reason=str(problem))
            await asyncio.sleep(_CANNOT_LISTEN_SECONDS)


async def run_serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve API, webhooks and pages until *stop* is set."""
    # Each process imports its own half: the other would cost it start-up time and memory.
    from orchestrator.web.app import run_web
    from orchestrator.web.services import Services, wake_through

    await refuse_unmigrated(settings)
    async with (
        open_pool(settings, "orchestrator_api", "clip-orchestrator web") as (pool, role),
        open_stream(settings, pool) as stream,
        unused_memory_returned(),
    ):
        await run_web(Services(settings, pool, stream, wake_through(pool), role), stop)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(number: int) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop
