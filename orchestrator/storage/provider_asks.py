"""Notes of what the provider was asked to make, written before it is asked.

Whoever writes the first note knows that no process of ours has asked before, whatever became of it: so there is nothing
to look for. Whoever finds one has to look before asking again.
"""

from __future__ import annotations

from datetime import timedelta

import asyncpg

# A note is asked for while its clip is at the status that asks: three days without sight of it and some hours.
KEPT_FOR = timedelta(days=7)
# Rows a statement; the rest is dropped an hour later.
_FORGOTTEN_AT_ONCE = 50_000

_NOTE = "INSERT INTO provider_asks (clip_id, what) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true"
_FORGET = f"""
DELETE FROM provider_asks WHERE (clip_id, what) IN (
    SELECT clip_id, what FROM provider_asks WHERE asked_at < clock_timestamp() - $1::interval
     ORDER BY asked_at LIMIT {_FORGOTTEN_AT_ONCE})
"""


async def note_first_ask(connection: asyncpg.Connection, clip_id: str, what: str) -> bool:
    """Note that *what* is about to be asked for; whether it is certain that nobody has asked before."""
    return bool(await connection.fetchval(_NOTE, clip_id, what))


async def forget_asks(connection: asyncpg.Connection) -> None:
    """Drop the notes that are older than `KEPT_FOR`."""
    await connection.execute(_FORGET, KEPT_FOR)
