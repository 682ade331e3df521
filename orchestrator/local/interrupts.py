"""Being asked to stop, and being asked again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

# A closed terminal asks, too.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered: the first signal sets *stop*, the second one *at_once*."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()

    def __enter__(self) -> Interrupts:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def ask(self) -> None:
        """What a signal does."""
        if self.stop.is_set():
            self.at_once.set()
        self.stop.set()


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """True when *work* came to its end; False when *event* came first, and *work* was cancelled and has ended."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        finished = working.done()
        if finished:
            await working
        return finished
    finally:
        for task in (working, waiting):
            task.cancel()
        if not working.done():
            with contextlib.suppress(asyncio.CancelledError):
                await working
