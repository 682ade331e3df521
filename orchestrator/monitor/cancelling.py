"""Telling a cancellation that is meant from one that a library let escape.

A task that ends by somebody else's CancelledError looks as if it had been stopped, and nobody is told of it.
"""

from __future__ import annotations

import asyncio


def is_being_cancelled() -> bool:
    """Whether somebody has asked the running task to stop."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
