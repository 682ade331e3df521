"""A house over a database that goes away: its own cluster behind a relay, and how soon work resumes after a fault."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from house import House, free_port
from house.checking import Findings, Ratchet
from house.cluster import Cluster
from house.fixtures import open_house
from house.observing import Logins, leader, logins, observe
from house.onlookers import PatientReader, Readiness
from house.relay import Relay
from house.supervising import Place, Supervisor
from house.traffic import Doors
from orchestrator.storage.migrations import migrate
from orchestrator.storage.pool import DATABASE_AWAY
from signals import signal_status_update

MONITORS = ("monitor-1", "monitor-2")
WEB = "web-1"
# The promise: work resumes so soon after the database takes connections again.
RESUME_SECONDS = 10.0
# And so soon after a leader was lost without a word.
TAKE_OVER_SECONDS = 15.0
# Signals with a hint, one after the other: without anybody who listens each would wait for its sweep of a second.
HEARD_TRIES = 3
HEARD_SECONDS = 0.7
# Longer than that, so that a figure is told when the promise is broken.
_PATIENCE_SECONDS = 45.0
_POLL_SECONDS = 0.02
_AWAY = (*DATABASE_AWAY, asyncpg.PostgresError)
_LISTENERS = """
SELECT count(*) FILTER (WHERE application_name = 'clip-orchestrator listener') > 0
   AND count(*) FILTER (WHERE application_name = 'clip-orchestrator live') > 0
  FROM pg_stat_activity WHERE backend_start > $1
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by both clocks: seconds of the monotonic one, and the time of day."""

    at: float
    wall: datetime

    @classmethod
    def now(cls) -> Moment:
        """This one."""
        return cls(time.monotonic(), datetime.now(UTC))


@dataclass
class PatientSupervisor(Supervisor):
    """Starts nothing while the database is away: no service manager would succeed either."""

    database_is_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self, place: Place) -> None:
        """Start, wait until it ends, start again; one that has done its work may end by itself only when it was hit."""
        while not self.is_ending:
            await self.database_is_up.wait()
            place.was_hit = False
            place.log = self.house.log_of(place.name)
            place.log_offset = place.log.stat().st_size if place.log.exists() else 0
            place.process = self.house.start(place.command, name=place.name, environment=place.environment)
            place.starts += 1
            while place.process.poll() is None:
                await asyncio.sleep(_POLL_SECONDS)
            if not place.was_hit and not self.is_ending and (place.is_up or place.process.returncode != 1):
                self.complaints.append(f"L6: {place.name} ended by itself with {place.process.returncode}")


@dataclass
class Scene:
    """One run: what it works on, and what it has measured."""

    house: House
    cluster: Cluster
    relay: Relay
    supervisor: PatientSupervisor
    logins: Logins
    readiness: Readiness
    reader: PatientReader
    findings: Findings
    chance: random.Random
    clip_ids: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    resumed_seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def through_relay(self) -> str:
        """The address that the program has, for the owner."""
        return f"postgresql://postgres@127.0.0.1:{self.relay.port}/postgres"

    async def rows(self) -> asyncpg.Connection:
        """The owner's connection, past the relay, opened anew when it was lost."""
        connection = self.house.rows
        with contextlib.suppress(*_AWAY):
            await connection.fetchval("SELECT 1", timeout=2)
            return connection
        connection.terminate()
        self.house.rows = await asyncpg.connect(self.cluster.primary.dsn(), timeout=10, command_timeout=30)
        return self.house.rows

    async def until_served(self) -> None:
        """Wait until the web process is ready for the first time."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self.house.http.get(f"{self.house.address}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(_POLL_SECONDS)

    async def leading(self) -> Place | None:
        """The place that leads now."""
        _, login = await leader(await self.rows())
        name = self.logins.name_of(login)
        return self.supervisor.place(name) if name else None

    async def resumes(
        self,
        fault: str,
        began: Moment,
        *,
        loses_sessions: bool = True,
        lease_is_lost: bool = False,
        reads_are_served: bool = False,
    ) -> None:
        """Wait until a signal filed at the first connection is judged; check that it was in time, and all else.

        Where *lease_is_lost* with whoever held it, the others wait until it has run out. A fault in which
        *reads_are_served* need not turn readiness red.
        """
        connection = await self._first_connection()
        accepted_at = time.monotonic()
        self.supervisor.database_is_up.set()
        try:
            mark = await _file(connection, self.chance.choice(self.clip_ids[-10:]))
            seconds = await _until_judged(connection, mark, accepted_at)
        finally:
            connection.terminate()
        self.done[fault] += 1
        self.resumed_seconds.setdefault(fault, []).append(seconds)
        limit_seconds = TAKE_OVER_SECONDS if lease_is_lost else RESUME_SECONDS
        self.findings.claim(seconds <= limit_seconds, f"L6: after {fault} work resumed only after {seconds:.1f} s")
        if accepted_at - began.at > 1.5 and not reads_are_served:
            red = self.readiness.was_red(began.at, accepted_at + 1)
            self.findings.claim(red, f"readiness stayed green during {fault} of {accepted_at - began.at:.1f} s")
        green = await self.readiness.until_green(accepted_at, RESUME_SECONDS)
        self.findings.claim(green is not None, f"readiness did not turn green after {fault}")
        caught_up = await self._streams_catch_up(fault)
        if loses_sessions:
            await self._listens_again(fault, began.wall)
        await self._is_heard(fault)
        away = f"away for {accepted_at - began.at:.1f} s, resumed after {seconds:.2f} s"
        print(f"{fault}: {away}, streams told after {caught_up:.2f} s more", flush=True)

    async def _first_connection(self) -> asyncpg.Connection:
        """One that takes writes, by the way that the program takes."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                connection = None
                with contextlib.suppress(*_AWAY):
                    connection = await asyncpg.connect(self.through_relay, timeout=2, command_timeout=10)
                    if not await connection.fetchval("SELECT pg_is_in_recovery()", timeout=2):
                        return connection
                if connection is not None:
                    connection.terminate()
                await asyncio.sleep(_POLL_SECONDS)

    async def _streams_catch_up(self, fault: str) -> float:
        """Seconds until the reader has been told where everything stood at the beginning."""
        rows = await (await self.rows()).fetch("SELECT id, version FROM clips")
        started = time.monotonic()
        while any(self.reader.told.get(row["id"], 0) < row["version"] for row in rows):
            if time.monotonic() > started + RESUME_SECONDS:
                self.findings.violations.append(f"L5: after {fault} an open stream was not brought up to date")
                break
            await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - started

    async def _is_heard(self, fault: str) -> None:
        """Hints wake the monitor: a few signals in a row are judged far sooner than a sweep would find them."""
        ends_at = time.monotonic() + RESUME_SECONDS
        rows = await self.rows()
        seconds: list[float] = []
        while len(seconds) < HEARD_TRIES or max(seconds[-HEARD_TRIES:]) > HEARD_SECONDS:
            if time.monotonic() > ends_at:
                waited = ", ".join(f"{each:.2f} s" for each in seconds)
                self.findings.violations.append(f"L5: after {fault} hints are not heard, signals waited {waited}")
                return
            seconds.append(await until_heard(rows, self.chance.choice(self.clip_ids[-10:]), notify=True))

    async def _listens_again(self, fault: str, since: datetime) -> None:
        """Monitor and web process listen again, each on a session opened after *since*."""
        ends_at = time.monotonic() + RESUME_SECONDS
        while not await (await self.rows()).fetchval(_LISTENERS, since):
            if time.monotonic() > ends_at:
                self.findings.violations.append(f"L5: after {fault} somebody listens no more")
                return
            await asyncio.sleep(0.1)


async def _file(connection: asyncpg.Connection, clip_id: str) -> str:
    """A signal for the clip, without a word to anybody; its mark."""
    mark = secrets.token_hex(8)
    await signal_status_update(connection, clip_id, "queued", {"mark": mark}, "onlooker")
    return mark


async def _until_judged(connection: asyncpg.Connection, mark: str, since: float) -> float:
    """Seconds from *since* until the signal stands in the history; the patience when it does not."""
    asked = "SELECT 1 FROM clip_events WHERE details ->> 'mark' = $1"
    while time.monotonic() < since + _PATIENCE_SECONDS:
        if await connection.fetchval(asked, mark):
            return time.monotonic() - since
        await asyncio.sleep(_POLL_SECONDS)
    return _PATIENCE_SECONDS


async def until_heard(connection: asyncpg.Connection, clip_id: str, *, notify: bool) -> float:
    """Seconds until a signal for the clip is judged that is filed now, with a hint or without."""
    started = time.monotonic()
    mark = await _file(connection, clip_id)
    if notify:
        await connection.execute("NOTIFY orchestrator_wake")
    return await _until_judged(connection, mark, started)


@asynccontextmanager
async def open_scene(
    directory: Path, cluster: Cluster, stream_options: dict[str, Any], secrets_of: Sequence[str], chance: random.Random
) -> AsyncIterator[tuple[Scene, Doors]]:
    """Two monitors and a web process at work on *cluster*, observed; *secrets_of* the bucket and the database."""
    await migrate(cluster.primary.dsn())
    async with contextlib.AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(cluster.primary.upstream))
        port = free_port()
        options = {**stream_options, "webhook_url": f"http://127.0.0.1:{port}/webhooks/cloudflare"}
        house = await stack.enter_async_context(open_house(directory, cluster.primary.dsn(), options, secrets_of[0]))
        house.port = port
        await observe(house.rows)
        address = f"postgresql://postgres@127.0.0.1:{relay.port}/postgres"
        names = (*MONITORS, WEB)
        manager = logins(house.rows, address, names, secrets_of[1])
        known = await stack.enter_async_context(_as_long_as_there_is_a_database(manager))
        places = [Place(name, "monitor", {"DATABASE_URL": known.by_name[name]}) for name in MONITORS]
        places.append(Place(WEB, "serve", {"DATABASE_URL": known.by_name[WEB]}))
        supervisor = PatientSupervisor(house, places)
        supervisor.database_is_up.set()
        readiness = Readiness(house.http, house.address)
        findings = Findings()
        reader = PatientReader(house.http, house.address, Ratchet("a reader of all", findings))
        scene = Scene(house, cluster, relay, supervisor, known, readiness, reader, findings, chance)
        stack.push_async_callback(_close_rows, scene)
        tasks = [asyncio.create_task(supervisor.keep(place), name=place.name) for place in places]
        try:
            yield scene, Doors(house.http, [house.address], chance)
        finally:
            supervisor.is_ending = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _as_long_as_there_is_a_database(manager: AbstractAsyncContextManager[Logins]) -> AsyncIterator[Logins]:
    """What *manager* makes; it goes with the cluster when its connection was lost."""
    known = await manager.__aenter__()
    try:
        yield known
    finally:
        with contextlib.suppress(*_AWAY):
            await manager.__aexit__(None, None, None)


async def _close_rows(scene: Scene) -> None:
    scene.house.rows.terminate()
