"""Wake-ups: a hint that something is pending. A lost one costs a second, never a clip.

They are sent apart from the signal's own transaction and coalesced: a commit that notifies takes a lock on
the whole database, and one hint for fifty signals says as much as fifty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

# To the monitor: signals are pending. No payload; it takes all there are.
WAKE_CHANNEL = "orchestrator_wake"
# From the monitor: clips have changed; the payload is their ids, separated by commas.
CHANGED_CHANNEL = "orchestrator_changed"


_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


async def wake(connection: asyncpg.Connection) -> None:
    """Hint that signals are pending; call it after the signal's commit."""
    await connection.execute(f"NOTIFY {WAKE_CHANNEL}")


class WakeUps:
    """Sends at most one hint per *interval_seconds*, however often it is asked to.

    The first goes out at once. The default, 25 ms, is far below what a person can notice and turns a thousand
    signals a second into forty hints: each makes the monitor look, and five times as many cost a seventh more
    processor time for each signal (measured at 200 a second).
    """

    def __init__(self, send: Callable[[], Awaitable[None]], interval_seconds: float = 0.025) -> None:
        self._send = send
        self._interval_seconds = interval_seconds
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def wake(self) -> None:
        """Ask for a hint; returns at once."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="wake-ups")
        else:
            self._again = True

    async def close(self) -> None:
        """Wait for the hint under way, a second at most: a hint is never worth more."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=1)
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            self._again = False
            try:
                await self._send()
            except _LOST:
                return  # the monitor's sweep finds the signal
            await asyncio.sleep(self._interval_seconds)
            if not self._again:
                return
