"""Writing beside the way: what may be lost gathers in memory and is written together, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

# One statement a second, whatever comes; a person who looks does not notice.
GATHER_SECONDS = 1.0
# Of the ten seconds in which a stop must end; giving a dead connection back takes another second.
LAST_WRITE_SECONDS = 0.3


@asynccontextmanager
async def written_beside(
    name: str, work: asyncio.Event, write: Callable[[float], Awaitable[None]], limit_seconds: float
) -> AsyncIterator[None]:
    """*write* within *limit_seconds*, once a second at most, whenever there is *work*; a last time when the block ends.

    It may not raise. *name* is the task's.
    """

    async def again_and_again() -> None:
        while True:
            await work.wait()
            await asyncio.sleep(GATHER_SECONDS)
            work.clear()
            await write(limit_seconds)

    task = asyncio.create_task(again_and_again(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await write(LAST_WRITE_SECONDS)
