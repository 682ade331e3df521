"""The statements, the law and the roles on a real PostgreSQL, and the simulated database beside it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test
from twins.hostility import hostility
from twins.machine import Run, machine_for
from twins.orders import Orders, check_orders
from twins.privileges import ROLES, attempts, is_permitted, tables_of
from twins.ready import leading

from orchestrator.storage.pool import connect

if TYPE_CHECKING:
    from lanes.conftest import Figures

STEPS = 30
CLIPS = 50
# The others are to go on as if the hostile session were not there; a busy machine may stretch either run.
SLOWER_AT_MOST = 5.0
LIMIT_SECONDS = 60.0


@pytest.fixture
def seed(commit: str) -> int:
    """What chance is drawn from; printed, so that a failure can be repeated."""
    drawn = int(os.environ.get("LANE_SEED") or secrets.randbelow(2**32))
    print(f"lane=sql seed={drawn} commit={commit}; to repeat: LANE_SEED={drawn} python3 run.py lanes sql", flush=True)
    return drawn


def test_whatever_is_done_keeps_the_promises_and_is_done_alike_by_the_simulated_database(
    database: str, amount: Any, figures: Figures, seed: int
) -> None:
    run = Run(database)
    try:
        run_state_machine_as_test(
            seeded(seed)(machine_for(run)),
            settings=settings(
                max_examples=amount(1_000, 50_000),
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        figures.tell(
            examples=run.examples, steps_on_both=run.steps, kinds_of_outcome=len(run.outcomes), moves=run.moves.total()
        )
        run.close()
    assert run.moves.total() > run.examples / 3, "hardly any clip moved: nothing was proved"


def test_the_same_signals_end_in_the_same_row_whatever_their_order_and_number(
    database: str, amount: Any, figures: Figures, seed: int
) -> None:
    orders = Orders(database)
    try:
        check_orders(orders, seed, amount(250, 5_000))
    finally:
        figures.tell(sets_of_signals=orders.sets, orders_compared=orders.orders)
        orders.close()


@pytest.fixture
async def logins(postgres_server: Any) -> AsyncIterator[dict[str, tuple[str, str]]]:
    """A login that is a member of each role, as another service's or a stolen one would be; by role."""
    made = {role: (f"{postgres_server.prefix}_{role}", secrets.token_hex(8)) for role in ROLES}
    for role, (name, password) in made.items():
        await postgres_server.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' IN ROLE {role}")
    yield made
    for name, _ in made.values():
        await postgres_server.execute(f'DROP ROLE "{name}"')


async def as_login(database: str, login: tuple[str, str]) -> asyncpg.Connection:
    """A session of that login's own."""
    return await asyncpg.connect(database, user=login[0], password=login[1], server_settings={"lock_timeout": "2s"})


async def test_every_role_may_do_what_is_written_and_nothing_else(
    database: str, logins: dict[str, tuple[str, str]], figures: Figures
) -> None:
    owner = await connect(database, None, "owner")
    tables = await tables_of(owner)
    owned_by = await owner.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'clips'")
    functions = await owner.fetch(
        "SELECT p.oid::regprocedure::text AS signature, p.prosecdef FROM pg_proc AS p"
        " WHERE pronamespace = current_schema()::regnamespace"
    )
    assert not [row["signature"] for row in functions if row["prosecdef"] and not row["signature"].endswith("()")]
    tried: list[tuple[bool, bool, str]] = []
    for role in ROLES:
        session = await as_login(database, logins[role])
        names = {"login": f'"{logins[role][0]}"', "owner": owned_by}
        for attempt in attempts(role, tables, names):
            tried.append((attempt.may, await is_permitted(session, attempt.statement), f"{role}: {attempt.statement}"))
        for row in functions:
            if row["prosecdef"]:
                call = f"SELECT {row['signature']}"
                tried.append((False, await _acts_for_its_owner(session, call), f"{role}: {call}"))
        await session.close()
    await owner.close()
    wrong = [f"{text} was {'permitted' if got else 'refused'}" for may, got, text in tried if may != got]
    figures.tell(
        privileges_tried=len(tried),
        allowed=sum(got for _, got, _ in tried),
        refused=sum(not got for _, got, _ in tried),
        columns=sum(map(len, tables.values())),
    )
    assert not wrong, "\n".join(wrong)


async def _acts_for_its_owner(session: asyncpg.Connection, call: str) -> bool:
    """Whether a function that has its owner's rights lets itself be called; triggers never do."""
    try:
        await session.execute(call)
    except asyncpg.FeatureNotSupportedError:
        return False
    return True


async def seconds_until_complete(api: asyncpg.Connection, ids: Sequence[str]) -> float:
    """How long it takes until all of *ids*, fresh ones made now, have gone all the way."""
    started = time.monotonic()
    for clip_id in ids:
        await api.execute(
            "INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2) ON CONFLICT DO NOTHING", clip_id, f"uid{clip_id}"
        )
    unfinished = "SELECT count(*) FROM clips WHERE id = ANY($1) AND status <> 'complete'"
    async with asyncio.timeout(LIMIT_SECONDS):
        while await api.fetchval(unfinished, list(ids)):
            await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_a_hostile_session_with_the_apis_rights_holds_up_nobody_but_the_clips_it_holds(
    database: str, logins: dict[str, tuple[str, str]], figures: Figures, sometimes: Any
) -> None:
    api = await connect(database, "orchestrator_api", "api")
    async with leading(database):
        await seconds_until_complete(api, ["first"])
        alone = await seconds_until_complete(api, [f"calm{n}" for n in range(CLIPS)])
    victims = [f"victim{n}" for n in range(5)]
    for victim in victims:
        await api.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", victim, f"uid{victim}")
    async with hostility(lambda: as_login(database, logins["orchestrator_api"]), victims) as did, leading(database):
        await seconds_until_complete(api, ["second"])
        beset = await seconds_until_complete(api, [f"beset{n}" for n in range(CLIPS)])
        stood = await api.fetch("SELECT DISTINCT status FROM clips WHERE id = ANY($1)", victims)
    # What was done to the rows it held keeps none of them from its end.
    async with leading(database):
        freed = await seconds_until_complete(api, victims)
    await api.close()
    figures.tell(
        clips_beside_it=CLIPS,
        times_slower=f"{beset / alone:.2f}",
        seconds_alone=f"{alone:.2f}",
        notifications=20 * did.notified,
        locks_refused=len(did.refused),
        seconds_until_freed_complete=f"{freed:.2f}",
    )
    sometimes.saw("a hostile session", "holds rows", did.held_rows)
    assert (did.held_rows, did.advisory_locks, did.pending) == (len(victims), 1000, 1000)
    assert did.filled_bytes > 45_000
    assert did.notified > 10
    assert len(did.refused) == 5, "it could lock what the leader needs"
    assert [row["status"] for row in stood] == ["uploading"]
    assert beset < SLOWER_AT_MOST * max(alone, 1.0), f"{beset:.1f} s beside a hostile session, {alone:.1f} s alone"
