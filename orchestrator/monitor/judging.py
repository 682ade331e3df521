"""Judging pending signals: the pure verdict for one clip, and the shell that drains the inbox in batches."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import structlog

from orchestrator.monitor.batches import write_each
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move
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
    Verdict,
    judge,
    table_for,
)

log = structlog.get_logger(__name__)

# Clips a batch: one round trip moves them all, and a failing one is soon found among them.
BATCH = 500

# A claim makes a clip due at once, but not more often than this.
LOOK_PAUSE = timedelta(seconds=2)

# Rows that somebody holds are passed over: they are judged when they are free. Paging by id keeps a page
# of held rows from hiding the ones behind it.
_LOCK = f"""
SELECT {COLUMNS} FROM clips
 WHERE id IN (SELECT DISTINCT clip_id FROM clip_signals WHERE clip_id > $1 ORDER BY clip_id LIMIT $2)
 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
"""
_PAGE_END = """
SELECT max(clip_id) AS last, count(*) AS clips
  FROM (SELECT DISTINCT clip_id FROM clip_signals WHERE clip_id > $1 ORDER BY clip_id LIMIT $2) AS page
"""
_SIGNALS = """
SELECT id, clip_id, attempt, requested_status, source, details, observed, insists
  FROM clip_signals WHERE clip_id = ANY($1) ORDER BY id
"""

_ERROR_DETAILS = ("error_code", "error_message", "error_time", "provider_error_code")


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

    @property
    def request(self) -> Request:
        """The part of it that the law judges."""
        return Request(self.attempt, self.requested_status, self.observed, self.insists)


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
    return Move(
        clip_id=clip.id,
        before=before,
        after=judgement.position,
        seen_look_at=clip.look_at,
        look_at=(_soonest_look(clip, now) if stands_still else now) if look_now else clip.look_at,
        tries=clip.tries if stands_still else 0,
        judged=sum(not signal.observed for signal in signals),
        signal_ids=tuple(signal.id for signal in signals),
        facts=_facts(moved),
        details=_details(signals, judgement, moved, now),
        cleared=_ERROR_DETAILS if opens_an_attempt else (),
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


def _facts(moved: Signal | None) -> Mapping[str, Any]:
    facts = moved.details.get("facts") if moved is not None and moved.observed else None
    return facts if isinstance(facts, dict) else {}


def _details(signals: Sequence[Signal], judgement: Judgement, moved: Signal | None, now: datetime) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if any(not signal.observed for signal in signals):
        details["requested_status_handled"] = now.isoformat()
    refused = [verdict for verdict in judgement.verdicts if isinstance(verdict, Refused)]
    if refused and any(not signal.observed for signal in signals):
        details["requested_status_error"] = f"{refused[-1].rule.name}: {refused[-1].rule.sentence}"
    if moved is None:
        return details
    if moved.observed:
        details |= {key: value for key, value in moved.details.items() if key not in ("facts", "reason")}
    if moved.requested_status == ERROR:
        reason = moved.details.get("error_message") or moved.details.get("reason")
        details["error_message"] = str(reason or f"{moved.source} reported an error")[:2000]
        details["error_code"] = str(moved.details.get("error_code") or "reported")[:100]
        details["error_time"] = now.isoformat()
    return details


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


async def drain(pool: asyncpg.Pool, term: Term, clock: Callable[[], datetime]) -> list[Move]:
    """Judge everything that is pending; the moves written.

    Raises:
        LeadershipLost: another monitor leads.
    """
    written: list[Move] = []
    after = ""
    while True:
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            page = await connection.fetchrow(_PAGE_END, after, BATCH)
            if page["last"] is not None:
                async with connection.transaction():
                    rows = await connection.fetch(_LOCK, after, BATCH)
                    signals = await connection.fetch(_SIGNALS, [row["id"] for row in rows])
                    moves = _settle_all(rows, signals, clock())
                    ids = await write_each(connection, term, moves)
                written += [move for move in moves if move.clip_id in ids]
        if page["last"] is None or page["clips"] < BATCH:
            return written
        after = page["last"]


def _settle_all(rows: Sequence[asyncpg.Record], signals: Sequence[asyncpg.Record], now: datetime) -> list[Move]:
    by_clip: defaultdict[str, list[Signal]] = defaultdict(list)
    for row in signals:
        by_clip[row["clip_id"]].append(
            Signal(
                row["id"],
                row["attempt"],
                row["requested_status"],
                row["source"],
                json.loads(row["details"]),
                row["observed"],
                row["insists"],
            )
        )
    moves = []
    for row in rows:
        if not by_clip[row["id"]]:
            continue
        try:
            clip = clip_from_row(row)
            moves.append(settle(table_for(clip.pipeline), clip, by_clip[clip.id], now))
        except Exception:
            # The edge for one clip: whatever is wrong with it may not hold up the others.
            log.exception("signals of a clip could not be judged", clip_id=row["id"])
    return moves
