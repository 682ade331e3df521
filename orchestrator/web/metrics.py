"""The figures of ``/metrics``: counted as calls pass, and read from the database when somebody asks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

import asyncpg
import structlog
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from orchestrator.storage.heavy_steps import count_steps, read_workers
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.expecting import Expectations
from orchestrator.web.services import Services, services_of

log = structlog.get_logger(__name__)

# From a cached 304 to the limit on a statement.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Scrapers come every 10 s or so; several of them share one look.
_FRESH_SECONDS = 2.0
_READ_TIMEOUT_SECONDS = 5.0
# Both counts walk an index that holds unfinished work only; beyond this nobody needs the exact figure.
_COUNT_MAX = 100_000

_BY_STATUS = f"""
SELECT pipeline, status, count(*) AS clips
  FROM (SELECT pipeline, status FROM clips WHERE look_at IS NOT NULL LIMIT {_COUNT_MAX}) AS unfinished
 GROUP BY pipeline, status
"""
_SIGNALS = f"""
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS oldest_seconds
  FROM (SELECT at FROM clip_signals ORDER BY id LIMIT {_COUNT_MAX}) AS waiting
"""
_LEASE = """
SELECT extract(epoch FROM clock_timestamp() - round_at)::float8 AS round_age,
       extract(epoch FROM clock_timestamp() - taken_at)::float8 AS lease_age,
       expires_at > clock_timestamp() AS held, epoch
  FROM monitor_lease
"""
# The planner's estimate: counting ten million finished clips would cost seconds.
_ESTIMATE = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'clips'::regclass"


class Metrics:
    """The figures of one web process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "orchestrator_http_requests", "Calls answered", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "orchestrator_http_request_seconds", "Time to the answer", ["route", "method"],
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        # As many as there are label sets: finding one by its labels costs several times what counting does.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._webhooks = Counter(
            "orchestrator_webhooks", "Notifications of the provider by outcome", ["outcome"], registry=self.registry
        )
        self._signals = Counter(
            "orchestrator_signals_recorded", "Signals recorded by this process", ["source"], registry=self.registry
        )
        self.streams = Gauge("orchestrator_event_streams", "Open event streams", registry=self.registry)
        self._cut = Counter(
            "orchestrator_event_streams_cut", "Event streams cut off because they were slow", registry=self.registry
        )
        self._database = _DatabaseFigures(self.registry)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered call."""
        # Methods are anybody's text; an unknown one must not become a label.
        method = method if method in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS") else "other"
        child = self._children.get((route, method, status))
        if child is None:
            child = (self._requests.labels(route, method, str(status)), self._seconds.labels(route, method))
            self._children[route, method, status] = child
        child[0].inc()
        child[1].observe(seconds)

    def count_webhook(self, outcome: str) -> None:
        """Count one notification: recorded, unknown, or why it was refused."""
        self._webhooks.labels(outcome).inc()

    def count_signal(self, source: str) -> None:
        """Count one recorded signal."""
        self._signals.labels(source).inc()

    def count_cut_stream(self) -> None:
        """Count one stream that was too slow."""
        self._cut.inc()

    async def render(self, services: Services) -> bytes:
        """The exposition; the database's part is left at its last state when it is away, and says so."""
        await self._database.refresh(services)
        # The drivers count in the process's own registry.
        return generate_latest(self.registry) + generate_latest(REGISTRY)


METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


@dataclass
class _DatabaseFigures:
    """What the rows say, read at most every two seconds."""

    registry: CollectorRegistry

    def __post_init__(self) -> None:
        self._clips = Gauge(
            "orchestrator_clips_unfinished", "Clips on their way", ["pipeline", "status"], registry=self.registry
        )
        self._rows = self._gauge("orchestrator_clips_estimate", "All clips, as the planner estimates")
        self._waiting = self._gauge("orchestrator_signals_waiting", "Signals that wait to be judged")
        self._oldest = self._gauge("orchestrator_signals_oldest_seconds", "Age of the oldest of them")
        self._round_age = self._gauge("orchestrator_monitor_round_age_seconds", "Age of the monitor's last round")
        self._lease_age = self._gauge("orchestrator_monitor_lease_age_seconds", "Time since the lease was taken")
        self._held = self._gauge("orchestrator_monitor_lease_held", "1 when a monitor holds the lease")
        self._epoch = self._gauge("orchestrator_monitor_epoch", "The leader's number")
        self._workers = self._gauge("orchestrator_workers", "Workers that live")
        self._steps = Gauge(
            "orchestrator_heavy_steps", "Heavy steps that are with the workers", ["state"], registry=self.registry
        )
        self._up = self._gauge("orchestrator_database_up", "1 when the database answered this time")
        self._stages = Gauge(
            "orchestrator_stage_seconds",
            "Median stay at a status, of the clips completed last",
            ["pipeline", "status"],
            registry=self.registry,
        )
        self._expectations = Expectations()
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    async def refresh(self, services: Services) -> None:
        async with self._lock:
            if monotonic() - self._read_at < _FRESH_SECONDS:
                return
            try:
                async with asyncio.timeout(_READ_TIMEOUT_SECONDS), services.pool.acquire() as connection:
                    await self._read(connection)
            except (*DATABASE_AWAY, asyncpg.PostgresError) as problem:
                log.warning("the figures of the database could not be read", reason=type(problem).__name__)
                self._up.set(0)
                return
            self._up.set(1)
            self._read_at = monotonic()

    async def _read(self, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(_BY_STATUS)
        signals = await connection.fetchrow(_SIGNALS)
        lease = await connection.fetchrow(_LEASE)
        estimate = await connection.fetchval(_ESTIMATE)
        await self._expectations.refresh(connection)
        for (pipeline, status), seconds in self._expectations.stages.items():
            self._stages.labels(pipeline, status).set(seconds)
        self._clips.clear()
        for row in rows:
            self._clips.labels(row["pipeline"], row["status"]).set(row["clips"])
        self._rows.set(estimate)
        self._waiting.set(signals["waiting"])
        self._oldest.set(signals["oldest_seconds"])
        self._round_age.set(_or_nan(lease["round_age"]))
        self._lease_age.set(_or_nan(lease["lease_age"]))
        self._held.set(1 if lease["held"] else 0)
        self._epoch.set(lease["epoch"])
        self._workers.set(len(await read_workers(connection)))
        queued, running = await count_steps(connection)
        self._steps.labels("queued").set(queued)
        self._steps.labels("running").set(running)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


async def show_metrics(request: web.Request) -> web.Response:
    """The figures in the text form that Prometheus reads."""
    body = await request.app[METRICS].render(services_of(request))
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
