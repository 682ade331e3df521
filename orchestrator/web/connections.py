"""A connection for the length of one call, waited for with a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from aiohttp import web

from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from orchestrator.web.services import services_of


@asynccontextmanager
async def connection_of(request: web.Request) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the pool; a `TimeoutError` tells that none came free."""
    async with services_of(request).pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        yield connection
