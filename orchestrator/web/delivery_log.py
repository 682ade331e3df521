"""Notes what became of each notification, beside the way: no notification waits for it or fails because of it.

Notes gather in memory, repeats as one, and are written together once a second. What is more than a second may hold
is counted and not kept; so is everything whose signature is wrong, since strangers can send that without end.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from aiohttp import web

from orchestrator.beside import written_beside
from orchestrator.drivers.cloudflare_models import Video
from orchestrator.storage.deliveries import Outcome, Signature, count_refusals, forget_deliveries, keep_deliveries
from orchestrator.web.redaction import body_to_keep, without_addresses
from orchestrator.web.refusals import Seldom

log = structlog.get_logger(__name__)

# More than a large account sends in a second, and few enough for a flood to cost next to nothing. With bodies of 64 KiB
# it would be 3 MB for that second.
HELD_MAX = 50
# The reasons are words of this program; should one be made of something else some day, it stays bounded.
_REASONS_MAX = 32
# Writing takes milliseconds. A database that takes longer has other work to do.
_WRITE_SECONDS = 5.0
_FORGET_SECONDS = 10.0
# Bodies prepared before others get their turn again; one takes 30 µs.
_BETWEEN_TURNS = 20
_NOT_KEPT = "not-kept"


@dataclass(slots=True)
class _Held:
    raw: bytes
    video: Video
    received_at: datetime
    last_at: datetime
    times: int
    outcome: Outcome


class DeliveryLog:
    """What came since the last writing. *pool* acts as the role that may only ask."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._held: dict[tuple[str, bytes, Signature], _Held] = {}
        self._refused: dict[str, tuple[int, datetime]] = {}
        self._work = asyncio.Event()
        self._warnings = Seldom()
        self._forgot_at = float("-inf")

    def keep(self, raw: bytes, video: Video, signature: Signature, outcome: Outcome, at: datetime) -> None:
        """Note one that was really signed."""
        key = (video.uid, hashlib.sha256(raw).digest(), signature)
        held = self._held.get(key)
        if held is not None:
            held.times, held.last_at, held.outcome = held.times + 1, at, outcome
        elif len(self._held) < HELD_MAX:
            self._held[key] = _Held(raw, video, at, at, 1, outcome)
        else:
            self.count(_NOT_KEPT, at)
        self._work.set()

    def count(self, reason: str, at: datetime) -> None:
        """Note that one was refused, or not kept, and why."""
        if reason in self._refused or len(self._refused) < _REASONS_MAX:
            self._refused[reason] = (self._refused.get(reason, (0, at))[0] + 1, at)
        self._work.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[DeliveryLog]:
        """Notes are written until the block ends, the last ones then."""
        async with written_beside("delivery log", self._work, self.write, _WRITE_SECONDS):
            yield self

    async def write(self, limit_seconds: float = _WRITE_SECONDS) -> None:
        """Write down what is noted; what cannot be written is lost, and said to be."""
        held, self._held = self._held, {}
        refused, self._refused = self._refused, {}
        if not held and not refused:
            return
        try:
            rows = await _rows_of(held)
            async with asyncio.timeout(limit_seconds), self._pool.acquire() as connection:
                if rows:
                    await keep_deliveries(connection, rows)
                if refused:
                    counts = [
                        {"reason": reason, "times": times, "last_at": last_at.isoformat()}
                        for reason, (times, last_at) in sorted(refused.items())
                    ]
                    await count_refusals(connection, counts)
                now = asyncio.get_running_loop().time()
                if now - self._forgot_at > _FORGET_SECONDS:
                    self._forgot_at = now
                    await forget_deliveries(connection)
        except Exception as problem:
            # The edge of what nobody waits for: a note that cannot be written must not end the writing of others.
            self._tell_lost(len(held), problem)

    def _tell_lost(self, count: int, problem: Exception) -> None:
        unlogged = self._warnings.passes()
        if unlogged is not None:
            reason = type(problem).__name__
            log.warning("notes on notifications were lost", notes=count, reason=reason, unlogged_before=unlogged)


async def _rows_of(held: dict[tuple[str, bytes, Signature], _Held]) -> list[dict[str, Any]]:
    rows = []
    for number, ((uid, digest, signature), each) in enumerate(held.items(), 1):
        rows.append(
            {
                "cloudflare_uid": uid,
                "received_at": each.received_at.isoformat(),
                "last_at": each.last_at.isoformat(),
                "times": each.times,
                "signature": signature,
                "state": without_addresses(each.video.state_raw[:100])[:100],
                "outcome": each.outcome,
                "size_bytes": len(each.raw),
                "digest": digest.hex(),
                "body": body_to_keep(each.raw, each.video),
            }
        )
        if number % _BETWEEN_TURNS == 0:
            await asyncio.sleep(0)
    return rows


DELIVERY_LOG: web.AppKey[DeliveryLog] = web.AppKey("delivery-log", DeliveryLog)
