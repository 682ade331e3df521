"""What callers have in common who wait for a statement that they share: a bound to their number, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


class TooManyWaiting(Exception):
    """More wait for the database than are taken; nothing was done for this one."""


def fail(outcomes: Iterable[asyncio.Future[Any]], problem: BaseException) -> None:
    """Tell *problem* to all who still wait; a cancellation cancels them."""
    for outcome in outcomes:
        if outcome.done():
            continue
        if isinstance(problem, asyncio.CancelledError):
            outcome.cancel()
        else:
            outcome.set_exception(problem)
