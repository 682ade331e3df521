"""Notes each call to the provider about one video, beside the way: no call waits for it or fails because of it.

Notes gather in memory and are written together once a second; what is more than that holds, or cannot be written, is
lost. People read them on a clip's page; nothing decides by them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime

import asyncpg
import structlog

from orchestrator.beside import written_beside
from orchestrator.storage.provider_calls import keep_calls

log = structlog.get_logger(__name__)

# The provider's limit is four calls a second in the long run and the whole budget, a thousand, at once.
HELD_MAX = 1000
# Writing takes milliseconds; whoever works with the database has the first claim on its connections.
_WRITE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CallNote:
    """One try of one call; *try_number* counts from 1, *http_status* is None when no answer came."""

    cloudflare_uid: str
    at: datetime
    operation: str
    call_class: str
    try_number: int
    waited_ms: int
    took_ms: int
    http_status: int | None
    problem: str | None


class CallLog:
    """What was called since the last writing."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._held: deque[CallNote] = deque(maxlen=HELD_MAX)
        self._work = asyncio.Event()
        self._is_losing = False

    def note(self, call: CallNote) -> None:
        """Take *call* down; beyond what is held the oldest one gives way."""
        self._held.append(call)
        self._work.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[CallLog]:
        """Notes are written until the block ends, the last ones then."""
        async with written_beside("call log", self._work, self.write, _WRITE_SECONDS):
            yield self

    async def write(self, limit_seconds: float = _WRITE_SECONDS) -> None:
        """Write down what is noted; what cannot be written is lost, and said to be once until it works again."""
        if not self._held:
            return
        rows = [_row_of(call) for call in self._held]
        self._held.clear()
        try:
            async with asyncio.timeout(limit_seconds), self._pool.acquire() as connection:
                await keep_calls(connection, rows)
        except Exception as problem:
            # The edge of what nobody waits for: a note that cannot be written must not end the writing of others.
            if not self._is_losing:
                log.warning("notes on calls to the provider are lost", reason=type(problem).__name__)
            self._is_losing = True
        else:
            self._is_losing = False


def _row_of(call: CallNote) -> dict[str, object]:
    row = asdict(call)
    return row | {"at": call.at.isoformat(), "try": row.pop("try_number")}
