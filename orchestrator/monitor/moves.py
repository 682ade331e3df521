"""Writing what was decided: status, progress, history and the clearing of requests, in one statement a batch.

Three guards stand in the statement itself: the epoch of the lease, where the clip stood when it was judged,
and (in the database) the law.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.leadership import Term
from signals import CHANGED_CHANNEL
from statusutils import Position

# A NOTIFY payload must stay under 8,000 bytes; an id has at most 64.
_IDS_PER_NOTIFICATION = 120

# The arrays are hidden from the planner: it would plan anew for each of their lengths, which takes as long as a short
# batch does, and choose worse for a long one.
_WRITE = """
WITH leader AS MATERIALIZED (
    SELECT epoch FROM monitor_lease WHERE holder = $1 AND epoch = $2 FOR SHARE
), moves AS (
    SELECT m.*, reached::numeric AS progress
      FROM unnest((SELECT $3::text[]), (SELECT $4::text[]), (SELECT $5::integer[]), (SELECT $6::timestamptz[]),
                  (SELECT $7::text[]), (SELECT $8::integer[]), (SELECT $9::float8[]), (SELECT $10::timestamptz[]),
                  (SELECT $11::integer[]), (SELECT $12::integer[]), (SELECT $13::jsonb[]), (SELECT $14::jsonb[]),
                  (SELECT $15::text[]), (SELECT $16::text[]))
        AS m(clip_id, from_status, from_attempt, seen_look_at, status, attempt, reached, look_at, tries, judged, facts,
             details, cleared, signal_ids)
), locked AS MATERIALIZED (
    -- A row that somebody holds is left for the next look: one hung session may not hold up the loop.
    SELECT m.* FROM moves m JOIN clips ON id = clip_id ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE clips c
       SET status = m.status, attempt = m.attempt, tries = coalesce(m.tries, c.tries), epoch = leader.epoch,
           progress = CASE WHEN m.attempt = c.attempt THEN greatest(c.progress, m.progress) ELSE m.progress END,
           status_since = CASE WHEN (m.status, m.attempt) = (c.status, c.attempt) THEN c.status_since
                               ELSE clock_timestamp() END,
           -- Somebody asked for an earlier look since the clip was read: that stands.
           look_at = CASE WHEN c.look_at IS NOT DISTINCT FROM m.seen_look_at THEN m.look_at
                          ELSE least(c.look_at, m.look_at) END,
           pending = greatest(c.pending - m.judged, 0),
           processing_details = (c.processing_details
               - CASE WHEN m.judged > 0 AND m.judged >= c.pending
                      THEN '{requested_status,requested_attempt,status_request_time}'::text[] ELSE '{}' END
               - m.cleared::text[]) || m.details,
           cloudflare_uid = coalesce(m.facts ->> 'cloudflare_uid', c.cloudflare_uid),
           duration = coalesce((m.facts ->> 'duration')::double precision, c.duration),
           file_size = coalesce((m.facts ->> 'file_size')::bigint, c.file_size),
           thumbnail_url = coalesce(m.facts ->> 'thumbnail_url', c.thumbnail_url),
           hls_url = coalesce(m.facts ->> 'hls_url', c.hls_url),
           dash_url = coalesce(m.facts ->> 'dash_url', c.dash_url),
           mp4_url = coalesce(m.facts ->> 'mp4_url', c.mp4_url),
           -- Of a former attempt's end nothing is shown while a new one runs.
           r2_url = coalesce(m.facts ->> 'r2_url', CASE WHEN m.attempt = c.attempt THEN c.r2_url END),
           uploaded_at = coalesce((m.facts ->> 'uploaded_at')::timestamptz, c.uploaded_at),
           completed_at = CASE WHEN m.status = 'complete' THEN coalesce(c.completed_at, clock_timestamp())
                               WHEN m.attempt = c.attempt THEN c.completed_at END,
           error_message = CASE WHEN m.status <> 'error' THEN NULL
                                ELSE coalesce(m.details ->> 'error_message', c.error_message) END,
           source_url = CASE WHEN m.status = 'complete' OR c.processing_details ? 'deleted_at' THEN NULL
                             ELSE c.source_url END,
           -- As the law would set them; what it would let pass does not go through its function then.
           version = c.version + 1, updated_at = greatest(clock_timestamp(), c.updated_at)
      FROM locked m, leader
     WHERE c.id = m.clip_id AND c.status = m.from_status AND c.attempt = m.from_attempt
    RETURNING c.id, c.progress, m.signal_ids
), cleared AS (
    DELETE FROM clip_signals WHERE id = ANY(ARRAY(SELECT unnest(signal_ids::bigint[]) FROM moved))
), written AS (
    INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, progress, source, details)
    SELECT moved.id, e.kind, e.attempt, e.from_status, e.to_status, moved.progress, e.source, e.details
      FROM jsonb_to_recordset($17::jsonb) AS e(
           n bigint, clip_id text, kind text, attempt integer, from_status text, to_status text, source text,
           details jsonb)
      JOIN moved ON moved.id = e.clip_id
     ORDER BY e.n
)
SELECT (SELECT count(*) FROM leader) AS leaders, ARRAY(SELECT id FROM moved) AS ids
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line for the history."""

    kind: str
    attempt: int
    from_status: str | None
    to_status: str | None
    source: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one clip: where it goes (or stays), what is known now, when to look again.

    *judged* counts the outside requests this settles, *signal_ids* all signals; *cleared* names details to drop;
    *tries* is None where the count of failed tries stays what it is.
    """

    clip_id: str
    before: Position
    after: Position
    seen_look_at: datetime | None
    look_at: datetime | None
    tries: int | None
    judged: int = 0
    signal_ids: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    cleared: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()

    @property
    def changes_status(self) -> bool:
        """Whether the clip goes anywhere."""
        return (self.before.status, self.before.attempt) != (self.after.status, self.after.attempt)


async def write_moves(connection: asyncpg.Connection, term: Term, moves: Sequence[Move]) -> set[str]:
    """Write *moves* and tell listeners; the ids of the clips written. Must run in a transaction.

    A clip that stands elsewhere by now, or is held by somebody, is left alone: it will be looked at again.

    Raises:
        LeadershipLost: the epoch is over; nothing was written.
    """
    row = await connection.fetchrow(
        _WRITE, term.holder, term.epoch, *zip(*map(_columns, moves), strict=True), json.dumps(_entries(moves))
    )
    if not row["leaders"]:
        raise LeadershipLost(f"epoch {term.epoch} is over")
    await notify_changed(connection, row["ids"])
    return set(row["ids"])


async def notify_changed(connection: asyncpg.Connection, clip_ids: Sequence[str]) -> None:
    """Tell the web processes which clips changed, when the transaction commits."""
    for start in range(0, len(clip_ids), _IDS_PER_NOTIFICATION):
        payload = ",".join(clip_ids[start : start + _IDS_PER_NOTIFICATION])
        await connection.execute("SELECT pg_notify($1, $2)", CHANGED_CHANNEL, payload)


def _columns(move: Move) -> tuple[Any, ...]:
    """What the statement takes of one move, in the order of its parameters."""
    before, after = move.before, move.after
    return (
        move.clip_id,
        before.status,
        before.attempt,
        move.seen_look_at,
        after.status,
        after.attempt,
        after.progress,
        move.look_at,
        move.tries,
        move.judged,
        json.dumps(dict(move.facts)) if move.facts else "{}",
        json.dumps(dict(move.details)) if move.details else "{}",
        f"{{{','.join(move.cleared)}}}",
        f"{{{','.join(map(str, move.signal_ids))}}}",
    )


def _entries(moves: Sequence[Move]) -> list[dict[str, Any]]:
    return [
        {
            "n": n,
            "clip_id": move.clip_id,
            "kind": entry.kind,
            "attempt": entry.attempt,
            "from_status": entry.from_status,
            "to_status": entry.to_status,
            "source": entry.source,
            "details": entry.details,
        }
        for move in moves
        for n, entry in enumerate(move.entries)
    ]
