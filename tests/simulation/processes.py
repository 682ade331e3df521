"""The program's own processes on simulated nodes: assembled as ever, with a database, a bucket and clocks in memory."""

from __future__ import annotations

import asyncio
import functools
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import structlog

import orchestrator.assembly as assembly
import orchestrator.monitor.loop
import orchestrator.pipelines.stream.hands
import orchestrator.transfer  # noqa: F401
import orchestrator.web.app as web_app
from orchestrator.settings import Settings
from simulation.bucket import SimulatedBucket, boto_through
from simulation.chaos import Chaos, DatabaseWire
from simulation.database import SimulatedDatabase
from simulation.network import NetworkedLoop
from simulation.nodes import NODE, Node
from simulation.scale import small_parts
from simulation.scenarios import Scenario

API = "http://api.stream.example"
DELIVERY = "https://customer-sim.cloudflarestream.com"
BUCKET = "http://bucket.example"
WEB_HOST, WEB_PORT = "web", 8080
ACCOUNT, API_TOKEN = "acc", "simulated-token-of-the-account"
CALLER_TOKEN, WEBHOOK_SECRET = "a-token-of-the-callers", "a-secret-of-the-webhooks"
ACCESS_KEY = "simulatedkey01"


def settings_of(scenario: Scenario) -> Settings:
    """What the processes of one run are told."""
    return _settings(
        cloudflare_calls=scenario.calls,
        cloudflare_calls_window_seconds=scenario.window_seconds,
        upload_expiry_seconds=scenario.upload_expiry_seconds,
        full_quality_wait_seconds=scenario.quality_wait_seconds,
        max_transfers=scenario.max_transfers,
    )


@functools.cache
def _settings(**varying: Any) -> Settings:
    return Settings(**_BASE, **varying, _env_file=None)  # type: ignore[call-arg]


_BASE: dict[str, Any] = {
    "database_url": "postgresql://simulated/clips",
    "cloudflare_account_id": ACCOUNT,
    "cloudflare_api_token": API_TOKEN,
    "cloudflare_api_url": "https://api.stream.example/client/v4",
    "cloudflare_webhook_secret": WEBHOOK_SECRET,
    "cloudflare_delivery_hosts": "cloudflarestream.com",
    "r2_endpoint_url": "https://bucket.example",
    "r2_access_key_id": ACCESS_KEY,
    "r2_secret_access_key": "simulated-secret-key",
    "r2_bucket_name": "clips",
    "r2_public_url": "https://media.example",
    "api_tokens": CALLER_TOKEN,
    "host": "0.0.0.0",  # noqa: S104 - an address in memory
    "port": WEB_PORT,
}


class Ground:
    """What the processes of one run stand on."""

    def __init__(
        self,
        loop: NetworkedLoop,
        database: SimulatedDatabase,
        bucket: SimulatedBucket,
        chaos: Chaos,
        settings: Settings,
    ) -> None:
        self.loop = loop
        self.database = database
        self.bucket = bucket
        self.chaos = chaos
        self.settings = settings
        #: What the processes logged at level error, with the traceback: (node, event, details).
        self.outcries: list[tuple[str, str, dict[str, Any]]] = []

    def wire(self) -> DatabaseWire:
        """A connection's way to the database."""
        return DatabaseWire(self.loop, self.chaos)

    async def connect(self) -> Any:
        """A connection to the database from the node that asks."""
        connection = await self.database.connect(_here().name, self.wire())
        if connection._session.is_over:
            # Ended while the greeting was on its way: the socket is closed when it is first looked at.
            connection.terminate()
            raise ConnectionResetError(104, "Connection reset by peer")
        return connection

    @asynccontextmanager
    async def open_pool(self, settings: Any, role: str, name: str) -> AsyncIterator[tuple[Any, str]]:
        """In place of the program's own: a pool of the node that asks."""
        node = _here().name
        pool = self.database.pool(node, self.wire())
        # Each connection has a wire of its own, for its fate is its own.
        pool._connect = self.connect
        try:
            yield pool, role
        finally:
            pool.terminate()

    async def run_monitor(self, stop: asyncio.Event) -> None:
        """`orchestrator monitor`"""
        await assembly.run_monitor(self.settings, stop)

    async def run_web(self, stop: asyncio.Event) -> None:
        """`orchestrator serve`"""
        await assembly.run_serve(self.settings, stop)

    @contextmanager
    def laid(self) -> Iterator[None]:
        """The ground under the program, for the length of one run."""
        with ExitStack() as stack:
            for place, name, value in self._replaced():
                stack.enter_context(patch.object(place, name, value))
            stack.enter_context(small_parts())
            stack.enter_context(boto_through(self.bucket))
            stack.enter_context(_logging_to(self))
            yield

    def _replaced(self) -> Iterator[tuple[Any, str, Any]]:
        async def fits(_: Any) -> None:
            """The simulated database is always migrated."""

        async def connect(*_: Any, **__: Any) -> Any:
            return await self.connect()

        yield assembly, "open_pool", self.open_pool
        yield assembly, "refuse_unmigrated", fits
        for name in ("connect", "connect_to_listen"):
            if hasattr(assembly, name):
                yield assembly, name, connect
        # Streams of events have a lane of their own, against the real database.
        yield web_app, "_feed_for", lambda *_: _NoFeed()
        yield web_app, "read_assets", _read_assets

    def heard(self, level: str, event: dict[str, Any]) -> None:
        """Take in one line of the log."""
        node = NODE.get()
        name = str(event.pop("event"))
        self.loop.tell(f"log {name} {_plain(event)}")
        if level in ("error", "critical"):
            self.outcries.append((node.name if node else "-", name, event))


def _here() -> Node:
    node = NODE.get()
    if node is None:
        raise RuntimeError("only a process of the simulation has a database")
    return node


class _NoFeed:
    """In place of the live feed: nobody listens to it here."""

    client_count = 0
    is_closed = False

    def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


_read_assets = functools.cache(web_app.read_assets)


@contextmanager
def _logging_to(ground: Ground) -> Iterator[None]:
    def take(_: Any, level: str, event: dict[str, Any]) -> Any:
        if event.pop("exc_info", None):
            event["problem"], event["traceback"] = sys.exception(), traceback.format_exc()
        ground.heard("error" if level == "exception" else level, event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, take],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _plain(event: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={value}" for name, value in event.items() if name not in ("problem", "traceback", "request_id")
    )
