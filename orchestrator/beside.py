"""Work that goes on beside a block and that nobody waits for: in rounds, one after another, until the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger(__name__)

# One statement a second, whatever comes; a person who looks does not notice.
GATHER_SECONDS = 1.0
# Of the ten seconds in which a stop must end; giving a dead connection back takes another second.
LAST_WRITE_SECONDS = 0.3
# Until the round after one that broke: what breaks at once may fill neither the log nor a processor.
PAUSE_SECONDS = 5.0


@asynccontextmanager
async def rounds_beside(name: str, one_round: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """*one_round* again and again for the length of the block; when to begin is for the round itself to wait for.

    A round that breaks is logged under *name*, and the next one comes after a pause: nothing of this ends unseen.
    """
    task = asyncio.create_task(_again_and_again(name, one_round), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _again_and_again(name: str, one_round: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await one_round()
        except Exception:
            log.exception("work beside the way broke; it goes on", work=name)
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def written_beside(
    name: str, work: asyncio.Event, write: Callable[[float], Awaitable[None]], limit_seconds: float
) -> AsyncIterator[None]:
    """*write* within *limit_seconds*, once a second at most, whenever there is *work*; a last time when the block ends.

    What may be lost gathers in memory meanwhile, and is written together. *write* may not raise; *name* is the task's.
    """

    async def gather_and_write() -> None:
        await work.wait()
        await asyncio.sleep(GATHER_SECONDS)
        work.clear()
        await write(limit_seconds)

    try:
        async with rounds_beside(name, gather_and_write):
            yield
    finally:
        await write(LAST_WRITE_SECONDS)
