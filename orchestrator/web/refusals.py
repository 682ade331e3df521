"""Warnings that strangers can cause at will: told at once, then counted, so that a flood does not fill the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

# A flood of a week leaves sixty thousand lines, and a person who looks still sees it within moments.
_PAUSE_SECONDS = 10.0


class Seldom:
    """Lets one through at a time, and the next only after a pause."""

    def __init__(self, pause_seconds: float = _PAUSE_SECONDS, clock: Callable[[], float] = monotonic) -> None:
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._next_at = float("-inf")
        self._held_back = 0

    def passes(self) -> int | None:
        """How many were held back since the last that passed; None if this one is held back, too."""
        now = self._clock()
        if now < self._next_at:
            self._held_back += 1
            return None
        held_back, self._held_back = self._held_back, 0
        self._next_at = now + self._pause_seconds
        return held_back


class Refusals:
    """What the process has to say of refused calls; the figures count every one of them."""

    def __init__(self) -> None:
        self._events: dict[str, Seldom] = {}

    def warn(self, event: str, **facts: Any) -> None:
        """Log *event*, a constant of this program, unless the same was logged a moment ago."""
        unlogged = self._events.setdefault(event, Seldom()).passes()
        if unlogged is not None:
            log.warning(event, **facts, unlogged_before=unlogged)


class UnreadableCalls(logging.Filter):
    """For the HTTP library's log: what it could not read may hold a token, and anybody can send it without end.

    That it came, and from where, is enough; and now and then is often enough.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seldom = Seldom()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written, stripped of what was sent."""
        record.exc_info = record.exc_text = None
        return self._seldom.passes() is not None


REFUSALS: web.AppKey[Refusals] = web.AppKey("refusals", Refusals)
