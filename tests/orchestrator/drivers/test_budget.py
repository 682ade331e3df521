"""The calls to the provider never exceed the budget, whoever makes them and from however many processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from orchestrator.drivers.budget import BLOCK_SECONDS, BudgetSettings, CallClass, SharedCallBudget
from orchestrator.drivers.errors import DatabaseAwayError, TransientError

ACCOUNT = "account"
# 10 at once and 0.25 a second: within a test next to nothing refills.
SLOW = BudgetSettings(calls=100, window_seconds=300, share=0.85, max_wait_seconds=0.2)

OpenBudget = Callable[..., Awaitable[SharedCallBudget]]


@pytest.fixture
async def open_budget(database: str) -> AsyncIterator[OpenBudget]:
    """Opens a budget as one more process would: with a pool of its own."""
    pools: list[asyncpg.Pool] = []

    async def open_one(settings: BudgetSettings = SLOW, account: str = ACCOUNT) -> SharedCallBudget:
        pool = await asyncpg.create_pool(database, min_size=0, max_size=4)
        pools.append(pool)
        return SharedCallBudget(pool, settings, account)

    yield open_one
    for pool in pools:
        await pool.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


async def refusal(budget: SharedCallBudget, klass: CallClass = CallClass.PERSON, n: int = 1) -> TransientError:
    with pytest.raises(TransientError) as refused:
        await budget.take(klass, n)
    assert refused.value.code == "call_budget"
    return refused.value


async def finds_no_database(budget: SharedCallBudget) -> None:
    with pytest.raises(DatabaseAwayError, match="database"):
        await budget.take(CallClass.PERSON)


async def spend_all(budget: SharedCallBudget, klass: CallClass) -> int:
    """How many calls of that class there are before the first refusal."""
    taken = 0
    while True:
        try:
            await budget.take(klass)
        except TransientError:
            return taken
        taken += 1


# --- The sums ----------------------------------------------------------------------------------------


def test_the_documented_limit_gives_three_calls_a_second() -> None:
    settings = BudgetSettings()
    assert settings.burst == 120
    assert settings.rate == pytest.approx(3.0)


@hypothesis_settings(deadline=None)
@given(
    calls=st.integers(1, 10**6),
    window_seconds=st.floats(0.1, 10**5),
    share=st.floats(0.2, 1),
)
def test_no_window_ever_holds_more_calls_than_the_limit(calls: int, window_seconds: float, share: float) -> None:
    settings = BudgetSettings(calls, window_seconds, share)
    assert settings.burst >= 1
    assert settings.rate > 0
    # Calls are whole, hence the floor; the tiny term is rounding.
    assert int(settings.burst + settings.rate * window_seconds - 1e-9) <= calls


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls": 0},
        {"window_seconds": 0},
        {"window_seconds": float("nan")},
        {"share": 0.1},
        {"share": 1.1},
        {"max_wait_seconds": 0},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a budget needs"):
        replace(BudgetSettings(), **wrong)


# --- Taking ------------------------------------------------------------------------------------------


async def test_a_call_that_waited_for_another_sees_what_that_one_spent(
    open_budget: OpenBudget, connection: asyncpg.Connection, database: str
) -> None:
    budget = await open_budget()
    await budget.take(CallClass.PERSON)
    other = await asyncpg.connect(database)
    await other.execute("BEGIN; UPDATE call_budget SET tokens = 0, refilled_at = clock_timestamp()")
    taking = asyncio.create_task(budget.take(CallClass.PERSON))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.01)
    await other.execute("COMMIT")
    await other.close()
    with pytest.raises(TransientError):
        await taking


async def test_a_burst_is_granted_at_once_and_then_no_more(open_budget: OpenBudget) -> None:
    budget = await open_budget()
    assert await spend_all(budget, CallClass.PERSON) == 10
    refused = await refusal(budget)
    # The next call is there after 1 / 0.25 s.
    assert refused.retry_after == pytest.approx(4, abs=0.5)


async def test_reconciling_stops_first_then_progress_and_people_last(open_budget: OpenBudget) -> None:
    budget = await open_budget()
    assert await spend_all(budget, CallClass.RECONCILE) == 7
    assert await spend_all(budget, CallClass.PROGRESS) == 2
    assert await spend_all(budget, CallClass.PERSON) == 1


async def test_a_person_does_not_stand_in_the_line_of_the_loop(open_budget: OpenBudget) -> None:
    budget = await open_budget(replace(SLOW, max_wait_seconds=30))
    for _ in range(7):
        await budget.take(CallClass.RECONCILE)
    waiting = [asyncio.create_task(budget.take(CallClass.RECONCILE)) for _ in range(20)]
    try:
        await asyncio.wait_for(budget.take(CallClass.PERSON), 2)
        assert not any(task.done() for task in waiting)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_several_calls_are_taken_whole_or_not_at_all(open_budget: OpenBudget) -> None:
    budget = await open_budget()
    await budget.take(CallClass.PERSON, 8)
    await refusal(budget, n=3)
    await budget.take(CallClass.PERSON, 2)


@pytest.mark.parametrize("n", [0, -1, 11])
async def test_a_number_that_can_never_be_granted_is_a_mistake(open_budget: OpenBudget, n: int) -> None:
    budget = await open_budget()
    with pytest.raises(ValueError, match="never"):
        await budget.take(CallClass.PERSON, n)


async def test_accounts_do_not_share(open_budget: OpenBudget) -> None:
    assert await spend_all(await open_budget(account="one"), CallClass.PERSON) == 10
    assert await spend_all(await open_budget(account="two"), CallClass.PERSON) == 10


async def test_a_call_waits_for_its_turn(open_budget: OpenBudget) -> None:
    # 4 at once, then 15 a second.
    budget = await open_budget(BudgetSettings(calls=40, window_seconds=2, share=0.85, max_wait_seconds=5))
    began = time.monotonic()
    for _ in range(10):
        await budget.take(CallClass.PERSON)
    assert time.monotonic() - began >= 6 / 15 - 0.05


async def test_300_calls_of_three_processes_stay_within_the_budget(open_budget: OpenBudget) -> None:
    # 40 at once, then 150 a second: the real budget, thirty times as fast.
    settings = BudgetSettings(calls=400, window_seconds=2, share=0.85, max_wait_seconds=30)
    budgets = [await open_budget(settings) for _ in range(3)]
    granted: list[float] = []

    async def call(number: int) -> None:
        await budgets[number % 3].take(list(CallClass)[number // 3 % 3])
        granted.append(time.monotonic())

    await asyncio.gather(*(call(number) for number in range(300)))

    assert len(granted) == 300
    granted.sort()
    # A grant is seen up to a quarter of a second after it was made on a busy machine.
    slack = settings.rate * 0.25
    for first in range(300):
        for last in range(first, 300):
            allowed = settings.burst + settings.rate * (granted[last] - granted[first]) + slack
            assert last - first + 1 <= allowed
    # And nobody slept longer than the rate asks for.
    assert granted[-1] - granted[0] < 3 * 300 / settings.rate


async def test_a_waiting_line_is_served_in_the_order_it_came(open_budget: OpenBudget) -> None:
    budget = await open_budget(BudgetSettings(calls=100, window_seconds=1, share=0.85, max_wait_seconds=5))
    order: list[int] = []

    async def call(number: int) -> None:
        await budget.take(CallClass.PROGRESS)
        order.append(number)

    await asyncio.gather(*(call(number) for number in range(30)))
    assert all(earlier < later for earlier, later in pairwise(order))


async def test_a_call_in_a_long_line_is_told_when_to_come_back(open_budget: OpenBudget) -> None:
    budget = await open_budget(replace(SLOW, max_wait_seconds=0.3))
    results = await asyncio.gather(*(budget.take(CallClass.PERSON) for _ in range(60)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, TransientError)]
    assert len(refused) == 50
    assert all(one.retry_after is not None and one.retry_after >= 1 for one in refused)


async def test_who_gives_up_waiting_leaves_the_line_in_order(open_budget: OpenBudget) -> None:
    budget = await open_budget(BudgetSettings(calls=40, window_seconds=2, share=0.85, max_wait_seconds=5))
    await budget.take(CallClass.PERSON, 4)
    waiting = [asyncio.create_task(budget.take(CallClass.PERSON)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 5)
    assert waiting[0].cancelled()
    assert waiting[1].cancelled()
    await asyncio.wait_for(budget.take(CallClass.PERSON), 5)


# --- Learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, BLOCK_SECONDS, id="unnamed"),
        pytest.param({"Retry-After": "120"}, 120, id="seconds"),
        pytest.param({"Retry-After": "0"}, 1, id="zero"),
        pytest.param({"Retry-After": "999999999"}, 3600, id="huge"),
        pytest.param({"Retry-After": "soon"}, BLOCK_SECONDS, id="unreadable"),
        pytest.param(
            {"Retry-After": "Fri, 02 Jan 2026 03:06:00 GMT", "Date": "Fri, 02 Jan 2026 03:04:00 GMT"}, 120, id="a date"
        ),
    ],
)
async def test_429_stops_every_process(open_budget: OpenBudget, headers: dict[str, str], seconds: float) -> None:
    told, other = await open_budget(), await open_budget()
    await told.learn(429, headers)
    assert told.remaining() == 0
    for budget in (told, other, await open_budget()):
        for klass in CallClass:
            refused = await refusal(budget, klass)
            assert refused.retry_after == pytest.approx(seconds, abs=1)


async def test_a_later_shorter_block_does_not_end_a_longer_one(open_budget: OpenBudget) -> None:
    told, other = await open_budget(), await open_budget()
    await told.learn(429, {"Retry-After": "300"})
    await other.learn(429, {"Retry-After": "10"})
    assert (await refusal(await open_budget())).retry_after == pytest.approx(300, abs=2)


async def test_after_a_block_calls_come_back_slowly(open_budget: OpenBudget) -> None:
    # 10 at once, then 37.5 a second.
    settings = BudgetSettings(calls=100, window_seconds=2, share=0.85, max_wait_seconds=3)
    budget, other = await open_budget(settings), await open_budget(settings)
    await other.take(CallClass.PERSON)
    await budget.learn(429, {"Retry-After": "1"})
    began = time.monotonic()
    for _ in range(10):
        await other.take(CallClass.PERSON)
    assert time.monotonic() - began >= 1 + 10 / settings.rate - 0.05


async def test_another_failure_blocks_nothing(open_budget: OpenBudget) -> None:
    budget = await open_budget()
    for status in (200, 404, 500, 503):
        await budget.learn(status, {"Retry-After": "300"})
    await budget.take(CallClass.RECONCILE)


async def test_what_the_provider_says_is_left_is_obeyed_by_every_process(open_budget: OpenBudget) -> None:
    told, other = await open_budget(), await open_budget()
    await told.take(CallClass.PERSON)
    await told.learn(200, {"Ratelimit": '"default";r=3;t=30'})
    # 3 are less than what is kept for others, so only people get them.
    assert (await refusal(other, CallClass.RECONCILE)).retry_after == pytest.approx(30, abs=1)
    assert await spend_all(other, CallClass.PERSON) == 3
    assert (await refusal(told)).retry_after == pytest.approx(30, abs=1)


async def test_calls_flow_again_when_the_provider_counts_anew(open_budget: OpenBudget) -> None:
    budget = await open_budget(replace(SLOW, max_wait_seconds=3))
    await budget.take(CallClass.PERSON)
    await budget.learn(200, {"Ratelimit": '"default";r=0;t=1'})
    began = time.monotonic()
    await budget.take(CallClass.PERSON)
    assert time.monotonic() - began >= 0.9


async def test_plenty_left_at_the_provider_costs_no_statement(
    open_budget: OpenBudget, connection: asyncpg.Connection
) -> None:
    budget = await open_budget()
    await budget.take(CallClass.PERSON)
    before = await connection.fetchval("SELECT xmin::text FROM call_budget")
    await budget.learn(200, {"Ratelimit": '"default";r=1100;t=120'})
    assert await connection.fetchval("SELECT xmin::text FROM call_budget") == before


async def test_a_tighter_limit_of_the_provider_is_followed(open_budget: OpenBudget) -> None:
    budget = await open_budget(BudgetSettings(calls=1200, window_seconds=300, max_wait_seconds=0.2))
    # 10 at once and 1.25 a second keep within 85 in 60 s.
    await budget.learn(200, {"Ratelimit-Policy": '"burst";q=100;w=60'})
    assert await spend_all(budget, CallClass.PERSON) == 10


async def test_a_wider_limit_of_the_provider_changes_nothing(open_budget: OpenBudget) -> None:
    budget = await open_budget()
    await budget.learn(200, {"Ratelimit-Policy": '"default";q=100000;w=60, "ip";q=200;w=1'})
    assert await spend_all(budget, CallClass.PERSON) == 10


@pytest.mark.parametrize("junk", ["", ";;;", "r=", '"a";r=x;t=1', '"a";r=-1', "\x00", '"', "default;q=0;w=0", "r=1"])
async def test_headers_without_sense_change_nothing(open_budget: OpenBudget, junk: str) -> None:
    budget = await open_budget()
    await budget.learn(200, {"Ratelimit": junk, "Ratelimit-Policy": junk, "Retry-After": junk})
    assert await spend_all(budget, CallClass.PERSON) == 10


# --- Trouble -----------------------------------------------------------------------------------------


async def test_without_the_database_no_call_is_made() -> None:
    pool = await asyncpg.create_pool("postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1)
    budget = SharedCallBudget(pool, SLOW, ACCOUNT)
    await finds_no_database(budget)
    await pool.close()


async def test_a_block_learned_without_the_database_holds_here_and_is_told_later(
    open_budget: OpenBudget, database: str
) -> None:
    away = True

    async def connect(*arguments: Any, **options: Any) -> asyncpg.Connection:
        if away:
            raise ConnectionRefusedError("the database is away")
        return await asyncpg.connect(*arguments, **options)

    pool = await asyncpg.create_pool(database, min_size=0, max_size=1, connect=connect)
    budget, other = SharedCallBudget(pool, SLOW, ACCOUNT), await open_budget()
    await budget.learn(429, {})
    assert (await refusal(budget)).retry_after == pytest.approx(300, abs=2)
    await other.take(CallClass.PERSON)
    away = False
    await refusal(budget)
    assert (await refusal(other)).retry_after == pytest.approx(300, abs=2)
    await pool.close()


async def test_a_row_that_was_removed_is_opened_again(open_budget: OpenBudget, connection: asyncpg.Connection) -> None:
    budget, other = await open_budget(), await open_budget()
    await budget.take(CallClass.PERSON)
    await connection.execute("DELETE FROM call_budget")
    await budget.learn(429, {})
    assert (await refusal(other)).retry_after == pytest.approx(300, abs=2)


async def test_a_clock_that_was_set_back_strands_nobody(
    open_budget: OpenBudget, connection: asyncpg.Connection
) -> None:
    budget = await open_budget(BudgetSettings(calls=100, window_seconds=2, share=0.85, max_wait_seconds=2))
    await budget.take(CallClass.PERSON)
    # As if the clock had been a day ahead until now: every moment in the row lies in the future.
    await connection.execute(
        "UPDATE call_budget SET tokens = 0, refilled_at = refilled_at + interval '1 day',"
        " blocked_until = clock_timestamp() + interval '1 day 0.5 s'"
    )
    await asyncio.wait_for(budget.take(CallClass.PERSON), 5)


async def test_the_last_seen_budget_is_a_figure(open_budget: OpenBudget) -> None:
    budget = await open_budget()
    await budget.take(CallClass.PERSON, 4)
    assert budget.remaining() == pytest.approx(6, abs=0.5)
    assert REGISTRY.get_sample_value("orchestrator_call_budget_calls_left") == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("role", ["orchestrator_api", "orchestrator_monitor"])
async def test_a_role_needs_no_more_than_to_read_insert_and_update(
    database: str, connection: asyncpg.Connection, role: str
) -> None:
    await connection.execute(f"REVOKE ALL ON call_budget FROM {role}")
    await connection.execute(f"GRANT SELECT, INSERT, UPDATE ON call_budget TO {role}")
    pool = await asyncpg.create_pool(database, min_size=0, max_size=1, server_settings={"role": role})
    budget = SharedCallBudget(pool, SLOW, ACCOUNT)
    await budget.take(CallClass.PERSON)
    await budget.learn(429, {})
    await refusal(budget)
    await pool.close()
