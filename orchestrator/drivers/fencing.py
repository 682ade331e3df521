"""The last question before something is changed outside: may whoever asked for it still do so?

A process that was stopped between its decision and its call goes on where it was, long after another one has taken
over. No service outside knows our epochs, so the process itself asks its own clock, as the last thing before a
request leaves: that closes all of the window but the request's own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FENCE: ContextVar[Callable[[], None] | None] = ContextVar("fence", default=None)


@contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """Inside the block, and in tasks begun there, *check* is called before each change; it raises to prevent it."""
    token = _FENCE.set(check)
    try:
        yield
    finally:
        _FENCE.reset(token)


def refuse_when_over() -> None:
    """Raise what the block's check raises; nothing outside of any block."""
    check = _FENCE.get()
    if check is not None:
        check()
