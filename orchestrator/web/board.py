"""The figures of the board for everybody who looks: read when somebody does, at most every two seconds, and kept.

When the database is away the last picture stays, and says how old it is and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import asyncpg
import structlog
from aiohttp import web

from orchestrator.drivers.budget import BudgetSettings
from orchestrator.noticing import VIEWS, yardsticks_from
from orchestrator.settings import Settings
from orchestrator.storage.board import WAITING_MAX, Bar, Count, Engine, Figures, read_figures
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.expecting import EXPECTATIONS, Expectations, Usual
from orchestrator.web.problems import Problem
from orchestrator.web.reading import medians_of
from orchestrator.web.services import Services, services_of
from orchestrator.web.views import json_response, message_of, state_of, timestamp
from statusutils import TABLES

log = structlog.get_logger(__name__)

# Many tabs look at one moment; all of them share one look.
_FRESH_SECONDS = 2.0
# Of a look that takes longer (with 50,000 unfinished clips 0.2 s), a tenth of the database's time at most.
_PAUSE_FACTOR = 10.0
# All seven statements take some 25 ms with a million clips; a page rather shows the last picture than waits longer.
_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Picture:
    """The figures that were read last, None if none ever were; *problem* says why there are no newer ones."""

    figures: Figures | None
    age_seconds: float
    problem: str | None
    usual: Mapping[tuple[str, str], Usual]


@dataclass
class Board:
    """Keeps the picture of one web process."""

    _figures: Figures | None = None
    _problem: str | None = None
    _read_at: float = float("-inf")
    _tried_at: float = float("-inf")
    _took_seconds: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def picture(self, services: Services, expectations: Expectations) -> Picture:
        """The present picture; of several that ask at once, one reads."""
        async with self._lock:
            pause_seconds = max(_FRESH_SECONDS, _PAUSE_FACTOR * self._took_seconds)
            if monotonic() - self._tried_at >= pause_seconds:
                began = monotonic()
                await self._read(services, expectations)
                self._tried_at = monotonic()
                # A failure says nothing about how long a look takes: the next try is not put off for it.
                self._took_seconds = self._tried_at - began if self._problem is None else 0.0
        age_seconds = monotonic() - self._read_at if self._figures is not None else 0.0
        return Picture(self._figures, age_seconds, self._problem, expectations.usual)

    async def _read(self, services: Services, expectations: Expectations) -> None:
        settings = services.settings
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS), services.pool.acquire() as connection:
                await expectations.refresh(connection)
                yardsticks = yardsticks_from(medians_of(expectations.usual))
                self._figures = await read_figures(
                    connection, settings.cloudflare_account_id, _limits(settings), yardsticks
                )
        except (*DATABASE_AWAY, asyncpg.PostgresError) as problem:
            log.warning("the figures of the board could not be read", reason=type(problem).__name__)
            self._problem = "The database did not answer"
            return
        self._problem, self._read_at = None, monotonic()


def _limits(settings: Settings) -> BudgetSettings:
    return BudgetSettings(calls=settings.cloudflare_calls, window_seconds=settings.cloudflare_calls_window_seconds)


BOARD: web.AppKey[Board] = web.AppKey("board", Board)


async def picture_for(request: web.Request) -> Picture:
    """The picture for one caller."""
    return await request.app[BOARD].picture(services_of(request), request.app[EXPECTATIONS])


async def show_board(request: web.Request) -> web.Response:
    """How many clips stand where, who leads, what waits, what was completed; `stale` when the database is away."""
    picture = await picture_for(request)
    if picture.figures is None:
        raise Problem("database-away", picture.problem or "The database did not answer", headers={"Retry-After": "5"})
    return json_response(picture_as_json(picture, picture.figures))


def picture_as_json(picture: Picture, figures: Figures) -> dict[str, Any]:
    """The document of the board."""
    return {
        "at": timestamp(figures.at),
        "age_seconds": round(picture.age_seconds, 1),
        "stale": picture.problem is not None,
        "problem": picture.problem,
        "clips_estimate": figures.estimate,
        "counts": [
            {**_count(each), "state": state_of(each.pipeline, each.status), "message": message_of(*_place(each))}
            for each in figures.counts
        ],
        "views": [
            {"view": name, "title": view.title, **_sum([each for each in figures.views if each.status == name])}
            for name, view in VIEWS.items()
        ],
        "engine": _engine(figures.engine),
        "reasons": [{"error_code": each.code, "clips": each.clips} for each in figures.reasons],
        "completed": {"minutes": _bars(figures.minutes), "hours": _bars(figures.hours)},
        "stages": [
            {
                "pipeline": pipeline,
                "status": status,
                "median_seconds": round(usual.median_seconds, 1),
                "p90_seconds": round(usual.p90_seconds, 1),
            }
            for (pipeline, status), usual in in_order(picture.usual)
        ],
    }


def in_order(usual: Mapping[tuple[str, str], Usual]) -> list[tuple[tuple[str, str], Usual]]:
    """The usual times in the order in which clips meet them."""
    known = [(table.pipeline, name) for table in TABLES.values() for name in table.by_name]
    return [(place, usual[place]) for place in known if place in usual]


def _place(count: Count) -> tuple[str, str]:
    return count.pipeline, count.status


def _count(count: Count) -> dict[str, Any]:
    return {
        "pipeline": count.pipeline,
        "status": count.status,
        "clips": count.clips,
        "at_least": count.at_least,
    }


def _sum(counts: Sequence[Count]) -> dict[str, Any]:
    return {"clips": sum(each.clips for each in counts), "at_least": any(each.at_least for each in counts)}


def _bars(bars: Sequence[Bar]) -> list[dict[str, Any]]:
    return [{"at": timestamp(bar.at), "clips": bar.clips} for bar in bars]


def _engine(engine: Engine) -> dict[str, Any]:
    budget = engine.budget
    return {
        "leader": engine.leader,
        "epoch": engine.epoch,
        "leads_since": timestamp(engine.leads_since) if engine.leads_since else None,
        "round_age_seconds": engine.round_age_seconds,
        "signals_waiting": engine.signals_waiting,
        "oldest_signal_seconds": round(engine.oldest_signal_seconds, 1),
        "looks_due": engine.looks_due,
        "latest_look_seconds": round(engine.latest_look_seconds, 1),
        "workers": engine.workers,
        "steps_queued": engine.steps_queued,
        "steps_running": engine.steps_running,
        "waiting_counted_to": WAITING_MAX,
        "budget": None
        if budget is None
        else {
            "calls_left": round(budget.calls_left, 1),
            "calls_at_once": budget.calls_at_once,
            "calls_per_second": round(budget.calls_per_second, 3),
            "blocked_seconds": round(budget.blocked_seconds, 1),
            "provider_left": budget.provider_left,
        },
    }
