"""Who decides: a lease row with an epoch.

The database's clock says when a lease has run out; the holder trusts it by its own monotonic clock, counted
from the *start* of the renewal, so that it always gives up before another can take over. Every write carries
the epoch and is refused when it is over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg

from orchestrator.monitor.errors import LeadershipLost
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS

# A standby takes over within the lease plus one of its looks; three renewals fit into one lease.
LEASE_SECONDS = 10.0
RENEWAL_SECONDS = 3.0

# One's own lease may be taken before it has run out: who asks for a term has ended the one before, could perhaps not
# give it back as the database was away, or never heard that it had been given one. The new epoch ends the old one.
_TAKE = """
UPDATE monitor_lease
   SET holder = $1, epoch = epoch + 1, taken_at = clock_timestamp(), round_at = NULL,
       expires_at = clock_timestamp() + make_interval(secs => $2)
 WHERE expires_at < clock_timestamp() OR holder = $1
    OR expires_at > clock_timestamp() + make_interval(secs => $2 + 1)
RETURNING epoch
"""

_RENEW = """
UPDATE monitor_lease
   SET expires_at = clock_timestamp() + make_interval(secs => $3),
       round_at = CASE WHEN $4::float8 IS NULL THEN round_at ELSE clock_timestamp() - make_interval(secs => $4) END
 WHERE holder = $1 AND epoch = $2 AND expires_at > clock_timestamp()
RETURNING epoch
"""

_RELEASE = "UPDATE monitor_lease SET expires_at = '-infinity' WHERE holder = $1 AND epoch = $2"


@dataclass(frozen=True, slots=True)
class Term:
    """One turn of leadership."""

    holder: str
    epoch: int


class Lease:
    """This process's claim to lead. *monotonic* gives seconds."""

    def __init__(self, pool: asyncpg.Pool, monotonic: Callable[[], float]) -> None:
        # Random for each start: a name that a restarted process could share would look alive for ever.
        self._holder = secrets.token_hex(8)
        self._pool = pool
        self._monotonic = monotonic
        self._trusted_until = 0.0
        # Renewals that nobody waits for any more, until they have let go of their connection.
        self._given_up: set[asyncio.Task[Any]] = set()

    async def take(self) -> Term | None:
        """A new term when nobody else leads, else None; a former term of ours is over then."""
        started = self._monotonic()
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            # No longer than a renewal: an attempt that met an outage would prolong it.
            epoch = await connection.fetchval(_TAKE, self._holder, LEASE_SECONDS, timeout=RENEWAL_SECONDS)
        if epoch is None:
            return None
        self._trusted_until = started + LEASE_SECONDS
        return Term(self._holder, epoch)

    async def renew(self, term: Term, round_age_seconds: float | None) -> None:
        """Prolong the term, and tell how long ago the last round ended.

        Raises:
            LeadershipLost: the term is over.
            TimeoutError: no answer in time to try once more, or to give way, while the lease can be trusted.
        """
        started = self._monotonic()
        limit_seconds = min(RENEWAL_SECONDS, max(self.remaining_seconds / 2, 0.1))
        kept = await self._within(limit_seconds, self._ask_to_renew(term, round_age_seconds))
        if kept is None:
            raise LeadershipLost(f"epoch {term.epoch} is over")
        self._trusted_until = started + LEASE_SECONDS

    async def _ask_to_renew(self, term: Term, round_age_seconds: float | None) -> int | None:
        async with self._pool.acquire(timeout=RENEWAL_SECONDS) as connection:
            epoch: int | None = await connection.fetchval(
                _RENEW, term.holder, term.epoch, LEASE_SECONDS, round_age_seconds, timeout=RENEWAL_SECONDS
            )
        return epoch

    async def _within(self, seconds: float, question: Coroutine[Any, Any, int | None]) -> int | None:
        """The answer, or TimeoutError at that time and no later.

        A task of its own: giving a connection back to a peer that is gone takes seconds too, and the lease runs on.
        """
        task = asyncio.create_task(question, name="renewal")
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done():
                return task.result()
            raise TimeoutError
        finally:
            if not task.done():
                self._given_up.add(task)
                task.add_done_callback(self._let_go)
                task.cancel()

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it; it has been told by TimeoutError

    @property
    def remaining_seconds(self) -> float:
        """How long the term can be trusted without a further renewal; negative when it cannot."""
        return self._trusted_until - self._monotonic()

    async def release(self, term: Term) -> None:
        """Let another lead at once; harmless when the term is over."""
        async with self._pool.acquire(timeout=RENEWAL_SECONDS) as connection:
            await connection.execute(_RELEASE, term.holder, term.epoch, timeout=RENEWAL_SECONDS)
