"""Background work, one task a key: started, cancelled and waited for by name."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Tasks:
    """Running tasks by key. A failure nobody expected is logged, never lost."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, key: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* under *key*; a key that is already running keeps its task."""
        if key in self._running:
            work.close()
            return
        task = asyncio.create_task(work)
        self._running[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    async def cancel(self, key: Hashable) -> None:
        """Stop the work under *key* and wait until it has ended."""
        task = self._running.get(key)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Stop everything."""
        for key in list(self._running):
            self._running[key].cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _ended(self, key: Hashable, task: asyncio.Task[None]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("Background work failed", key=str(key), exc_info=exc)
