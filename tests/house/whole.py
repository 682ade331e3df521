"""The whole program: two monitors, two web processes, database, provider and bucket, all of it under observation."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from house import House, free_port
from house.checking import Digest
from house.fixtures import open_house
from house.observing import Logins, logins, observe
from house.supervising import Place, Supervisor, supervised
from house.traffic import Doors, WebhookRoad

MONITORS = ("monitor-1", "monitor-2")
WEBS = ("web-1", "web-2")
# The provider's limit on a scale of one to ten, so that the budget is not what is waited for.
BUDGET = {"CLOUDFLARE_CALLS": "1200", "CLOUDFLARE_CALLS_WINDOW_SECONDS": "30"}
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Whole:
    """What one has in hand while it runs."""

    house: House
    supervisor: Supervisor
    logins: Logins
    doors: Doors


@asynccontextmanager
async def open_whole(
    database: str, directory: Path, chance: random.Random, secrets: Mapping[str, str]
) -> AsyncIterator[Whole]:
    """All four processes running, kept running, and observed."""
    ports = [free_port() for _ in WEBS]
    options: dict[str, Any] = {
        "encode": "copy",
        "max_in_flight": 4000,
        "encoders": 2,
        "rate_limit_count": 1200,
        "rate_limit_window_seconds": 30.0,
        "api_token": secrets["api token"],
        "webhook_secret": secrets["webhook secret"],
        "webhook_attempts": 1,
    }
    async with contextlib.AsyncExitStack() as stack:
        road = WebhookRoad(chance, share_lost=0.2)
        await stack.enter_async_context(road)
        road.addresses = [f"http://127.0.0.1:{port}" for port in ports]
        options["webhook_url"] = f"http://127.0.0.1:{road.port}/webhooks/cloudflare"
        house = await stack.enter_async_context(open_house(directory, database, options, secrets["bucket secret"]))
        house.extra = {**BUDGET}
        await observe(house.rows)
        names = (*MONITORS, *WEBS)
        known = await stack.enter_async_context(logins(house.rows, database, names, secrets["database password"]))
        stack.push_async_callback(house.close)  # before the logins go: they are in use until then
        places = [Place(name, "monitor", {"DATABASE_URL": known.by_name[name]}) for name in MONITORS]
        places += [
            Place(name, "serve", {"DATABASE_URL": known.by_name[name], "PORT": str(port)})
            for name, port in zip(WEBS, ports, strict=True)
        ]
        supervisor = await stack.enter_async_context(supervised(house, places))
        yield Whole(house, supervisor, known, Doors(house.http, road.addresses, chance))


async def until_judged(house: House) -> None:
    """Wait until no signal is left."""
    async with asyncio.timeout(30):
        while await house.rows.fetchval("SELECT count(*) FROM clip_signals"):
            await asyncio.sleep(0.1)


def digester(house: House) -> Digest:
    """Tells the SHA-256 and the length of what lies at an address, a few at a time."""
    gate = asyncio.Semaphore(4)

    async def digest(url: str) -> tuple[str, int]:
        found, size_bytes = hashlib.sha256(), 0
        async with gate, house.http.get(url) as answer:
            assert answer.status == 200, url
            async for chunk in answer.content.iter_chunked(_MIB):
                found.update(chunk)
                size_bytes += len(chunk)
        return found.hexdigest(), size_bytes

    return digest


@asynccontextmanager
async def in_background(*coroutines: Any) -> AsyncIterator[None]:
    """Run *coroutines* beside the block; one that breaks is a failure of the lane."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for problem in ended:
        if isinstance(problem, Exception):
            raise problem
