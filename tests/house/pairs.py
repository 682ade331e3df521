"""Two monitors on one database, with a provider and a bucket of their own: what is done to the one that leads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from house import House
from house.checking import Findings, check_database, check_objects
from house.fixtures import open_house
from house.observing import Logins, leader, logins, observe
from house.supervising import Place, Supervisor, supervised

MONITORS = ("monitor-1", "monitor-2")
# Without further faults a few small clips take seconds.
SETTLE_SECONDS = 60.0


@dataclass
class Measured:
    """Seconds by what was done to the leader: until the other led, and until it gave way itself."""

    takeovers: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    yields: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    findings: Findings = field(default_factory=Findings)

    def worst(self, of: defaultdict[str, list[float]], *kinds: str) -> str:
        """The longest of *kinds*, as a figure."""
        seconds = [each for kind in kinds for each in of[kind]]
        return f"{max(seconds):.1f} s" if seconds else "none"


@dataclass
class Pair:
    """Two monitors on one database, with a provider and a bucket of their own."""

    house: House
    supervisor: Supervisor
    logins: Logins
    chance: random.Random
    measured: Measured
    clips: int = 0

    async def leading(self) -> tuple[Place, int]:
        """Who leads, in which epoch, once one does and the other stands by."""
        async with asyncio.timeout(60):
            while True:
                epoch, login = await leader(self.house.rows)
                for place in self.supervisor.places:
                    if (
                        login is not None
                        and place.has_led(epoch)
                        and all(each.is_up for each in self.supervisor.places)
                    ):
                        return place, epoch
                await asyncio.sleep(0.05)

    async def replaced(self, epoch: int, kind: str, since: float) -> None:
        """Wait until a later term has begun, and note how long that took."""
        async with asyncio.timeout(60):
            while (await leader(self.house.rows))[0] == epoch:
                await asyncio.sleep(0.02)
        self.measured.takeovers[kind].append(time.monotonic() - since)

    async def yielded(self, place: Place, process: Any, epoch: int, kind: str, since: float) -> None:
        """Wait until the loser has said that it leads no longer, or has ended; note how long that took."""
        sentence = f"epoch={epoch}".encode()
        async with asyncio.timeout(60):
            while process.poll() is None and place.process is process:
                lines = [line for line in place.said().splitlines() if b"no longer leading" in line]
                if any(line.endswith(sentence) for line in lines):
                    break
                await asyncio.sleep(0.01)
        self.measured.yields[kind].append(time.monotonic() - since)

    async def add_clip(self, file: Path) -> str:
        """A clip whose bytes are at the provider; returns its uid. No web process is needed for it."""
        self.clips += 1
        stream = self.house.stream
        headers = {"Authorization": f"Bearer {stream.api_token}"}
        url = f"{stream.url}/accounts/{stream.account_id}/stream/direct_upload"
        async with self.house.http.post(url, json={"maxDurationSeconds": 600}, headers=headers) as answer:
            made = (await answer.json())["result"]
        await self.house.upload_form(made["uploadURL"], file)
        statement = "INSERT INTO clips (id, cloudflare_uid, title) VALUES ($1, $2, 'of a pair')"
        await self.house.rows.execute(statement, f"clip-{self.clips}", made["uid"])
        return str(made["uid"])

    async def all_complete(self) -> None:
        """Wait for every clip's good end."""
        ends_at = time.monotonic() + SETTLE_SECONDS
        while left := await self.house.rows.fetch("SELECT id, status, look_at FROM clips WHERE status <> 'complete'"):
            if time.monotonic() > ends_at:
                pytest.fail(f"L1: not everything came home: {left}\n{self.house.logs()}")
            await asyncio.sleep(0.1)

    async def check(self) -> None:
        """No write of a former leader was ever accepted, and all else that was promised of the clips."""

        async def digest(url: str) -> tuple[str, int]:
            found = await self.house.read(url)
            return hashlib.sha256(found).hexdigest(), len(found)

        async with asyncio.timeout(30):
            while await self.house.rows.fetchval("SELECT count(*) FROM clip_signals"):
                await asyncio.sleep(0.05)
        of_this = Findings()
        await check_database(self.house.rows, of_this)
        await check_objects(self.house.rows, digest, of_this)
        findings = self.measured.findings
        findings.clips += of_this.clips
        findings.writes += of_this.writes
        findings.violations += of_this.violations + self.supervisor.complaints


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What a pair works on: its database, the secrets it is told, and what its monitors are told beside the usual.

    *hosts* are addresses by which the monitors reach the database over TCP, one for each.
    """

    directory: Path
    database: str
    secrets: Mapping[str, str]
    chance: random.Random
    hosts: tuple[str, ...] = ()
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@asynccontextmanager
async def open_pair(plan: PairPlan, measured: Measured) -> AsyncIterator[Pair]:
    """A pair at work until the block ends."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "encode": "copy",
        "webhook_url": None,
        "api_token": plan.secrets["api token"],
        "webhook_secret": plan.secrets["webhook secret"],
        "rate_limit_count": 6000,
    }
    bucket_secret, password = plan.secrets["bucket secret"], plan.secrets["database password"]
    async with contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(plan.directory, plan.database, options, bucket_secret))
        house.extra = {"CLOUDFLARE_CALLS": "6000"}
        await observe(house.rows)
        known = await stack.enter_async_context(logins(house.rows, plan.database, MONITORS, password))
        stack.push_async_callback(house.close)  # before the logins go: they are in use until then
        addresses = dict(known.by_name)
        for name, host in zip(MONITORS, plan.hosts, strict=False):
            addresses[name] = f"postgresql://{known.login_of(name)}:{password}@{host}:5432/postgres"
        places = [
            Place(name, "monitor", {"DATABASE_URL": addresses[name], **plan.environments.get(name, {})})
            for name in MONITORS
        ]
        supervisor = await stack.enter_async_context(supervised(house, places, in_turn=True))
        yield Pair(house, supervisor, known, plan.chance, measured)
