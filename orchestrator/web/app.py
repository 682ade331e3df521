"""The web process put together: routes, edge, live feed; and running it until it is told to stop."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import structlog
from aiohttp import web

from orchestrator.storage.clips import read_standings, read_versions
from orchestrator.storage.pool import connect_to_listen
from orchestrator.web.assets import ASSETS, read_assets
from orchestrator.web.board import BOARD, Board
from orchestrator.web.bodies import MAX_BYTES
from orchestrator.web.delivery_log import DELIVERY_LOG, DeliveryLog
from orchestrator.web.edge import GUARDS, edge, expect, expect_file
from orchestrator.web.events import FEED, HEARTBEAT, HEARTBEAT_SECONDS
from orchestrator.web.expecting import EXPECTATIONS, Expectations
from orchestrator.web.jobs import tus
from orchestrator.web.jobs.place import PLACE, place_from
from orchestrator.web.live import LiveFeed
from orchestrator.web.metrics import METRICS, Metrics
from orchestrator.web.openapi import DOCUMENT, build_document
from orchestrator.web.refusals import REFUSALS, Refusals, UnreadableCalls
from orchestrator.web.routes import API_ROUTES, ROUTES
from orchestrator.web.services import SERVICES, Services
from orchestrator.web.shared_reads import STANDINGS, VERSIONS, SharedReads
from orchestrator.web.shared_signals import SHARED_SIGNALS, SharedSignals

log = structlog.get_logger(__name__)

# Inside the ten seconds in which a stop must end, with room for closing what is left.
_SHUTDOWN_SECONDS = 7.0

_CALLED_MOST = ("/api/clips/{id}/signals", "/api/clips/{id:.*}/status", "/api/clips/{id}")

_http_log = logging.getLogger("orchestrator.web.http")

SERVER_OPTIONS: Mapping[str, Any] = {
    # Bodies are not decompressed: their size is the one that was counted.
    "auto_decompress": False,
    # Calls are counted; a line for each would say less and cost more.
    "access_log": None,
    # Longer than the pause between two clicks, shorter than anybody's patience with idle sockets.
    "keepalive_timeout": 75.0,
    "logger": _http_log,
}


def create_app(services: Services, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> web.Application:
    """The whole application; it opens nothing but the connection that listens."""
    app = web.Application(middlewares=[edge], client_max_size=MAX_BYTES)
    app[SERVICES] = services
    app[METRICS] = Metrics()
    app[REFUSALS] = Refusals()
    app[ASSETS] = read_assets()
    document: Callable[[], dict[str, Any]] = functools.cache(functools.partial(build_document, API_ROUTES))
    app[DOCUMENT] = document
    app[EXPECTATIONS] = Expectations()
    app[BOARD] = Board()
    app[PLACE] = place_from(services.settings)
    tus.prepare(app)
    app[DELIVERY_LOG] = DeliveryLog(services.pool)
    app[SHARED_SIGNALS] = SharedSignals(services.pool)
    app[STANDINGS] = SharedReads(services.pool, read_standings)
    app[VERSIONS] = SharedReads(services.pool, read_versions)
    app[GUARDS] = {}
    app[HEARTBEAT] = heartbeat_seconds
    app[FEED] = _feed_for(services, app[METRICS])
    # The router asks one resource after the other: those that are called most come first.
    for route in sorted(ROUTES, key=lambda route: route.path not in _CALLED_MOST):
        resource = app.router.add_resource(route.path)
        resource.add_route(route.method, route.handler, expect_handler=expect_file if route.takes_file else expect)
        app[GUARDS][f"{route.method} {resource.canonical}"] = route.guard
        if route.method == "GET" and route.media_type != "text/event-stream":
            resource.add_route("HEAD", route.handler)
    app.cleanup_ctx.append(_live)
    app.cleanup_ctx.append(_delivery_log)
    app.cleanup_ctx.append(_shared)
    app.on_shutdown.append(_end_streams)
    return app


async def run_web(
    services: Services, stop: asyncio.Event, on_listening: Callable[[int], None] = lambda port: None
) -> None:
    """Serve on the host and port of the settings until *stop* is set; then end within ten seconds.

    *on_listening* is told the port once calls are taken: with port 0 the system chooses one.
    """
    settings = services.settings
    runner = web.AppRunner(create_app(services), shutdown_timeout=_SHUTDOWN_SECONDS, **SERVER_OPTIONS)
    unreadable = UnreadableCalls()
    _http_log.addFilter(unreadable)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        port = runner.addresses[0][1]
        log.info("the web process listens", host=settings.host, port=port)
        on_listening(port)
        await stop.wait()
        log.info("the web process stops")
    finally:
        await services.wakeups.close()
        await runner.cleanup()
        _http_log.removeFilter(unreadable)


def _feed_for(services: Services, metrics: Metrics) -> LiveFeed:
    return LiveFeed(
        services.pool,
        lambda: connect_to_listen(services.settings.direct_url, services.role, "clip-orchestrator live"),
        metrics.count_cut_stream,
    )


async def _live(app: web.Application) -> AsyncIterator[None]:
    app[FEED].start()
    yield
    await app[FEED].close()


async def _delivery_log(app: web.Application) -> AsyncIterator[None]:
    async with app[DELIVERY_LOG].kept():
        yield


async def _shared(app: web.Application) -> AsyncIterator[None]:
    yield
    for shared in (app[SHARED_SIGNALS], app[STANDINGS], app[VERSIONS]):
        await shared.close()


async def _end_streams(app: web.Application) -> None:
    await app[FEED].close()
