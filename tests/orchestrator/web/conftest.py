"""A web process on loopback with a database to itself, a provider that is told what to say, a clock in the hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.drivers.budget import CallClass
from orchestrator.drivers.cloudflare_models import DirectUpload, Download, Video
from orchestrator.drivers.errors import DriverError
from orchestrator.settings import Settings
from orchestrator.storage.pool import create_pool
from orchestrator.web.app import SERVER_OPTIONS, create_app
from orchestrator.web.services import Services, wake_through
from signals import CHANGED_CHANNEL
from statusutils import STREAM, get_min_progress_for_status

SECRET = "an-old-webhook-secret", "the-new-webhook-secret"
UPLOAD_URL = "https://upload.videodelivery.net/canary-upload-address"


class Held:
    """The pool, whose next connection comes only when it is let go."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.goes_on = asyncio.Event()
        self.asked = asyncio.Event()

    @contextlib.asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[asyncpg.Connection]:
        self.asked.set()
        await self.goes_on.wait()
        async with self._pool.acquire(timeout=timeout) as connection:
            yield connection


@dataclass
class ProviderInTheHand:
    """Says what the test tells it to, and remembers what it was asked."""

    videos: dict[str, Video] = field(default_factory=dict)
    downloads: dict[str, Download] = field(default_factory=dict)
    fails: DriverError | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def create_direct_upload(
        self, max_duration_seconds: int, creator: str, meta: Mapping[str, str], expiry: datetime | None = None
    ) -> DirectUpload:
        return self._upload("form", (max_duration_seconds, creator, dict(meta)), expiry)

    async def create_tus_upload(
        self, size_bytes: int, max_duration_seconds: int, creator: str, name: str, expiry: datetime | None = None
    ) -> DirectUpload:
        return self._upload("tus", (size_bytes, max_duration_seconds, creator, name), expiry)

    async def get(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> Video | None:
        self._note("get", uid)
        return self.videos.get(uid)

    async def get_downloads(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> Download:
        self._note("get_downloads", uid)
        return self.downloads.get(uid, Download())

    def _upload(self, call: str, what: Any, expiry: datetime | None) -> DirectUpload:
        self._note(call, what)
        return DirectUpload(f"{len(self.asked):032x}", f"{UPLOAD_URL}/{len(self.asked)}", expiry)

    def _note(self, call: str, what: Any) -> None:
        self.asked.append((call, what))
        if self.fails is not None:
            raise self.fails


@dataclass
class ClockInTheHand:
    """Stands still until it is moved."""

    at: datetime = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)


@dataclass
class Place:
    """One web process and everything around it."""

    settings: Settings
    services: Services
    stream: ProviderInTheHand
    clock: ClockInTheHand
    owner: asyncpg.Connection
    monitor: asyncpg.Connection
    start: Callable[..., Awaitable[TestClient[Any, Any]]]

    async def clip(self, clip_id: str, uid: str | None = None, title: str | None = None, **details: Any) -> str:
        """A new clip's row."""
        await self.owner.execute(
            "INSERT INTO clips (id, cloudflare_uid, title, processing_details)"
            " VALUES ($1, $2, $3, jsonb_build_object() || $4::jsonb)",
            clip_id, uid, title, json.dumps(details),
        )  # fmt: skip
        return clip_id

    async def move(self, clip_id: str, status: str, **columns: Any) -> None:
        """What the monitor does: move the clip, write its history, clear the inbox, tell listeners."""
        kept = await self.monitor.fetchrow("SELECT status, progress FROM clips WHERE id = $1", clip_id)
        floor = get_min_progress_for_status(status)
        progress = kept["progress"] if status == "error" else max(floor, float(kept["progress"]))
        sets = "".join(f", {name} = ${place}" for place, name in enumerate(columns, 4))
        async with self.monitor.transaction():
            await self.monitor.execute(
                f"UPDATE clips SET status = $2, progress = $3, pending = 0{sets} WHERE id = $1",
                clip_id, status, progress, *columns.values(),
            )  # fmt: skip
            await self.monitor.execute("DELETE FROM clip_signals WHERE clip_id = $1", clip_id)
            await self.monitor.execute(
                "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, progress, source, details)"
                " VALUES ($1, 'moved', 1, $2, $3, $4, 'monitor', '{\"reason\": \"Cloudflare says so\"}')",
                clip_id, kept["status"], status, progress,
            )  # fmt: skip
            await self.monitor.execute("SELECT pg_notify($1, $2)", CHANGED_CHANNEL, clip_id)

    async def forget_history(self, clip_id: str) -> None:
        """Remove what the law keeps, so that a test may write another history."""
        async with self.owner.transaction():
            await self.owner.execute("SET LOCAL session_replication_role = replica")
            await self.owner.execute("DELETE FROM clip_events WHERE clip_id = $1", clip_id)

    async def signals(self, clip_id: str) -> list[asyncpg.Record]:
        """What lies in the clip's inbox."""
        rows: list[asyncpg.Record] = await self.owner.fetch(
            "SELECT requested_status, attempt, source, insists, observed, hearsay, details::text AS details"
            " FROM clip_signals WHERE clip_id = $1 ORDER BY id",
            clip_id,
        )
        return rows

    async def fingerprint(self) -> str:
        """Changes when any row of the database's tables of clips does."""
        found: str = await self.owner.fetchval(
            "SELECT md5(coalesce((SELECT string_agg(c::text, '|' ORDER BY id) FROM clips c), '')"
            " || coalesce((SELECT string_agg(s::text, '|' ORDER BY id) FROM clip_signals s), '')"
            " || coalesce((SELECT string_agg(e::text, '|' ORDER BY id) FROM clip_events e), ''))"
        )
        return found


def make_settings(database: str, **changes: Any) -> Settings:
    """Settings that are complete and touch nothing of this machine's environment."""
    values: dict[str, Any] = {
        "database_url": database,
        "cloudflare_account_id": "account",
        "cloudflare_api_token": "canary-cloudflare-token",
        "cloudflare_webhook_secret": ",".join(SECRET),
        "r2_account_id": "bucketaccount",
        "r2_access_key_id": "canary-access-key",
        "r2_secret_access_key": "canary-secret-key",
        "r2_bucket_name": "clips",
        "r2_public_url": "https://media.example.org",
    }
    return Settings(_env_file=None, **(values | changes))  # type: ignore[call-arg]


@pytest.fixture(scope="session")
def web_database(postgres_server: Any, database_template: str) -> Iterator[str]:
    """One database for all tests here, emptied before each: a copy costs a third of a second."""
    name = f"{postgres_server.prefix}_web"
    asyncio.run(postgres_server.clone(database_template, name))
    yield postgres_server.dsn(name)
    asyncio.run(postgres_server.drop(name))


async def empty(owner: asyncpg.Connection) -> None:
    """Every row gone, the lease as it was made, ids from 1."""
    await owner.execute(
        "TRUNCATE clips, clip_events, clip_signals, idempotency_keys, webhook_deliveries, webhook_refusals,"
        " provider_calls RESTART IDENTITY"
    )
    await owner.execute(
        "UPDATE monitor_lease SET holder = NULL, epoch = 0, taken_at = NULL, round_at = NULL, expires_at = '-infinity'"
    )


@pytest.fixture
async def place(web_database: str) -> AsyncIterator[Place]:
    """The process's surroundings; `place.start()` starts it, by default without tokens."""
    database = web_database
    settings = make_settings(database)
    pool = await create_pool(database, "orchestrator_api", "test web")
    owner, monitor = await asyncpg.connect(database), await asyncpg.connect(database)
    await empty(owner)
    await monitor.execute("SET ROLE orchestrator_monitor")
    clock, stream = ClockInTheHand(), ProviderInTheHand()
    services = Services(settings, pool, stream, wake_through(pool), "orchestrator_api", clock)
    clients: list[TestClient[Any, Any]] = []

    async def start(heartbeat_seconds: float = 15.0, **changes: Any) -> TestClient[Any, Any]:
        changed = replace(services, settings=make_settings(database, **changes)) if changes else services
        server = TestServer(create_app(changed, heartbeat_seconds))
        await server.start_server(**SERVER_OPTIONS)
        client = TestClient(server)
        clients.append(client)
        return client

    yield Place(settings, services, stream, clock, owner, monitor, start)
    for client in clients:
        await client.close()
    await services.wakeups.close()
    await pool.close()
    await owner.close()
    await monitor.close()


@pytest.fixture
async def client(place: Place) -> TestClient[Any, Any]:
    """The process without tokens, as on a developer's machine."""
    return await place.start()


@pytest.fixture
def stages() -> tuple[str, ...]:
    """The statuses of the stream pipeline in order, without error."""
    return tuple(name for name in STREAM.by_name if name != "error")


@pytest.fixture
def clock() -> ClockInTheHand:
    """A clock for what needs nothing else."""
    return ClockInTheHand()


@pytest.fixture
def held(place: Any) -> Held:
    return Held(place.services.pool)
