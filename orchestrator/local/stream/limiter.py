"""The API's rate limit: so many calls a window, and silence for a whole block once it is passed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """The answer to one call: refused when *retry_after_seconds* is set."""

    remaining: int
    reset_seconds: float
    retry_after_seconds: float | None = None


class RateLimiter:
    """Counts the calls of one token in windows that begin with its first call."""

    def __init__(self, count: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._window_seconds = window_seconds
        self._clock = clock
        self._used = 0
        self._window_ends_at = 0.0
        self._blocked_until = 0.0

    def take(self) -> Allowance:
        """Count one call. The call that passes the limit begins a block as long as a window."""
        now = self._clock()
        if now < self._blocked_until:
            return self._refusal(now)
        if now >= self._window_ends_at:
            self._used, self._window_ends_at = 0, now + self._window_seconds
        self._used += 1
        if self._used > self._count:
            self._blocked_until = now + self._window_seconds
            return self._refusal(now)
        return Allowance(self._count - self._used, self._window_ends_at - now)

    def reset(self) -> None:
        """Forget all calls and any block."""
        self._used, self._window_ends_at, self._blocked_until = 0, 0.0, 0.0

    def headers(self, allowance: Allowance) -> dict[str, str]:
        """`Ratelimit`, `Ratelimit-Policy` and, on a refusal, `Retry-After`; seconds are rounded up."""
        reset = math.ceil(allowance.reset_seconds)
        headers = {
            "Ratelimit": f'"default";r={allowance.remaining};t={reset}',
            "Ratelimit-Policy": f'"default";q={self._count};w={math.ceil(self._window_seconds)}',
        }
        if allowance.retry_after_seconds is not None:
            headers["Retry-After"] = str(math.ceil(allowance.retry_after_seconds))
        return headers

    def _refusal(self, now: float) -> Allowance:
        # After the block a fresh window begins.
        self._window_ends_at = self._blocked_until
        left = self._blocked_until - now
        return Allowance(0, left, left)
