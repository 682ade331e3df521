"""A session that has the API's rights and means harm: it holds, waits, floods and fills whatever it may."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from signals import WAKE_CHANNEL

# The longest payload that PostgreSQL takes.
_PAYLOADS = ("", "junk", "a,b,,,;\\u0000 <script>", "x" * 7_999)
_ADVISORY_LOCKS = 1000


class Hostile:
    """What it has done; see `hostility`."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.held_rows = 0
        self.notified = 0
        self.advisory_locks = 0
        self.filled_bytes = 0
        self.pending = 0


@asynccontextmanager
async def hostility(open_session: Any, victims: Sequence[str]) -> AsyncIterator[Hostile]:
    """Harm as much as one may, until the block ends. *victims* are clips it holds and fills."""
    did = Hostile()
    holder, flooder = await open_session(), await open_session()
    for connection in (holder, flooder):
        # Its role's limits are only its own defaults.
        await connection.execute(
            "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = 0"
        )
    await _fill(flooder, victims, did)
    await _hold(holder, victims, did)
    flood = asyncio.create_task(_flood(flooder, did))
    try:
        yield did
    finally:
        flood.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flood
        for connection in (holder, flooder):
            connection.terminate()


async def _fill(connection: Any, victims: Sequence[str], did: Hostile) -> None:
    """A document as large as it may be, and as many signals as may wait."""
    size = 32_768
    while size >= 16:
        try:
            filling = json.dumps({f"fill{size}-{did.filled_bytes}": "x" * size})
            statement = "UPDATE clips SET processing_details = processing_details || $2::jsonb WHERE id = $1"
            await connection.execute(statement, victims[0], filling)
            did.filled_bytes += size
        except asyncpg.CheckViolationError:
            size //= 2
    await connection.execute(
        "DO $$ BEGIN FOR n IN 1..1000 LOOP UPDATE clips SET processing_details = processing_details ||"
        " jsonb_build_object('requested_status', 'complete', 'status_request_time', n)"
        f" WHERE id = '{victims[1]}'; END LOOP; END $$"
    )
    did.pending = await connection.fetchval("SELECT pending FROM clips WHERE id = $1", victims[1])


async def _hold(connection: Any, victims: Sequence[str], did: Hostile) -> None:
    """Rows and advisory locks, in a transaction that is never ended; the lease's row, if it may."""
    for attempt in (
        "SELECT FROM monitor_lease FOR UPDATE",
        "SELECT FROM monitor_lease FOR KEY SHARE",
        "LOCK TABLE monitor_lease IN EXCLUSIVE MODE",
        "LOCK TABLE clips IN EXCLUSIVE MODE",
        "LOCK TABLE clip_signals IN ROW EXCLUSIVE MODE",
    ):
        try:
            async with connection.transaction():
                await connection.execute(attempt)
        except asyncpg.InsufficientPrivilegeError:
            did.refused.append(attempt)
    await connection.execute("BEGIN")
    rows = await connection.fetch("SELECT id FROM clips WHERE id = ANY($1) FOR UPDATE", list(victims))
    did.held_rows = len(rows)
    await connection.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, $1::bigint) AS n", _ADVISORY_LOCKS)
    await connection.execute("SELECT count(*) FROM clips")  # a snapshot, and idle from here on
    did.advisory_locks = _ADVISORY_LOCKS


async def _flood(connection: Any, did: Hostile) -> None:
    for payload in itertools.cycle(_PAYLOADS):
        await connection.execute("SELECT pg_notify($1, $2) FROM generate_series(1, 20)", WAKE_CHANNEL, payload)
        did.notified += 1
