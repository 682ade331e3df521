"""The calls we may make to the provider: one budget for all processes, kept in PostgreSQL.

The provider counts the calls of everything that uses the account, people at its dashboard too, and answers one
call too many by refusing all of them for five minutes. So every call of ours first takes its place here. The
budget is a token bucket: `burst` calls at once, refilled at `rate`, and

    burst + rate * window <= share * limit

holds for any window, wherever it begins. One statement a take, by the database's clock.

Part of the bucket is kept for those who cannot wait: reconciling stops first, then progress, people last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import asyncpg
import structlog

from orchestrator.drivers import provider_metrics
from orchestrator.drivers.errors import DatabaseAwayError, TransientError
from orchestrator.drivers.rate_headers import policies, remaining_calls, retry_after_seconds
from orchestrator.storage.pool import DATABASE_AWAY

log = structlog.get_logger(__name__)

# How long the provider refuses every call after one too many, as its documentation has it.
BLOCK_SECONDS = 300.0
# A tenth of the limit at once: enough for a page full of people, little against the window.
_BURST_SHARE = 0.1
# A statement on one row by its key; slower than this, the database is in trouble and the call can wait.
_STATEMENT_TIMEOUT_SECONDS = 5.0
# Calls of one process that wait for their turn. Each waits max_wait_seconds at most, so more would only time out.
_LINE_MAX = 1000


class CallClass(Enum):
    """Who waits for a call, from the most to the least urgent."""

    PERSON = "person"
    PROGRESS = "progress"
    RECONCILE = "reconcile"


# The part of the bucket a class may not touch.
_KEPT_FOR_OTHERS = {CallClass.PERSON: 0.0, CallClass.PROGRESS: 0.1, CallClass.RECONCILE: 0.3}


class CallBudget(Protocol):
    """What a driver needs of a budget."""

    async def take(self, klass: CallClass, n: int = 1) -> None:
        """Return when *n* calls may be made now.

        Raises:
            TransientError: not within the time a call may wait; retry_after says when to come back.
            DatabaseAwayError: nothing can be counted now.
        """

    async def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Take in what an answer says about calls: 429 means that the provider refuses them all."""

    def headroom(self) -> float:
        """The share of the calls that may be made at once, 0 to 1, as far as this process knows."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """The provider's limit, and the share of it that is ours."""

    # 1,200 calls in 300 s per user or account token: the provider's documented limit.
    calls: int = 1200
    window_seconds: float = 300.0
    # The rest is for people at the dashboard and for what else uses the account.
    share: float = 0.85
    # Longer than this nobody holds a connection or a slot for a call: who waits comes back by himself.
    max_wait_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.calls < 1 or not self.window_seconds > 0 or not 0.2 <= self.share <= 1 or not self.max_wait_seconds > 0:
            raise ValueError("a budget needs calls, a window, a share from 0.2 to 1 and a time to wait")

    @property
    def burst(self) -> float:
        """Calls that may be made at once."""
        return max(1.0, self.calls * _BURST_SHARE)

    @property
    def rate(self) -> float:
        """Calls a second in the long run; of a tiny limit at least half, the other half being the burst."""
        ours = self.calls * self.share
        return max(ours - self.burst, ours / 2) / self.window_seconds


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one look at the row said: granted, or why not and for how long at least."""

    reason: str | None
    wait_seconds: float
    tokens: float


# take_calls: spends under the row's lock, and only if nothing stands against it.
# $1 account, $2 calls, $3 burst, $4 rate, $5 what must be there for this class
_TAKE = """
WITH seen AS (
    SELECT *, clock_timestamp() AS at FROM call_budget WHERE account = $1 FOR UPDATE
), shifted AS (
    -- A clock that was set back (a failover) takes all moments with it: else nothing refills until it caught up.
    -- 30 s are more than any statement waits for the lock, so that waiting is not taken for it.
    SELECT *, CASE WHEN refilled_at > at + interval '30 s' THEN at - refilled_at ELSE interval '0' END AS shift
      FROM seen
), refilled AS (
    -- Nothing refills during a block, so that we come back from one slowly.
    SELECT at, shift, provider_left,
           blocked_until + shift AS blocked_until,
           provider_reset_at + shift AS provider_reset_at,
           least($3::float8, tokens + $4::float8
               * greatest(0, extract(epoch FROM at - greatest(refilled_at, blocked_until)))::float8) AS tokens
      FROM shifted
), judged AS (
    SELECT *, CASE WHEN blocked_until > at THEN 'blocked'
                   WHEN provider_reset_at > at AND provider_left < $5::float8 THEN 'provider'
                   WHEN tokens < $5::float8 THEN 'spent' END AS reason
      FROM refilled
), written AS (
    UPDATE call_budget AS b
       SET tokens = j.tokens - CASE WHEN j.reason IS NULL THEN $2::int ELSE 0 END,
           refilled_at = j.at,
           blocked_until = j.blocked_until,
           provider_reset_at = j.provider_reset_at,
           provider_left = j.provider_left
               - CASE WHEN j.reason IS NULL AND j.provider_reset_at > j.at THEN $2::int ELSE 0 END
      FROM judged AS j
     WHERE b.account = $1 AND (j.reason IS NULL OR j.shift <> interval '0')
)
SELECT reason, tokens,
       CASE reason WHEN 'blocked' THEN extract(epoch FROM blocked_until - at)::float8
                   WHEN 'provider' THEN extract(epoch FROM provider_reset_at - at)::float8
                   WHEN 'spent' THEN ($5::float8 - tokens) / $4::float8
                   ELSE 0 END AS wait_seconds
  FROM judged
"""

# open_account: the first call ever; what was called before we do not know, and the share leaves room for it.
_OPEN = "INSERT INTO call_budget (account, tokens) VALUES ($1, $2) ON CONFLICT (account) DO NOTHING"

# learn: only ever makes the budget tighter than it is.
# $1 account, $2 seconds of a block or null, $3 calls left at the provider or null, $4 seconds until it counts anew
_LEARN = """
UPDATE call_budget
   SET blocked_until = CASE WHEN $2::float8 IS NULL THEN blocked_until
           ELSE greatest(blocked_until, clock_timestamp() + make_interval(secs => $2)) END,
       tokens = CASE WHEN $2::float8 IS NULL THEN tokens ELSE 0 END,
       provider_left = CASE WHEN $3::int IS NULL THEN provider_left
           WHEN provider_reset_at > clock_timestamp() THEN least(provider_left, $3) ELSE $3 END,
       provider_reset_at = CASE WHEN $3::int IS NULL THEN provider_reset_at
           ELSE greatest(provider_reset_at, clock_timestamp() + make_interval(secs => $4)) END
 WHERE account = $1
"""


class SharedCallBudget:
    """The budget of one provider account, the same for every process on this database.

    A block lasts for BLOCK_SECONDS, or for as long as Retry-After says, up to
    `rate_headers.RETRY_AFTER_MAX_SECONDS`. It holds in this process even when the database cannot be told.
    """

    def __init__(self, pool: asyncpg.Pool, settings: BudgetSettings, account: str) -> None:
        self._pool = pool
        self._settings = settings
        self._account = account
        self._burst, self._rate = settings.burst, settings.rate
        # One of each class asks the database at a time; the others stand behind it in the order they came.
        self._turns = {klass: asyncio.Lock() for klass in CallClass}
        self._waiting = dict.fromkeys(CallClass, 0)
        self._blocked_until = 0.0  # by the local monotonic clock
        self._block_owed = False  # a block the database does not know of yet
        self._tokens_seen, self._tokens_seen_at = settings.burst, time.monotonic()

    async def take(self, klass: CallClass, n: int = 1) -> None:
        """As the port has it; safe to call at any rate, for waiting callers stand in line."""
        if not 1 <= n <= self._settings.burst:
            raise ValueError(f"{n} calls can never be made at once")
        deadline = time.monotonic() + self._settings.max_wait_seconds
        async with self._turn(klass, deadline):
            while True:
                verdict = await self._ask(klass, n)
                if verdict.reason is None:
                    return
                if time.monotonic() + verdict.wait_seconds > deadline:
                    raise _no_call(verdict.reason, verdict.wait_seconds)
                # Not less than a moment, so that rounding cannot make it ask over and over.
                await asyncio.sleep(max(0.005, verdict.wait_seconds))

    async def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """As the port has it; never raises, because the answer itself matters more."""
        self._learn_policies(headers)
        block_seconds = None
        if status == 429:
            block_seconds = retry_after_seconds(headers, time.time()) or BLOCK_SECONDS
            self._blocked_until = max(self._blocked_until, time.monotonic() + block_seconds)
            self._block_owed = True
            log.warning("the provider refuses all calls", blocked_seconds=round(block_seconds, 1))
        left, reset_seconds = self._binding(headers)
        if block_seconds is None and left is None:
            return
        try:
            async with self._connection() as connection:
                await self._tell(connection, block_seconds, left, reset_seconds)
        except DATABASE_AWAY as exc:
            log.warning("the call budget could not be told", problem=type(exc).__name__)

    def remaining(self) -> float:
        """Calls that may be made now, as this process saw the budget last; for a gauge."""
        if self._blocked_until > time.monotonic():
            return 0.0
        since_seconds = time.monotonic() - self._tokens_seen_at
        return min(self._burst, self._tokens_seen + self._rate * since_seconds)

    def headroom(self) -> float:
        """As the port has it; asks nobody."""
        return self.remaining() / self._burst

    @asynccontextmanager
    async def _turn(self, klass: CallClass, deadline: float) -> AsyncIterator[None]:
        """The head of the line of this class, or a refusal at the deadline."""
        ahead = self._waiting[klass]
        if ahead >= _LINE_MAX:
            raise _no_call("line", ahead / self._rate)
        self._waiting[klass] += 1
        try:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._turns[klass].acquire()
            except TimeoutError:
                raise _no_call("line", max(1.0, ahead / self._rate)) from None
            try:
                yield
            finally:
                self._turns[klass].release()
        finally:
            self._waiting[klass] -= 1

    async def _ask(self, klass: CallClass, n: int) -> _Verdict:
        """One look at the row, which spends if it may."""
        blocked_seconds = self._blocked_until - time.monotonic()
        if blocked_seconds > 0 and not self._block_owed:
            return _Verdict("blocked", blocked_seconds, 0.0)
        try:
            async with self._connection() as connection:
                if blocked_seconds > 0:
                    await self._tell(connection, blocked_seconds)
                    return _Verdict("blocked", blocked_seconds, 0.0)
                needed = max(float(n), min(n + self._burst * _KEPT_FOR_OTHERS[klass], self._burst))
                arguments = (self._account, n, self._burst, self._rate, needed)
                row = await connection.fetchrow(_TAKE, *arguments)
                if row is None:
                    await connection.execute(_OPEN, self._account, self._burst)
                    row = await connection.fetchrow(_TAKE, *arguments)
        except DATABASE_AWAY as exc:
            if blocked_seconds > 0:
                return _Verdict("blocked", blocked_seconds, 0.0)
            text = "The calls to the provider cannot be counted: the database does not answer"
            raise DatabaseAwayError(text) from exc
        left = row["tokens"] - (n if row["reason"] is None else 0)
        verdict = _Verdict(row["reason"], row["wait_seconds"], left)
        self._tokens_seen, self._tokens_seen_at = verdict.tokens, time.monotonic()
        provider_metrics.calls_left().set(verdict.tokens)
        return verdict

    async def _tell(
        self,
        connection: asyncpg.Connection,
        block_seconds: float | None,
        left: int | None = None,
        reset_seconds: float | None = None,
    ) -> None:
        """Write down what was learned, for every process."""
        lesson = (self._account, block_seconds, left, reset_seconds)
        if await connection.execute(_LEARN, *lesson) == "UPDATE 0":
            await connection.execute(_OPEN, self._account, self._burst)
            await connection.execute(_LEARN, *lesson)
        self._block_owed = self._block_owed and block_seconds is None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        async with (
            asyncio.timeout(2 * _STATEMENT_TIMEOUT_SECONDS),
            self._pool.acquire(timeout=_STATEMENT_TIMEOUT_SECONDS) as connection,
        ):
            yield connection

    def _learn_policies(self, headers: Mapping[str, str]) -> None:
        """Keep to the tightest of our own limit and those the provider names now."""
        named = policies(headers)
        if not named:
            return
        burst, rate = self._settings.burst, self._settings.rate
        for policy in named:
            theirs = BudgetSettings(policy.calls, policy.window_seconds, self._settings.share)
            if burst + rate * policy.window_seconds > policy.calls * self._settings.share:
                burst, rate = min(burst, theirs.burst), min(rate, theirs.rate)
        if (burst, rate) != (self._burst, self._rate):
            log.info("the provider's limits are followed", burst=round(burst, 1), calls_per_second=round(rate, 2))
            self._burst, self._rate = burst, rate

    def _binding(self, headers: Mapping[str, str]) -> tuple[int | None, float | None]:
        """What is left at the provider, if we could use it up before it counts anew; the smallest if several."""
        tokens = self.remaining()
        tightest: tuple[int | None, float | None] = (None, None)
        for window in remaining_calls(headers):
            named = self._settings.window_seconds if window.reset_seconds is None else window.reset_seconds
            reset_seconds = min(float(named), self._settings.window_seconds)
            if window.calls < tokens + self._rate * reset_seconds and (
                tightest[0] is None or window.calls < tightest[0]
            ):
                tightest = (window.calls, reset_seconds)
        return tightest


def _no_call(reason: str, retry_after: float) -> TransientError:
    sentences = {
        "blocked": "The provider refuses all calls for a while; nobody of us calls before it is over.",
        "provider": "The provider says that hardly any calls are left until it counts anew.",
        "spent": "The calls to the provider are used up for the moment.",
        "line": "Too many calls to the provider are waiting already.",
    }
    return TransientError("call_budget", sentences[reason], retry_after=retry_after)
