"""Moving progress while bytes move: once a second, all running effects in one statement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import notify_changed
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from statusutils import scale_progress, table_for

_TICK = """
WITH leader AS MATERIALIZED (
    SELECT epoch FROM monitor_lease WHERE holder = $1 AND epoch = $2 FOR SHARE
), told AS (
    SELECT * FROM jsonb_to_recordset($3::jsonb) AS m(clip_id text, attempt integer, status text, progress numeric)
), locked AS MATERIALIZED (
    SELECT id FROM clips WHERE id IN (SELECT clip_id FROM told) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE clips c SET progress = m.progress, epoch = leader.epoch
  FROM told m JOIN locked ON locked.id = m.clip_id, leader
 WHERE c.id = m.clip_id AND c.attempt = m.attempt AND c.status = m.status AND c.progress < m.progress
RETURNING c.id
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A running effect's own percentage (0-100) while its clip is at *status*."""

    pipeline: str
    status: str
    percent: float


async def write_progress(pool: asyncpg.Pool, term: Term, told: Mapping[tuple[str, int], Told]) -> None:
    """Write what running effects told, by (clip id, attempt)."""
    rows = [
        {
            "clip_id": clip_id,
            "attempt": attempt,
            "status": of.status,
            "progress": scale_progress(of.status, of.percent, table_for(of.pipeline)),
        }
        for (clip_id, attempt), of in told.items()
    ]
    if not rows:
        return
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection, connection.transaction():
        changed = await connection.fetch(_TICK, term.holder, term.epoch, json.dumps(rows))
        await notify_changed(connection, [row["id"] for row in changed])
