"""Reading what has been asked and not judged yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg


@dataclass(frozen=True, slots=True)
class PendingSignal:
    """One request that waits for the monitor."""

    requested_status: str
    attempt: int
    source: str
    at: datetime


async def read_pending(connection: asyncpg.Connection, clip_id: str) -> list[PendingSignal]:
    """The unjudged signals of a clip, oldest first; at most 1,000, the bound the table keeps."""
    rows = await connection.fetch(
        "SELECT requested_status, attempt, source, at FROM clip_signals WHERE clip_id = $1 ORDER BY id LIMIT 1000",
        clip_id,
    )
    return [PendingSignal(**row) for row in rows]
