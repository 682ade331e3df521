"""The last question before something is changed outside: may whoever asked for it still do so?

A process that was stopped between its decision and its call goes on where it was, long after another one has taken
over. No service outside knows our epochs, so the process itself asks its own clock, as the last thing before a
request leaves: that closes all of the window but the request's own way. While one is on its way, whoever began it can
see so (`Fence.is_passed`), and need not make room for another one before it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Fence:
    """What stands around one piece of work; *check* raises when nothing may be changed any more."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check
        self._on_their_way = 0

    @property
    def is_passed(self) -> bool:
        """Whether a request that changes something is on its way, so that nobody knows what it has come to."""
        return self._on_their_way > 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Let one request pass, unless *check* prevents it."""
        self.check()
        self._on_their_way += 1
        try:
            yield
        finally:
            self._on_their_way -= 1


_FENCE: ContextVar[Fence | None] = ContextVar("fence", default=None)


@contextmanager
def fenced(fence: Fence) -> Iterator[None]:
    """Inside the block, and in tasks begun there, each request that changes something passes *fence*."""
    token = _FENCE.set(fence)
    try:
        yield
    finally:
        _FENCE.reset(token)


@contextmanager
def changing() -> Iterator[None]:
    """The block sends a request that changes something, and hears its answer. Raises what the fence's check does."""
    fence = _FENCE.get()
    if fence is None:
        yield
        return
    with fence.passing():
        yield
