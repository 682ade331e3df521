"""The simulated database by itself: what its wire loses, what dies with a node, who waits for whom; and a few of the
steps that the lane *sql* takes on a real server beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test
from twins.machine import Run, machine_for

from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.judging import drain
from orchestrator.monitor.leadership import Lease
from orchestrator.storage import pruning
from orchestrator.storage.clips import read_clip
from orchestrator.storage.pool import DATABASE_AWAY, connect
from orchestrator.web.creation import NewRow, insert_clip
from signals import UnknownClip, signal_status_update
from simulation.database import PromptWire, SimulatedDatabase, UnknownStatement
from simulation.database_rows import jsonb_bytes
from simulation.database_statements import changed_statements


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Cut(PromptWire):
    """A wire that fails once, where it is told to."""

    def __init__(self, request: str = "", reply: str = "", late: float | None = None) -> None:
        self._request, self._reply, self._late = request, reply, late

    async def request(self, name: str) -> None:
        if name == self._request:
            self._request = ""
            raise ConnectionResetError(104, "Connection reset by peer")

    async def reply(self, name: str) -> None:
        if name == self._reply:
            self._reply = ""
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def arrives_after(self, name: str) -> float | None:
        return self._late


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def simulated(clock: Clock) -> SimulatedDatabase:
    return SimulatedDatabase(clock)


async def make(database: SimulatedDatabase, *ids: str) -> None:
    connection = await database.connect("web", PromptWire())
    for clip_id in ids:
        await insert_clip(connection, NewRow(clip_id, None, {}))
    await connection.close()


def pending(database: SimulatedDatabase) -> list[str]:
    return [row["requested_status"] for row in database.rows("clip_signals")]


def test_every_statement_is_the_one_its_function_was_written_after() -> None:
    assert list(changed_statements()) == [], (
        "let the function do what the statement does now (the lane sql compares them), then note the new fingerprint"
        " in tests/simulation/database_statements.py"
    )


async def test_an_unknown_statement_is_told_by_its_text_and_no_edge_takes_it_for_a_fault(
    simulated: SimulatedDatabase,
) -> None:
    connection = await simulated.connect("n", PromptWire())
    with pytest.raises(UnknownStatement, match="SELECT 2"):
        await connection.fetchval("SELECT 2")
    assert not issubclass(UnknownStatement, Exception)


@pytest.mark.parametrize(
    ("wire", "applied"), [(Cut(request="signal"), []), (Cut(reply="signal"), ["queued"])], ids=["not sent", "no answer"]
)
async def test_a_lost_request_was_never_made_and_a_lost_answer_was(
    simulated: SimulatedDatabase, wire: Cut, applied: list[str]
) -> None:
    await make(simulated, "a")
    connection = await simulated.connect("web", wire)
    with pytest.raises(DATABASE_AWAY):
        await signal_status_update(connection, "a", "queued")  # type: ignore[arg-type]
    assert pending(simulated) == applied
    assert connection.is_closed()
    with pytest.raises(asyncpg.InterfaceError):
        await connection.fetchval("SELECT 1")


async def test_a_request_given_up_on_may_arrive_after_a_newer_one(simulated: SimulatedDatabase) -> None:
    await make(simulated, "a")
    old = await simulated.connect("web", Cut(request="signal", late=0.01))
    new = await simulated.connect("web", PromptWire())
    with pytest.raises(ConnectionResetError):
        await signal_status_update(old, "a", "queued")  # type: ignore[arg-type]
    await signal_status_update(new, "a", "processing")  # type: ignore[arg-type]
    assert pending(simulated) == ["processing"]
    async with asyncio.timeout(5):
        while len(pending(simulated)) < 2:
            await asyncio.sleep(0.002)
    assert pending(simulated) == ["processing", "queued"]


async def test_a_commit_whose_answer_is_lost_has_been_made(simulated: SimulatedDatabase) -> None:
    await make(simulated, "a")
    connection = await simulated.connect("web", Cut(reply="commit"))
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        async with connection.transaction():
            await signal_status_update(connection, "a", "queued")  # type: ignore[arg-type]
    assert pending(simulated) == ["queued"]


async def test_with_a_node_dies_what_it_has_not_committed_and_its_locks_are_free(simulated: SimulatedDatabase) -> None:
    await make(simulated, "a")
    dying, other = [await simulated.connect(node, PromptWire()) for node in ("dying", "other")]
    await dying.transaction().start()
    await signal_status_update(dying, "a", "queued")  # type: ignore[arg-type]
    waiting = asyncio.create_task(signal_status_update(other, "a", "processing"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert pending(simulated) == []
    simulated.drop("dying")
    await waiting
    assert pending(simulated) == ["processing"]
    assert simulated.sessions == ["other"]


async def test_who_waits_for_a_row_sees_what_was_made_of_it_meanwhile(simulated: SimulatedDatabase) -> None:
    await make(simulated, "a")
    first, second = [await simulated.connect("web", PromptWire()) for _ in range(2)]
    async with first.transaction():
        await signal_status_update(first, "a", "queued", {"one": 1})  # type: ignore[arg-type]
        waiting = asyncio.create_task(signal_status_update(second, "a", "error", {"two": 2}))  # type: ignore[arg-type]
        await asyncio.sleep(0)
    await waiting
    clip = await read_clip(second, "a")  # type: ignore[arg-type]
    assert clip is not None
    assert (clip.pending, {"one", "two"} <= clip.processing_details.keys()) == (2, True)


async def test_a_held_row_is_passed_over_or_given_up_on(clock: Clock) -> None:
    simulated = SimulatedDatabase(clock, lock_timeout_seconds=0.01)
    await make(simulated, "a", "b")
    holder, asking = [await simulated.connect("web", PromptWire()) for _ in range(2)]
    pool: Any = simulated.pool("monitor", PromptWire())
    term = await Lease(pool, lambda: 0.0).take()
    assert term is not None
    await holder.transaction().start()
    await signal_status_update(holder, "a", "queued")  # type: ignore[arg-type]
    with pytest.raises(asyncpg.LockNotAvailableError):
        await signal_status_update(asking, "a", "queued")  # type: ignore[arg-type]
    await signal_status_update(asking, "b", "error")  # type: ignore[arg-type]
    assert [move.clip_id for move in await drain(pool, term, clock)] == ["b"]
    clock.now += timedelta(minutes=1)  # idle for too long: the server ends it when somebody wants the row
    await signal_status_update(asking, "a", "processing")  # type: ignore[arg-type]
    assert pending(simulated) == ["processing"]
    with pytest.raises(DATABASE_AWAY):
        await holder.fetchval("SELECT 1")


async def test_who_waits_in_a_circle_is_told_so(simulated: SimulatedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.database_server.DEADLOCK_SECONDS", 0.01)
    await make(simulated, "a", "b")
    one, other = [await simulated.connect("web", PromptWire()) for _ in range(2)]
    for connection, clip_id in ((one, "a"), (other, "b")):
        await connection.transaction().start()
        await signal_status_update(connection, clip_id, "queued")  # type: ignore[arg-type]
    crossing = [signal_status_update(one, "b", "queued"), signal_status_update(other, "a", "queued")]  # type: ignore[arg-type]
    first, second = await asyncio.gather(*crossing, return_exceptions=True)
    assert isinstance(first, asyncpg.DeadlockDetectedError)
    assert second == 1


async def test_notifications_come_at_the_commit_once_and_not_to_the_dead(simulated: SimulatedDatabase) -> None:
    speaker, listener, dead = [await simulated.connect(node, PromptWire()) for node in ("s", "l", "d")]
    heard: asyncio.Queue[str] = asyncio.Queue()
    for connection in (listener, dead):
        await connection.add_listener("orchestrator_changed", lambda _, __, ___, payload: heard.put_nowait(payload))
    simulated.drop("d")
    async with speaker.transaction():
        for payload in ("a", "a", "b"):
            await speaker.execute("SELECT pg_notify($1, $2)", "orchestrator_changed", payload)
        await asyncio.sleep(0)
        assert heard.empty()
    async with asyncio.timeout(5):
        assert [await heard.get(), await heard.get()] == ["a", "b"]
    await asyncio.sleep(0)
    assert heard.empty()


async def test_an_outage_ends_sessions_tells_listeners_and_refuses_until_it_is_over(
    simulated: SimulatedDatabase, clock: Clock
) -> None:
    await make(simulated, "a")
    connection = await simulated.connect("n", PromptWire())
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    simulated.refuse(clock.now + timedelta(seconds=5))
    async with asyncio.timeout(5):
        await lost.wait()
    pool = simulated.pool("n", PromptWire())
    with pytest.raises(ConnectionRefusedError):
        await pool.fetchval("SELECT 1")
    clock.now += timedelta(seconds=5)
    assert await pool.fetchval("SELECT 1") == 1
    assert [row["id"] for row in simulated.rows("clips")] == ["a"]


async def test_the_hook_is_told_of_each_row_that_a_commit_changes(simulated: SimulatedDatabase) -> None:
    told: list[tuple[Any, ...]] = []
    simulated.on_commit = lambda table, before, after: told.append(
        (simulated.committing, table, before and before["version"], after and after.get("version"))
    )
    await make(simulated, "a")
    assert told == [("web", "clips", None, 1), ("web", "clip_events", None, None)]
    connection = await simulated.connect("web", PromptWire())
    with pytest.raises(UnknownClip):
        await signal_status_update(connection, "b", "queued")  # type: ignore[arg-type]
    assert len(told) == 2


async def test_a_stale_epoch_writes_nothing(simulated: SimulatedDatabase, clock: Clock) -> None:
    await make(simulated, "a")
    pool: Any = simulated.pool("monitor", PromptWire())
    old = await Lease(pool, lambda: 0.0).take()
    clock.now += timedelta(hours=1)
    assert old is not None
    assert await Lease(pool, lambda: 0.0).take() is not None
    async with pool.acquire() as connection:
        await signal_status_update(connection, "a", "error")
    with pytest.raises(LeadershipLost):
        await drain(pool, old, clock)
    assert pending(simulated) == ["error"]


async def test_whoever_prunes_history_walks_to_the_first_line_that_is_not_old(
    simulated: SimulatedDatabase, clock: Clock
) -> None:
    await make(simulated, "a", "b")
    is_old = clock.now
    clock.now += timedelta(days=1)
    await make(simulated, "c")
    connection = await simulated.connect("monitor", PromptWire())
    walked = await connection.fetchrow(pruning._WINDOW, 0, 10, clock.now)
    assert [walked[name] for name in ("lines", "through", "at")] == [3, 2, is_old]
    assert await pruning.prune_window(connection, is_old, pruning.Pruned()) == pruning.Pruned(is_done=True)


async def test_a_pool_hands_out_no_more_than_it_has_and_none_that_is_dead(simulated: SimulatedDatabase) -> None:
    pool = simulated.pool("n", PromptWire(), max_size=1)
    async with pool.acquire() as connection:
        with pytest.raises(TimeoutError):
            async with pool.acquire(timeout=0.01):
                pass
        waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
        await asyncio.sleep(0)
        connection.terminate()
    assert await waiting == 1
    assert pool.get_size() == 1


# --- Beside a real server --------------------------------------------------------------------------------


@pytest.fixture
def run(database: str) -> Iterator[Run]:
    run = Run(database)
    yield run
    run.close()


def test_it_does_what_postgresql_does(run: Run) -> None:
    # The lane takes a thousand examples of 30 steps; these few notice when the two part company for good.
    few = settings(
        max_examples=12, stateful_step_count=15, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    run_state_machine_as_test(seeded(7)(machine_for(run)), settings=few)
    assert run.steps > 100


def test_the_engine_may_fill_a_document_even_where_it_changes_nothing_else(run: Run) -> None:
    twins = machine_for(run)()
    twins.begin(bare=False)
    twins.move_all(who="first", status="uploading")
    full = {"note": "x" * 30_000, "other": "x" * 30_000}
    twins.report(who="first", clip="a", attempt=1, status="uploading", doc=full)
    twins.judge(who="first")
    (written,) = [clip for clip in twins.before["clips"] if clip["id"] == "a"]
    assert full.items() <= written["processing_details"].items()


_numbers = st.one_of(st.integers(-(10**40), 10**40), st.sampled_from([0.5, 10.25, 1e-7, 123456.789, -0.001]))
_scalars = st.one_of(st.none(), st.booleans(), _numbers, st.text(st.characters(codec="utf-8", exclude_characters="\0")))
_documents = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abü", max_size=9), inner, max_size=4)
)


async def test_documents_are_as_large_as_postgresql_finds_them(database: str) -> None:
    drawn: list[Any] = []

    @settings(max_examples=60, database=None, deadline=None)
    @seeded(7)
    @given(_documents)
    def draw(document: Any) -> None:
        drawn.append(document)

    draw()
    connection = await connect(database, None, "sizes")
    texts = [json.dumps(document) for document in drawn]
    sizes = await connection.fetchval(
        "SELECT array_agg(pg_column_size(text::jsonb || '[]') ORDER BY n)"
        " FROM unnest($1::text[]) WITH ORDINALITY AS of(text, n)",
        texts,
    )
    await connection.close()
    assert sizes == [jsonb_bytes(document if isinstance(document, list) else [document]) for document in drawn]
