"""Memory that nothing uses goes back to the system, also where the C library would keep it.

What a socket reads is allocated at the size of the largest read and cut down to what came. Between the pieces that
live on, holes of some hundred kilobytes remain, which glibc keeps for itself: a busy process grows for hours though it
uses no more than at its start. See decision 0019.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from orchestrator.beside import rounds_beside

# A trim walks the free lists and takes a few milliseconds of the loop; holes grow by megabytes in ten minutes.
TRIM_SECONDS = 60.0


@asynccontextmanager
async def unused_memory_returned(every_seconds: float = TRIM_SECONDS) -> AsyncIterator[None]:
    """Hand free memory back every so many seconds, for the length of the block; nothing where there is no glibc."""
    trim = _find_trim()
    if trim is None:
        yield
        return

    async def wait_and_trim() -> None:
        await asyncio.sleep(every_seconds)
        trim(0)

    async with rounds_beside("memory", wait_and_trim):
        yield


def _find_trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; None with another C library, or with a Python that cannot call one."""
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        return ctypes.CDLL(None).malloc_trim
    return None
