"""Blocking calls of a library, a few at a time, each in a thread that cannot hold up the end of the process.

The standard pool is not used because its threads are joined at interpreter exit: one call
hanging in a read would delay a stop by its whole time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class BoundedThreads:
    """At most *count* calls at once; a call that was given up still holds its place until it ends."""

    def __init__(self, count: int, name: str) -> None:
        self._places = asyncio.Semaphore(count)
        self._name = name

    async def run(self, call: Callable[[], T]) -> T:
        """What *call* returns or raises. Cancelling stops the waiting, not the call."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def hand_over(set_outcome: Callable[[], None]) -> None:
            self._places.release()
            if not outcome.done():
                set_outcome()

        def work() -> None:
            try:
                result = call()
            except BaseException as exc:  # whatever it is, the waiting side gets it
                failure = exc
                _post(loop, lambda: hand_over(lambda: outcome.set_exception(failure)))
            else:
                _post(loop, lambda: hand_over(lambda: outcome.set_result(result)))

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:  # no more threads to be had
            self._places.release()
            raise
        return await outcome


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
        loop.call_soon_threadsafe(callback)
