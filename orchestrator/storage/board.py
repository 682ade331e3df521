"""The figures of the board: how many clips stand where, who leads, what waits, what was completed, what fails.

Every statement is bounded by an index and a limit, so that it costs the same with a hundred clips and with ten million;
a count that met its limit is told as "at least". See decision 0010.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from orchestrator.drivers.budget import BudgetSettings
from orchestrator.noticing import VIEWS, Among, Yardsticks, yardsticks_as_json
from orchestrator.storage.heavy_steps import HOLD_SECONDS
from orchestrator.storage.listing import UNFINISHED_MAX
from statusutils import COMPLETE, ERROR, TABLES

# More than this many ended clips of a kind nobody counts on a page; reading them takes some ten milliseconds.
ENDED_MAX = 10_000
# Signals and looks that wait. Beyond it the figure says all there is to say.
WAITING_MAX = 10_000
# The failed clips whose reasons are summed up, and the reasons shown.
REASONS_OF, REASONS_MAX = 1000, 6
# The two spans of throughput: an hour by minutes, a day by hours; a bar counts no further than its limit.
MINUTES, MINUTE_MAX = 60, 1000
HOURS, HOUR_MAX = 24, 20_000


@dataclass(frozen=True, slots=True)
class Count:
    """How many clips stand at one status of one pipeline; *at_least* when counting was ended there."""

    pipeline: str
    status: str
    clips: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """How many of the clips that failed last did so for one reason; *code* is the reporter's own word."""

    code: str
    clips: int


@dataclass(frozen=True, slots=True)
class Bar:
    """Clips completed in the span that began at *at*."""

    at: datetime
    clips: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The calls to the provider that may be made now, out of how many at once, and what stands against them."""

    calls_left: float
    calls_at_once: float
    calls_per_second: float
    blocked_seconds: float
    provider_left: int | None


@dataclass(frozen=True, slots=True)
class Engine:
    """Who leads, when it came round last, and what waits for it; a count that equals `WAITING_MAX` is at least that.

    *workers* are those that live; *steps_queued* heavy steps wait for one of them, *steps_running* are with one.
    """

    leader: str | None
    epoch: int
    leads_since: datetime | None
    round_age_seconds: float | None
    signals_waiting: int
    oldest_signal_seconds: float
    looks_due: int
    latest_look_seconds: float
    workers: int
    steps_queued: int
    steps_running: int
    budget: Budget | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything the board counts, at the moment *at* of the database's clock.

    *estimate* is how many clips the planner believes there are in all; *views* has the clips of each view.
    """

    at: datetime
    counts: tuple[Count, ...]
    views: tuple[Count, ...]
    estimate: int
    engine: Engine
    reasons: tuple[Reason, ...]
    minutes: tuple[Bar, ...]
    hours: tuple[Bar, ...]


_UNFINISHED = f"""
SELECT pipeline, status, count(*) AS clips,
       count(*) FILTER (WHERE {VIEWS["stuck"].sql(Among.UNFINISHED, "$1")}) AS stuck,
       count(*) FILTER (WHERE {VIEWS["attention"].sql(Among.UNFINISHED, "$1")}) AS attention
  FROM (SELECT pipeline, status, status_since, look_at, processing_details FROM clips
         WHERE look_at IS NOT NULL AND status NOT IN ('{COMPLETE}', '{ERROR}')
         ORDER BY look_at LIMIT {UNFINISHED_MAX}) AS unfinished
 GROUP BY pipeline, status
"""
_FAILED = f"""
SELECT pipeline, count(*) AS clips,
       count(*) FILTER (WHERE {VIEWS["attention"].sql(Among.FAILED, "''")}) AS attention
  FROM (SELECT pipeline, attempt, processing_details FROM clips
         WHERE status = '{ERROR}' ORDER BY created_at DESC, id DESC LIMIT {ENDED_MAX}) AS failed
 GROUP BY pipeline
"""
_COMPLETE = f"""
SELECT p.pipeline, (
    SELECT count(*) FROM (SELECT 1 FROM clips WHERE status = '{COMPLETE}' AND pipeline = p.pipeline
                           ORDER BY completed_at DESC LIMIT {ENDED_MAX}) AS complete) AS clips
  FROM unnest($1::text[]) AS p(pipeline)
"""
_REASONS = f"""
SELECT coalesce(left(processing_details ->> 'error_code', 100), '') AS code, count(*) AS clips
  FROM (SELECT processing_details FROM clips
         WHERE status = '{ERROR}' ORDER BY created_at DESC, id DESC LIMIT {REASONS_OF}) AS failed
 WHERE coalesce(processing_details -> 'delete_requested', 'null') <> 'true'
 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {REASONS_MAX}
"""
# engine: $1 the provider account, $2 the calls at once, $3 the calls a second, as drivers/budget.py has them
_ENGINE = f"""
SELECT clock_timestamp() AS at,
       CASE WHEN l.expires_at > clock_timestamp() THEN l.holder END AS leader, l.epoch,
       CASE WHEN l.expires_at > clock_timestamp() THEN l.taken_at END AS leads_since,
       extract(epoch FROM clock_timestamp() - l.round_at)::float8 AS round_age_seconds,
       s.signals_waiting, s.oldest_signal_seconds, d.looks_due, d.latest_look_seconds,
       (SELECT count(*) FROM workers WHERE seen_at > clock_timestamp() - interval '{HOLD_SECONDS} s') AS workers,
       q.steps_queued, q.steps_running,
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'clips'::regclass) AS estimate,
       b.account IS NOT NULL AS is_budgeted,
       least($2::float8, b.tokens + $3::float8 * greatest(0,
           extract(epoch FROM clock_timestamp() - greatest(b.refilled_at, b.blocked_until)))::float8) AS calls_left,
       greatest(0, CASE WHEN isfinite(b.blocked_until)
           THEN extract(epoch FROM b.blocked_until - clock_timestamp()) ELSE 0 END)::float8 AS blocked_seconds,
       CASE WHEN b.provider_reset_at > clock_timestamp() THEN b.provider_left END AS provider_left
  FROM monitor_lease AS l
  CROSS JOIN (SELECT count(*) AS signals_waiting,
                     coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS oldest_signal_seconds
                FROM (SELECT at FROM clip_signals ORDER BY id LIMIT {WAITING_MAX}) AS waiting) AS s
  CROSS JOIN (SELECT count(*) AS looks_due,
                     coalesce(extract(epoch FROM clock_timestamp() - min(look_at)), 0)::float8 AS latest_look_seconds
                FROM (SELECT look_at FROM clips
                       WHERE look_at <= now() ORDER BY look_at LIMIT {WAITING_MAX}) AS due) AS d
  CROSS JOIN (SELECT count(*) FILTER (WHERE status = 'queued') AS steps_queued,
                     count(*) FILTER (WHERE status = 'picked') AS steps_running
                FROM (SELECT status FROM clip_pgqueuer LIMIT {WAITING_MAX}) AS steps) AS q
  LEFT JOIN call_budget AS b ON b.account = $1
"""
# completed: $1 the pipelines, $2 where the first bar begins, $3 its length, $4 how many bars, $5 the most of one bar
_COMPLETED = f"""
SELECT bar.at, sum(each.clips)::bigint AS clips
  FROM generate_series(0, $4::int - 1) AS n
  CROSS JOIN LATERAL (SELECT $2::timestamptz + n * $3::interval AS at) AS bar
  CROSS JOIN unnest($1::text[]) AS p(pipeline)
  CROSS JOIN LATERAL (
      SELECT count(*) AS clips FROM (
          SELECT 1 FROM clips WHERE status = '{COMPLETE}' AND pipeline = p.pipeline
             AND completed_at >= bar.at AND completed_at < bar.at + $3::interval
           ORDER BY completed_at DESC LIMIT $5) AS completed) AS each
 GROUP BY bar.at ORDER BY bar.at
"""


async def read_figures(
    connection: asyncpg.Connection, account: str, limits: BudgetSettings, yardsticks: Yardsticks
) -> Figures:
    """All figures of this moment, in seven statements."""
    pipelines = list(TABLES)
    engine = await connection.fetchrow(_ENGINE, account, limits.burst, limits.rate)
    unfinished = await connection.fetch(_UNFINISHED, json.dumps(yardsticks_as_json(yardsticks)))
    failed = await connection.fetch(_FAILED)
    complete = await connection.fetch(_COMPLETE, pipelines)
    reasons = await connection.fetch(_REASONS)
    now = engine["at"]
    minutes = await _completed(connection, pipelines, now, timedelta(minutes=1), MINUTES, MINUTE_MAX)
    hours = await _completed(connection, pipelines, now, timedelta(hours=1), HOURS, HOUR_MAX)
    return Figures(
        now,
        _counts(unfinished, failed, complete),
        _views(unfinished, failed),
        engine["estimate"],
        _engine(engine, limits),
        tuple(Reason(row["code"], row["clips"]) for row in reasons),
        minutes,
        hours,
    )


async def _completed(
    connection: asyncpg.Connection, pipelines: list[str], now: datetime, step: timedelta, bars: int, most: int
) -> tuple[Bar, ...]:
    """The last bars; the newest is still growing."""
    seconds = step.total_seconds()
    newest = now - timedelta(seconds=now.timestamp() % seconds)
    rows = await connection.fetch(_COMPLETED, pipelines, newest - (bars - 1) * step, step, bars, most)
    return tuple(Bar(row["at"], row["clips"]) for row in rows)


def _counts(
    unfinished: Sequence[asyncpg.Record], failed: Sequence[asyncpg.Record], complete: Sequence[asyncpg.Record]
) -> tuple[Count, ...]:
    """One count for every status of every pipeline, in the order of the law; what it does not know comes last."""
    is_cut = sum(row["clips"] for row in unfinished) >= UNFINISHED_MAX
    found = {(row["pipeline"], row["status"]): Count(**_plain(row), at_least=is_cut) for row in unfinished}
    too_many = sum(row["clips"] for row in failed) >= ENDED_MAX
    for row in failed:
        found[row["pipeline"], ERROR] = Count(row["pipeline"], ERROR, row["clips"], too_many)
    for row in complete:
        found[row["pipeline"], COMPLETE] = Count(row["pipeline"], COMPLETE, row["clips"], row["clips"] >= ENDED_MAX)
    known = [(table.pipeline, status.name) for table in TABLES.values() for status in table.statuses]
    return tuple(
        found.get(place, Count(*place, 0)) for place in [*known, *(place for place in found if place not in known)]
    )


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    return {"pipeline": row["pipeline"], "status": row["status"], "clips": row["clips"]}


def _views(unfinished: Sequence[asyncpg.Record], failed: Sequence[asyncpg.Record]) -> tuple[Count, ...]:
    """The clips of each view by pipeline; the status of such a count is the view's name."""
    is_cut = sum(row["clips"] for row in unfinished) >= UNFINISHED_MAX
    too_many = sum(row["clips"] for row in failed) >= ENDED_MAX
    found: dict[tuple[str, str], int] = {}
    for name in VIEWS:
        for row in [*unfinished, *failed]:
            place = row["pipeline"], name
            found[place] = found.get(place, 0) + row.get(name, 0)
    return tuple(
        Count(pipeline, name, clips, is_cut or (too_many and bool(VIEWS[name].among(Among.FAILED))))
        for (pipeline, name), clips in found.items()
    )


def _engine(row: asyncpg.Record, limits: BudgetSettings) -> Engine:
    budget = None
    if row["is_budgeted"]:
        budget = Budget(row["calls_left"], limits.burst, limits.rate, row["blocked_seconds"], row["provider_left"])
    return Engine(
        row["leader"],
        row["epoch"],
        row["leads_since"],
        row["round_age_seconds"],
        row["signals_waiting"],
        row["oldest_signal_seconds"],
        row["looks_due"],
        row["latest_look_seconds"],
        row["workers"],
        row["steps_queued"],
        row["steps_running"],
        budget,
    )
