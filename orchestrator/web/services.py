"""What the web process is handed: everything it needs, and nothing it opens itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import asyncpg
from aiohttp import web

from orchestrator.drivers.budget import CallClass
from orchestrator.drivers.cloudflare_models import DirectUpload, Download, Video
from orchestrator.settings import Settings
from signals import WakeUps, wake


class StreamPort(Protocol):
    """The part of the Cloudflare driver that answers people directly."""

    async def create_direct_upload(
        self, max_duration_seconds: int, creator: str, meta: Mapping[str, str], expiry: datetime | None = None
    ) -> DirectUpload:
        """A one-time address for one form upload."""

    async def create_tus_upload(
        self, size_bytes: int, max_duration_seconds: int, creator: str, name: str, expiry: datetime | None = None
    ) -> DirectUpload:
        """A one-time address for one resumable upload."""

    async def get(self, uid: str, call_class: CallClass = ...) -> Video | None:
        """The video; None when the provider does not know it."""

    async def get_downloads(self, uid: str, call_class: CallClass = ...) -> Download:
        """Where the video's MP4 is."""


def utc_now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """What `create_app` is handed.

    *pool* acts as the role that may only ask; *role* is the same for the one connection that listens, None where
    the role cannot be used.
    """

    settings: Settings
    pool: asyncpg.Pool
    stream: StreamPort
    wakeups: WakeUps
    role: str | None = None
    now: Callable[[], datetime] = utc_now


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)


def services_of(request: web.Request) -> Services:
    """What this application was handed."""
    return request.app[SERVICES]


def wake_through(pool: asyncpg.Pool) -> WakeUps:
    """Coalesced hints to the monitor, sent over *pool*."""

    async def send() -> Any:
        async with pool.acquire(timeout=1) as connection:
            await wake(connection)

    return WakeUps(send)
