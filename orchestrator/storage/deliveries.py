"""Notifications as they came: kept for people, bounded in number, size and age; nothing decides by them.

What strangers can send without end is counted by hour and reason; what was really signed is a row of its clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg

Signature = Literal["valid", "stale"]
Outcome = Literal["recorded", "ignored", "refused"]

# A clip has about five notifications in its life; the others are repeats and what somebody replayed.
KEPT_PER_CLIP = 20
# Half a gigabyte at the usual two kilobytes, however many clips there are.
KEPT_IN_ALL = 200_000
KEPT_DAYS = 30
# Of one sweep: more than a flood brings between two of them, and gone in a moment.
_SWEPT = 2_000

# keep_deliveries: of videos that are ours, in one order so that two processes never wait for each other;
# one row however often a body came with the same verdict on its signature
_KEEP = """
INSERT INTO webhook_deliveries AS d
       (clip_id, cloudflare_uid, received_at, last_at, times, signature, state, outcome, size_bytes, body_sha256, body)
SELECT c.id, cloudflare_uid, received_at, last_at, times, signature, state, outcome, size_bytes,
       decode(digest, 'hex'), body
  FROM jsonb_to_recordset($1::jsonb) AS f(
       cloudflare_uid text, received_at timestamptz, last_at timestamptz, times integer, signature text,
       state text, outcome text, size_bytes integer, digest text, body text)
  JOIN clips AS c USING (cloudflare_uid)
 ORDER BY c.id, digest, signature
    ON CONFLICT (clip_id, body_sha256, signature) DO UPDATE
   SET times = d.times + excluded.times, last_at = greatest(d.last_at, excluded.last_at), outcome = excluded.outcome
RETURNING clip_id
"""
# trim_deliveries: of these clips the newest stay
_TRIM = f"""
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY clip_id ORDER BY received_at DESC, id DESC) AS place
                      FROM webhook_deliveries WHERE clip_id = ANY ($1::text[])) AS ranked
     WHERE place > {KEPT_PER_CLIP})
"""
# forget_deliveries: what is too old, or more than is kept in all. An array, so that the rows are found by their ids
# whatever the planner thinks of their number, and now(), which an index can be asked for.
_FORGET = f"""
DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
    (SELECT id FROM webhook_deliveries WHERE last_at < now() - interval '{KEPT_DAYS} days'
      ORDER BY last_at LIMIT {_SWEPT})
    UNION ALL
    (SELECT id FROM webhook_deliveries
      WHERE id <= (SELECT id FROM webhook_deliveries ORDER BY id DESC OFFSET {KEPT_IN_ALL} LIMIT 1)
      ORDER BY id LIMIT {_SWEPT})))
"""
# count_refusals: in the order of the reasons, so that two processes never wait for each other
_COUNT = """
INSERT INTO webhook_refusals AS r (hour, reason, times, last_at)
SELECT date_trunc('hour', last_at, 'UTC'), reason, times, last_at
  FROM jsonb_to_recordset($1::jsonb) AS f(reason text, times bigint, last_at timestamptz)
 ORDER BY 1, 2
    ON CONFLICT (hour, reason) DO UPDATE SET times = r.times + excluded.times,
       last_at = greatest(r.last_at, excluded.last_at)
"""
_FORGET_REFUSALS = f"DELETE FROM webhook_refusals WHERE hour < now() - interval '{KEPT_DAYS} days'"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notification of a clip; *times* it came, first at *received_at*, *body* is what was kept of it."""

    id: int
    cloudflare_uid: str
    received_at: datetime
    last_at: datetime
    times: int
    signature: Signature
    state: str | None
    outcome: Outcome
    size_bytes: int
    body: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """How often notifications were refused for one reason within a day."""

    reason: str
    times: int
    last_at: datetime


async def keep_deliveries(connection: asyncpg.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Keep *rows*, no two of them alike in uid, digest and signature, and of each clip no more than is kept."""
    kept = await connection.fetch(_KEEP, json.dumps(list(rows)))
    if kept:
        await connection.execute(_TRIM, sorted({row["clip_id"] for row in kept}))


async def count_refusals(connection: asyncpg.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add *rows* (reason, times, last_at) to the counts of their hours."""
    await connection.execute(_COUNT, json.dumps(list(rows)))


async def forget_deliveries(connection: asyncpg.Connection) -> None:
    """Forget what is too old or too many."""
    await connection.execute(_FORGET)
    await connection.execute(_FORGET_REFUSALS)


_READ = (
    "SELECT id, cloudflare_uid, received_at, last_at, times, signature, state, outcome, size_bytes, body"
    " FROM webhook_deliveries WHERE clip_id = $1"
)


async def read_deliveries(connection: asyncpg.Connection, clip_id: str) -> list[Delivery]:
    """The kept notifications of a clip, newest first."""
    rows = await connection.fetch(f"{_READ} ORDER BY received_at DESC, id DESC LIMIT {KEPT_PER_CLIP}", clip_id)
    return [Delivery(**row) for row in rows]


async def read_delivery(connection: asyncpg.Connection, clip_id: str, delivery_id: int) -> Delivery | None:
    """One of them, or None when it is not kept (any more)."""
    row = await connection.fetchrow(f"{_READ} AND id = $2", clip_id, delivery_id)
    return Delivery(**row) if row else None


async def read_refusals(connection: asyncpg.Connection) -> list[Refusal]:
    """What was refused within the last day, the most frequent reason first."""
    rows = await connection.fetch(
        "SELECT reason, sum(times)::bigint AS times, max(last_at) AS last_at FROM webhook_refusals"
        " WHERE hour > now() - interval '24 hours' GROUP BY reason ORDER BY 2 DESC, 1"
    )
    return [Refusal(**row) for row in rows]
