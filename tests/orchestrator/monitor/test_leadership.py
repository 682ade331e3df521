"""The lease: one leads, by the database's clock, and trusts itself no longer than it may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.leadership import LEASE_SECONDS, RENEWAL_SECONDS, Lease, Term
from orchestrator.monitor.loop import STANDBY_SECONDS


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class SlowPool:
    """A pool on a line where each use takes *seconds* of the clock."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock, seconds: float) -> None:
        self._pool, self._clock, self._seconds = pool, clock, seconds

    @asynccontextmanager
    async def acquire(self, **limits: float) -> AsyncIterator[asyncpg.Connection]:
        async with self._pool.acquire(**limits) as connection:
            yield connection
            self._clock.seconds += self._seconds


@pytest.fixture
async def expire(owner: asyncpg.Connection):
    """Let the lease run out by the database's clock."""

    async def run_out() -> None:
        await owner.execute("UPDATE monitor_lease SET expires_at = clock_timestamp() - interval '1 ms'")

    return run_out


async def test_one_of_many_leads(pool: asyncpg.Pool, owner: asyncpg.Connection) -> None:
    terms = await asyncio.gather(*(Lease(pool, time.monotonic).take() for _ in range(8)))
    (term,) = [term for term in terms if term is not None]
    row = await owner.fetchrow(
        "SELECT holder, epoch, expires_at - clock_timestamp() AS left, taken_at FROM monitor_lease"
    )
    assert (row["holder"], row["epoch"]) == (term.holder, term.epoch)
    assert 0 < row["left"].total_seconds() <= LEASE_SECONDS
    assert row["taken_at"] is not None


async def test_a_lease_that_ran_out_is_taken_over_in_a_higher_epoch(pool: asyncpg.Pool, expire) -> None:
    former, next_one = Lease(pool, time.monotonic), Lease(pool, time.monotonic)
    first = await former.take()
    assert first is not None
    assert await next_one.take() is None
    await expire()
    second = await next_one.take()
    assert second is not None
    assert second.epoch == first.epoch + 1
    assert second.holder != first.holder
    with pytest.raises(LeadershipLost):
        await former.renew(first, None)
    await next_one.renew(second, None)


@pytest.mark.parametrize("wrong", ["holder", "epoch"])
async def test_nobody_renews_or_releases_anothers_lease(
    pool: asyncpg.Pool, owner: asyncpg.Connection, wrong: str
) -> None:
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    before = await owner.fetchval("SELECT expires_at FROM monitor_lease")
    other = Term("another", term.epoch) if wrong == "holder" else Term(term.holder, term.epoch - 1)
    with pytest.raises(LeadershipLost):
        await lease.renew(other, None)
    await lease.release(other)
    assert await owner.fetchval("SELECT expires_at FROM monitor_lease") == before


async def test_nobody_renews_a_lease_that_ran_out_even_if_nobody_took_it(pool: asyncpg.Pool, expire) -> None:
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    await expire()
    with pytest.raises(LeadershipLost):
        await lease.renew(term, None)


async def test_a_lease_that_is_renewed_is_nobody_elses_however_old_it_is(
    pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    await owner.execute("UPDATE monitor_lease SET taken_at = clock_timestamp() - interval '1 year'")
    await lease.renew(term, None)
    assert await Lease(pool, time.monotonic).take() is None


async def test_a_renewal_prolongs_by_the_databases_clock_and_tells_the_age_of_the_round(
    pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    assert await owner.fetchval("SELECT round_at FROM monitor_lease") is None
    await owner.execute("UPDATE monitor_lease SET expires_at = clock_timestamp() + interval '1 s'")
    await lease.renew(term, 4.0)
    left, age = await owner.fetchrow(
        "SELECT expires_at - clock_timestamp(), clock_timestamp() - round_at FROM monitor_lease"
    )
    assert LEASE_SECONDS - 1 < left.total_seconds() <= LEASE_SECONDS
    assert 4 <= age.total_seconds() < 5
    await lease.renew(term, None)
    assert await owner.fetchval("SELECT round_at FROM monitor_lease") is not None


async def test_a_released_lease_is_free_at_once(pool: asyncpg.Pool) -> None:
    lease, standby = Lease(pool, time.monotonic), Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    await lease.release(term)
    taken = await standby.take()
    assert taken is not None
    await lease.release(term)  # of a term that is over: harmless
    await standby.renew(taken, None)


async def test_who_could_not_give_a_term_back_takes_the_next_one_at_once(pool: asyncpg.Pool) -> None:
    """The database was away, and it is not as if somebody else had led meanwhile."""
    lease, standby = Lease(pool, time.monotonic), Lease(pool, time.monotonic)
    first = await lease.take()
    assert first is not None
    assert await standby.take() is None
    second = await lease.take()
    assert second is not None
    assert (second.holder, second.epoch) == (first.holder, first.epoch + 1)
    with pytest.raises(LeadershipLost):
        await lease.renew(first, None)
    await lease.renew(second, None)
    assert await standby.take() is None


async def test_trust_is_counted_from_before_the_question(pool: asyncpg.Pool) -> None:
    """An answer that was long on its way has used up part of the lease."""
    clock = Clock()
    lease = Lease(SlowPool(pool, clock, 3.0), clock)  # type: ignore[arg-type]
    assert lease.remaining_seconds < 0
    term = await lease.take()
    assert term is not None
    assert lease.remaining_seconds == pytest.approx(LEASE_SECONDS - 3)
    clock.seconds += 2
    await lease.renew(term, None)
    assert lease.remaining_seconds == pytest.approx(LEASE_SECONDS - 3)


async def test_a_failed_renewal_prolongs_no_trust(pool: asyncpg.Pool, expire) -> None:
    clock = Clock()
    lease = Lease(pool, clock)
    term = await lease.take()
    assert term is not None
    clock.seconds += 6.0
    await expire()
    with pytest.raises(LeadershipLost):
        await lease.renew(term, None)
    assert lease.remaining_seconds == pytest.approx(LEASE_SECONDS - 6.0)


async def test_a_renewal_that_is_not_answered_ends_within_the_lease(
    pool: asyncpg.Pool, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    monkeypatch.setattr("orchestrator.monitor.leadership.RENEWAL_SECONDS", 0.1)
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("SELECT * FROM monitor_lease FOR UPDATE")
    with pytest.raises(TimeoutError):
        await lease.renew(term, None)
    await transaction.rollback()
    monkeypatch.undo()
    await lease.renew(term, None)


def test_three_renewals_fit_into_one_lease() -> None:
    assert 3 * RENEWAL_SECONDS <= LEASE_SECONDS


def test_a_standby_takes_over_within_fifteen_seconds() -> None:
    """The rest of the fifteen is for its question to the database."""
    assert LEASE_SECONDS + STANDBY_SECONDS <= 12


def test_no_two_starts_share_a_name() -> None:
    names = {Lease(None, time.monotonic)._holder for _ in range(100)}  # type: ignore[arg-type]
    assert len(names) == 100


class SilentPool:
    """A pool whose server has gone without a word: nothing is answered, and giving a connection back takes long."""

    @asynccontextmanager
    async def acquire(self, **_: float) -> AsyncIterator[SilentPool]:
        try:
            yield self
        finally:
            await asyncio.sleep(60)

    async def fetchval(self, *_: object, **__: float) -> None:
        await asyncio.Event().wait()


async def test_a_renewal_ends_in_time_even_when_its_connection_cannot_be_given_back(pool: asyncpg.Pool) -> None:
    """Who cannot renew has to know it before another may lead."""
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    lease._pool = SilentPool()  # type: ignore[assignment]
    lease._trusted_until = time.monotonic() + 0.4
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await lease.renew(term, None)
    assert time.monotonic() - started < 0.4
    assert lease.remaining_seconds > 0


async def test_a_leader_that_froze_in_a_write_holds_the_lease_row_no_longer_than_its_lease(pool: asyncpg.Pool) -> None:
    """Its open transaction has the row locked; the server ends that before the lease runs out."""
    milliseconds = await pool.fetchval(
        "SELECT setting::int FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'"
    )
    assert 0 < milliseconds / 1000 < LEASE_SECONDS


@pytest.mark.parametrize(("seconds", "is_free"), [(LEASE_SECONDS + 0.8, False), (LEASE_SECONDS + 60, True)])
async def test_a_lease_that_ends_too_late_was_given_by_a_clock_that_has_been_set_back(
    pool: asyncpg.Pool, owner: asyncpg.Connection, seconds: float, is_free: bool
) -> None:
    """Whoever holds it may be dead: nobody waits until the clock has caught up."""
    former, standby = Lease(pool, time.monotonic), Lease(pool, time.monotonic)
    first = await former.take()
    assert first is not None
    await owner.execute("UPDATE monitor_lease SET expires_at = clock_timestamp() + make_interval(secs => $1)", seconds)
    second = await standby.take()
    assert (second is not None) == is_free
    if is_free:
        with pytest.raises(LeadershipLost):
            await former.renew(first, None)
