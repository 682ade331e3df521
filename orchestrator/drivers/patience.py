"""How calls that are safe to repeat are repeated: a few times, further and further apart.

A service that names a time is obeyed when the time is short; a long one is for the caller,
who can do something else meanwhile.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from orchestrator.drivers.errors import TransientError

#: A named wait above this is handed to the caller instead of being slept through.
LONGEST_NAMED_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how slowly: five tries from half a second up wait about eight seconds in all.

    That outlasts a restart or a burst of 503; anything longer is the business of whoever asked.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 8.0

    def retrying(self, *never: type[TransientError]) -> AsyncRetrying:
        """A fresh loop that repeats on TransientError, but not on the kinds in *never*, and re-raises the last."""

        def has_ended(state: RetryCallState) -> bool:
            failure = _failure(state)
            if state.attempt_number >= self.attempts or isinstance(failure, never):
                return True
            return _named_wait_seconds(failure) > LONGEST_NAMED_WAIT_SECONDS

        return AsyncRetrying(
            retry=retry_if_exception_type(TransientError), stop=has_ended, wait=self._wait_seconds, reraise=True
        )

    def _wait_seconds(self, state: RetryCallState) -> float:
        doubled = self.first_wait_seconds * 2.0 ** (state.attempt_number - 1)
        # Spread over the upper half, so that many clips do not come back at once.
        spread = min(self.longest_wait_seconds, doubled) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret is made)
        return max(spread, _named_wait_seconds(_failure(state)))


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _named_wait_seconds(failure: BaseException | None) -> float:
    return (failure.retry_after or 0.0) if isinstance(failure, TransientError) else 0.0
