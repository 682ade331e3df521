"""Judging pending signals: the pure verdict for one clip, and the shell that drains the inbox in batches."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple

import asyncpg
import structlog

from orchestrator.monitor.batches import write_each
from orchestrator.monitor.deadlines import ERROR_DETAILS
from orchestrator.monitor.failures import Failure, after_failure
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move
from orchestrator.monitor.pauses import Pauses
from orchestrator.monitor.problems import INTERNAL
from orchestrator.monitor.problems import broken as broken_by
from orchestrator.pipelines.limits import RETRY_AT, Limits
from orchestrator.storage.clips import read_clip
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from statusutils import (
    ERROR,
    Judgement,
    Moved,
    Noted,
    Outranked,
    Position,
    Refused,
    Request,
    StatusTable,
    UnknownPipeline,
    Verdict,
    judge,
    table_for,
)
from statusutils.merging import rank

log = structlog.get_logger(__name__)

# Signals a batch: one round trip moves their clips, and a failing one is soon found among them.
BATCH = 500

# A claim makes a clip due at once, but not more often than this.
LOOK_PAUSE = timedelta(seconds=2)

# Signals that cannot be judged, or whose row refuses the outcome, are left alone for a moment, each time for longer.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
# The rule that refuses a step which has been made already.
_ALREADY_THERE = "repeated"

# What the signals of a batch carry: the memory of a round does not grow with a flood.
BATCH_BYTES = 8 * 1024 * 1024

_PAGE = """
SELECT clip_id, pg_column_size(details) AS bytes FROM clip_signals WHERE clip_id > $1 ORDER BY clip_id LIMIT $2
"""
# Rows that somebody holds are passed over: they are judged when they are free. Paging by id keeps a page
# of held rows from hiding the ones behind it. Here, too, arrays are hidden from the planner.
_LOCK = """
SELECT id, pipeline, status, progress::float8 AS progress, attempt, look_at, tries,
       processing_details ->> 'last_checked' AS last_checked
  FROM unnest((SELECT $1::text[])) AS wanted(id_of_clip) JOIN clips ON id = id_of_clip
 ORDER BY id FOR NO KEY UPDATE OF clips SKIP LOCKED
"""
_SIGNALS = """
SELECT clip_id, id, attempt, requested_status, source, details, observed, insists, hearsay
  FROM unnest((SELECT $1::text[])) AS held(id_of_clip) JOIN clip_signals ON clip_id = id_of_clip ORDER BY id
"""

# Why the last request was refused, as long as it is the last one.
_REFUSAL_DETAILS = ("requested_status_error",)


class Standing(NamedTuple):
    """Where a clip stands, as far as its judge needs to know; *last_checked* is a text that anybody may have written.

    A tuple, as is `Signal`: thousands are made in a second, and a tuple takes a third of the time.
    """

    id: str
    pipeline: str
    status: str
    progress: float
    attempt: int
    look_at: datetime | None
    tries: int
    last_checked: str | None


class Signal(NamedTuple):
    """One pending signal as it lies in the inbox."""

    id: int
    attempt: int
    requested_status: str
    source: str
    details: Mapping[str, Any]
    observed: bool
    insists: bool
    hearsay: bool = False

    @property
    def request(self) -> Request:
        """The part of it that the law judges."""
        return Request(self.attempt, self.requested_status, self.observed, self.insists, self.hearsay)


def settle(table: StatusTable, clip: Standing, signals: Sequence[Signal], now: datetime) -> Move:
    """What becomes of *clip* by its pending *signals*: a pure function."""
    before = Position(clip.attempt, clip.status, clip.progress)
    judgement = judge(table, before, [signal.request for signal in signals])
    moved = next(
        (s for s, verdict in zip(signals, judgement.verdicts, strict=True) if isinstance(verdict, Moved)), None
    )
    stands_still = judgement.position == before
    look_now = not stands_still or judgement.asks_for_a_look
    opens_an_attempt = judgement.position.attempt > clip.attempt
    judged = sum(not signal.observed for signal in signals)
    return Move(
        clip_id=clip.id,
        before=before,
        after=judgement.position,
        seen_look_at=clip.look_at,
        look_at=(_soonest_look(clip, now) if stands_still else now) if look_now else clip.look_at,
        tries=clip.tries if stands_still else 0,
        judged=judged,
        signal_ids=tuple(signal.id for signal in signals),
        facts=_facts(table, signals, judgement),
        details=_details(signals, judgement, moved, now),
        cleared=(
            *(_REFUSAL_DETAILS if judged else ()),
            *(ERROR_DETAILS if opens_an_attempt else ()),
            # Who insists that a failed clip has failed does not want it tried again by itself.
            *((RETRY_AT,) if any(s.insists and s.requested_status == ERROR for s in signals) else ()),
        ),
        entries=tuple(
            _entry(clip, signal, verdict, judgement.position)
            for signal, verdict in zip(signals, judgement.verdicts, strict=True)
        ),
    )


def _soonest_look(clip: Standing, now: datetime) -> datetime:
    """Now, unless the clip was looked at a moment ago: a flood of claims may not use up the call budget."""
    try:
        last = datetime.fromisoformat(clip.last_checked or "")
        return max(now, min(now, last) + LOOK_PAUSE)
    except (TypeError, ValueError):
        return now


def _facts(table: StatusTable, signals: Sequence[Signal], judgement: Judgement) -> dict[str, Any]:
    """The columns known now: what was seen stays true of a step that another one overtook."""
    allowed = [
        signal
        for signal, verdict in zip(signals, judgement.verdicts, strict=True)
        if signal.observed and isinstance(verdict, Moved | Outranked)
    ]
    facts: dict[str, Any] = {}
    for signal in sorted(allowed, key=lambda signal: rank(table, signal.request)):
        seen = signal.details.get("facts")
        facts |= seen if isinstance(seen, dict) else {}
    return facts


def _details(signals: Sequence[Signal], judgement: Judgement, moved: Signal | None, now: datetime) -> dict[str, Any]:
    details: dict[str, Any] = {}
    outside = [v for signal, v in zip(signals, judgement.verdicts, strict=True) if not signal.observed]
    if outside:
        details["requested_status_handled"] = now.isoformat()
    refused = [verdict for verdict in outside if isinstance(verdict, Refused)]
    if refused:
        details["requested_status_error"] = f"{refused[-1].rule.name}: {refused[-1].rule.sentence}"
    for signal, verdict in zip(signals, judgement.verdicts, strict=True):
        if signal.observed and isinstance(verdict, Refused) and verdict.rule.name == _ALREADY_THERE:
            details |= _told(signal)  # a step that repeats moves nothing, and what it did is still so
    if moved is None:
        return details
    if moved.observed:
        details |= _told(moved)
    if moved.requested_status == ERROR:
        reason = moved.details.get("error_message") or moved.details.get("reason")
        details["error_message"] = str(reason or f"{moved.source} reported an error")[:2000]
        details["error_code"] = str(moved.details.get("error_code") or "reported")[:100]
        details["error_time"] = now.isoformat()
    return details


def _told(signal: Signal) -> dict[str, Any]:
    return {key: value for key, value in signal.details.items() if key not in ("facts", "reason")}


def _entry(clip: Standing, signal: Signal, verdict: Verdict, position: Position) -> Entry:
    said = {key: value for key, value in signal.details.items() if key != "facts"}
    match verdict:
        case Moved():
            return Entry("moved", position.attempt, clip.status, position.status, signal.source, said)
        case Refused(rule):
            said |= {"rule": rule.name, "reason": f"Refused: {rule.sentence}"}
            return Entry("refused", signal.attempt, clip.status, signal.requested_status, signal.source, said)
        case Outranked(by):
            said |= {"reason": f"Another request of the same moment reached further: {by}"}
            return Entry("outranked", signal.attempt, clip.status, signal.requested_status, signal.source, said)
        case Noted(rule):
            said |= {"rule": rule, "reason": "Noted: the provider is looked at before this is believed"}
            return Entry("noted", signal.attempt, clip.status, signal.requested_status, signal.source, said)


@dataclass(frozen=True, slots=True)
class Inbox:
    """What the judge keeps between two rounds: the *limits* by pipeline, and clips to leave alone for a while.

    *on_page* is called after each batch: a long round is not a hanging one.
    """

    limits: Mapping[str, Limits]
    pauses: Pauses
    on_page: Callable[[], None] = lambda: None


async def drain(
    pool: asyncpg.Pool, term: Term, clock: Callable[[], datetime], inbox: Inbox | None = None
) -> list[Move]:
    """Judge everything that is pending; the moves written.

    Raises:
        LeadershipLost: another monitor leads.
    """
    inbox = inbox or Inbox({}, Pauses(time.monotonic, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
    written: list[Move] = []
    not_now = frozenset(inbox.pauses.now())
    after, is_last = "", False
    page: asyncio.Task[list[Move]] | None = None
    try:
        while not is_last:
            async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                rows = await connection.fetch(_PAGE, after, BATCH + 1)
            clip_ids, is_last = _within_bounds(rows)
            wanted = [clip_id for clip_id in clip_ids if clip_id not in not_now]
            before, page = page, asyncio.create_task(_Page(pool, term, wanted, clock, inbox).judged(after=page))
            if before is not None:
                written += await before
            after = clip_ids[-1] if clip_ids else after
        return written + await page if page is not None else written
    finally:
        if page is not None:
            page.cancel()
            await asyncio.gather(page, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Page:
    """Clips that are judged together. While one page is being written, the next one is read and judged."""

    pool: asyncpg.Pool
    term: Term
    clip_ids: Sequence[str]
    clock: Callable[[], datetime]
    inbox: Inbox

    async def judged(self, after: asyncio.Task[list[Move]] | None) -> list[Move]:
        """The moves written; nothing is written before the page *after* which this one comes, or where that failed."""
        moves: list[Move] = []
        if self.clip_ids:
            async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                moves = await self._judge(connection, after)
        self.inbox.on_page()
        return moves

    async def _judge(self, connection: asyncpg.Connection, after: asyncio.Task[list[Move]] | None) -> list[Move]:
        async with connection.transaction():
            rows = await connection.fetch(_LOCK, self.clip_ids)
            signals: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
            for signal in await connection.fetch(_SIGNALS, [row["id"] for row in rows]):
                signals[signal["clip_id"]].append(signal)
            now = self.clock()
            moves, broken, unknown = _settle_all(rows, signals, now)
            for clip_id in broken:
                moves += await _set_aside(connection, clip_id, signals[clip_id], now, self.inbox.limits)
            if after is not None:
                # One at a time: two that overlap again and again would keep the lease from being renewed.
                await asyncio.wait([after])
                after.result()
            ids = await write_each(connection, self.term, moves)
        well = ids - broken - unknown
        for row in rows:
            if row["id"] in well:
                self.inbox.pauses.lift(row["id"])
            else:
                self.inbox.pauses.put(row["id"])
        return [move for move in moves if move.clip_id in ids]


def _within_bounds(rows: Sequence[asyncpg.Record]) -> tuple[list[str], bool]:
    """The first clips whose signals fit into a batch together, at least one; whether none is left after them."""
    carried: dict[str, int] = {}
    for row in rows:
        carried[row["clip_id"]] = carried.get(row["clip_id"], 0) + row["bytes"]
    is_cut = len(rows) > BATCH
    if is_cut and len(carried) > 1:
        del carried[rows[-1]["clip_id"]]  # the others of its signals have not been seen
    sizes = accumulate(carried.values())
    clip_ids = [
        clip_id for n, (clip_id, size) in enumerate(zip(carried, sizes, strict=True)) if not n or size <= BATCH_BYTES
    ]
    return clip_ids, not is_cut and len(clip_ids) == len(carried)


def _settle_all(
    rows: Sequence[asyncpg.Record], signals: Mapping[str, Sequence[asyncpg.Record]], now: datetime
) -> tuple[list[Move], set[str], set[str]]:
    """The moves of a page; the clips among them that broke their judge; those of pipelines nobody here knows."""
    moves: list[Move] = []
    broken: set[str] = set()
    unknown: set[str] = set()
    for row in rows:
        clip = Standing(*row)
        if clip.id not in signals:
            continue
        try:
            of_clip = [_signal(signal) for signal in signals[clip.id]]
            moves.append(settle(table_for(clip.pipeline), clip, of_clip, now))
        except UnknownPipeline:
            # Its signals wait for the version of this program that knows it.
            log.warning("a clip belongs to a pipeline this program does not have", clip_id=clip.id)
            unknown.add(clip.id)
        except Exception:
            # The edge for one clip: whatever is wrong with it may not hold up the others.
            log.exception("signals of a clip could not be judged", clip_id=clip.id)
            broken.add(clip.id)
    return moves, broken, unknown


async def _set_aside(
    connection: asyncpg.Connection,
    clip_id: str,
    signals: Sequence[asyncpg.Record],
    now: datetime,
    limits: Mapping[str, Limits],
) -> list[Move]:
    """A clip whose signals nobody can judge: a failed try, and the end of both when the tries are used up."""
    try:
        clip = await read_clip(connection, clip_id)
        if clip is None:
            return []
        failure = Failure("judging", broken_by("Judging its signals"), now)
        move = after_failure(limits.get(clip.pipeline, {}), clip, failure, now)
    except (ValueError, RecursionError):
        log.exception("a clip could not be set aside", clip_id=clip_id)
        return []
    if move.after == move.before and move.look_at is not None:
        return [replace(move, look_at=clip.look_at)]
    said = {"rule": INTERNAL, "reason": "Refused: this program could not judge it; the log says where"}
    refused = tuple(
        Entry("refused", one["attempt"], clip.status, one["requested_status"], one["source"], said) for one in signals
    )
    ids, judged = tuple(one["id"] for one in signals), sum(not one["observed"] for one in signals)
    return [replace(move, signal_ids=ids, judged=judged, entries=(*move.entries, *refused))]


def _signal(row: asyncpg.Record) -> Signal:
    _, number, attempt, status, source, details, *flags = row
    return Signal(number, attempt, status, source, json.loads(details), *flags)
