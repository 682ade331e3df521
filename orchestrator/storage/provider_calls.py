"""The calls to the provider about one video, for people: written in batches, bounded, missed by nobody when lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

# What a page shows of one video.
SHOWN = 50
# Some megabytes; a busy account makes as many in two hours.
KEPT = 20_000
# Of one sweep, which comes with each writing of a thousand at most.
_SWEPT = 2_000

_KEEP = """
INSERT INTO provider_calls (cloudflare_uid, at, operation, call_class, try, waited_ms, took_ms, http_status, problem)
SELECT cloudflare_uid, at, operation, call_class, try, waited_ms, took_ms, http_status, problem
  FROM jsonb_to_recordset($1::jsonb) AS f(
       cloudflare_uid text, at timestamptz, operation text, call_class text, try integer, waited_ms integer,
       took_ms integer, http_status integer, problem text)
"""
# forget_calls: all but the newest, by the order in which they were written. An array, so that the rows are found by
# their ids whatever the planner thinks of their number.
_FORGET = f"""
DELETE FROM provider_calls WHERE id = ANY (ARRAY(
    SELECT id FROM provider_calls WHERE id <= (SELECT max(id) FROM provider_calls) - {KEPT} ORDER BY id LIMIT {_SWEPT}))
"""


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One try of one call; *http_status* is None when no answer came, *problem* when nothing was wrong."""

    at: datetime
    operation: str
    call_class: str
    attempt: int
    waited_ms: int
    took_ms: int
    http_status: int | None
    problem: str | None


async def keep_calls(connection: asyncpg.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write *rows* down, and forget the oldest beyond what is kept."""
    await connection.execute(_KEEP, json.dumps(list(rows)))
    await connection.execute(_FORGET)


async def read_calls(connection: asyncpg.Connection, uid: str) -> list[MadeCall]:
    """The last calls about the video *uid*, newest first."""
    rows = await connection.fetch(
        "SELECT at, operation, call_class, try AS attempt, waited_ms, took_ms, http_status, problem"
        f" FROM provider_calls WHERE cloudflare_uid = $1 ORDER BY id DESC LIMIT {SHOWN}",
        uid,
    )
    return [MadeCall(**row) for row in rows]
