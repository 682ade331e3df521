"""Judging pending signals: the pure verdict for one clip, and the shell that drains the inbox in batches."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import asyncpg
import structlog

from orchestrator.monitor.batches import write_each
from orchestrator.monitor.deadlines import ERROR_DETAILS
from orchestrator.monitor.failures import Failure, after_failure
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move
from orchestrator.monitor.pauses import Pauses
from orchestrator.monitor.problems import INTERNAL, broken
from orchestrator.pipelines.limits import RETRY_AT, Limits
from orchestrator.storage.clips import COLUMNS, Clip, clip_from_row
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

# Clips a batch: one round trip moves them all, and a failing one is soon found among them.
BATCH = 500

# A claim makes a clip due at once, but not more often than this.
LOOK_PAUSE = timedelta(seconds=2)

# Signals that cannot be judged, or whose row refuses the outcome, are left alone for a moment, each time for longer.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
# The rule that refuses a step which has been made already.
_ALREADY_THERE = "repeated"

# Signals a batch, by what they carry: the memory of a round does not grow with a flood.
BATCH_BYTES = 8 * 1024 * 1024

_PAGE = """
SELECT clip_id, sum(pg_column_size(details)) AS bytes
  FROM clip_signals WHERE clip_id > $1 GROUP BY clip_id ORDER BY clip_id LIMIT $2
"""
# Rows that somebody holds are passed over: they are judged when they are free. Paging by id keeps a page
# of held rows from hiding the ones behind it.
_LOCK = f"""
SELECT {COLUMNS} FROM clips
 WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
"""
_SIGNALS = """
SELECT id, clip_id, attempt, requested_status, source, details, observed, insists, hearsay
  FROM clip_signals WHERE clip_id = ANY($1) ORDER BY id
"""

# Why the last request was refused, as long as it is the last one.
_REFUSAL_DETAILS = ("requested_status_error",)


@dataclass(frozen=True, slots=True)
class Signal:
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


def settle(table: StatusTable, clip: Clip, signals: Sequence[Signal], now: datetime) -> Move:
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


def _soonest_look(clip: Clip, now: datetime) -> datetime:
    """Now, unless the clip was looked at a moment ago: a flood of claims may not use up the call budget."""
    try:
        last = datetime.fromisoformat(clip.processing_details["last_checked"])
        return max(now, min(now, last) + LOOK_PAUSE)
    except (KeyError, TypeError, ValueError):
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


def _entry(clip: Clip, signal: Signal, verdict: Verdict, position: Position) -> Entry:
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
    after = ""
    while True:
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            page = await connection.fetch(_PAGE, after, BATCH)
            clip_ids = _within_bounds(page)
            wanted = [clip_id for clip_id in clip_ids if clip_id not in not_now]
            if wanted:
                written += await _judge_page(connection, term, wanted, clock(), inbox)
        inbox.on_page()
        if len(page) < BATCH and len(clip_ids) == len(page):
            return written
        after = clip_ids[-1]


async def _judge_page(
    connection: asyncpg.Connection, term: Term, clip_ids: Sequence[str], now: datetime, inbox: Inbox
) -> list[Move]:
    async with connection.transaction():
        rows = await connection.fetch(_LOCK, clip_ids)
        signals = await connection.fetch(_SIGNALS, [row["id"] for row in rows])
        moves, poisoned = _settle_all(rows, signals, now, inbox.limits)
        ids = await write_each(connection, term, moves)
    for row in rows:
        if row["id"] in ids and row["id"] not in poisoned:
            inbox.pauses.lift(row["id"])
        else:
            inbox.pauses.put(row["id"])
    return [move for move in moves if move.clip_id in ids]


def _within_bounds(page: Sequence[asyncpg.Record]) -> list[str]:
    """The first clips of *page* whose signals fit into a batch together; at least one."""
    carried = accumulate(int(row["bytes"]) for row in page)
    return [
        row["clip_id"] for n, (row, size) in enumerate(zip(page, carried, strict=True)) if not n or size <= BATCH_BYTES
    ]


def _settle_all(
    rows: Sequence[asyncpg.Record], signals: Sequence[asyncpg.Record], now: datetime, limits: Mapping[str, Limits]
) -> tuple[list[Move], set[str]]:
    """The moves of a page, and the clips among them whose signals could not be judged."""
    by_clip: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in signals:
        by_clip[row["clip_id"]].append(row)
    moves: list[Move] = []
    poisoned: set[str] = set()
    for row in rows:
        if not by_clip[row["id"]]:
            continue
        try:
            clip = clip_from_row(row)
            of_clip = [_signal(signal) for signal in by_clip[clip.id]]
            moves.append(settle(table_for(clip.pipeline), clip, of_clip, now))
        except UnknownPipeline:
            # Its signals wait for the version of this program that knows it.
            log.warning("a clip belongs to a pipeline this program does not have", clip_id=row["id"])
            poisoned.add(row["id"])
        except Exception:
            # The edge for one clip: whatever is wrong with it may not hold up the others.
            log.exception("signals of a clip could not be judged", clip_id=row["id"])
            poisoned.add(row["id"])
            moves += _set_aside(row, by_clip[row["id"]], now, limits)
    return moves, poisoned


def _set_aside(
    row: asyncpg.Record, signals: Sequence[asyncpg.Record], now: datetime, limits: Mapping[str, Limits]
) -> list[Move]:
    """A clip whose signals nobody can judge: a failed try, and the end of both when the tries are used up."""
    try:
        clip = clip_from_row(row)
        failure = Failure("judging", broken("Judging its signals"), now)
        move = after_failure(limits.get(clip.pipeline, {}), clip, failure, now)
    except Exception:
        log.exception("a clip could not be set aside", clip_id=row["id"])
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
    return Signal(
        row["id"],
        row["attempt"],
        row["requested_status"],
        row["source"],
        json.loads(row["details"]),
        row["observed"],
        row["insists"],
        row["hearsay"],
    )
