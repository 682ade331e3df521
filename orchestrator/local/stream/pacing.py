"""Work made visible: a fraction that follows the work and takes at least the time it was given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Ten looks at a step are enough for a person; the bounds keep short steps cheap and long ones alive.
_LOOKS = 10
_SHORTEST_TICK_SECONDS = 0.01
_LONGEST_TICK_SECONDS = 0.5


class Fraction:
    """How much of some work is done, 0 to 1; told by the work, read by whoever shows it."""

    def __init__(self, of_seconds: float | None = None) -> None:
        self._of_seconds = of_seconds
        self.done = 0.0

    def reached(self, seconds: float) -> None:
        """The work has come *seconds* far into the whole."""
        if self._of_seconds:
            self.done = max(self.done, min(1.0, seconds / self._of_seconds))


async def paced(
    work: Coroutine[Any, Any, T], fraction: Fraction, dwell_seconds: float, show: Callable[[float], None]
) -> T:
    """The result of *work*, not sooner than *dwell_seconds*; *show* is told a growing fraction meanwhile."""
    started = time.monotonic()
    tick = min(_LONGEST_TICK_SECONDS, max(_SHORTEST_TICK_SECONDS, dwell_seconds / _LOOKS))
    task = asyncio.ensure_future(work)
    try:
        while True:
            elapsed = time.monotonic() - started
            share = min(1.0, elapsed / dwell_seconds) if dwell_seconds > 0 else 1.0
            if task.done():
                result = task.result()
                if share >= 1:
                    return result
                fraction.done = 1.0
            show(min(fraction.done, share))
            if task.done():
                await asyncio.sleep(tick)
            else:
                await asyncio.wait({task}, timeout=tick)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def nothing() -> None:
    """Work that is already done: what remains is the dwelling."""
