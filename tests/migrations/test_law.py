"""The trigger refuses exactly what the law refuses, whoever sends the statement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from statusutils import STREAM, TABLES, Position, Request, refusal, span

NAMES = [row.name for row in STREAM.statuses]


async def allows(connection: asyncpg.Connection, statement: str, *values: object) -> bool:
    """Whether the database lets *statement* through; nothing of it stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return (await connection.execute(statement, *values)) == "UPDATE 1"
    except asyncpg.CheckViolationError:
        return False
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("role", [None, "orchestrator_monitor"])
@pytest.mark.parametrize("current", NAMES)
async def test_every_pair_of_statuses_in_every_attempt(acting: asyncpg.Connection, current: str, reach) -> None:
    connection = acting
    await reach(connection, "c", current, attempt=2)
    standing = Position(2, current, float(await connection.fetchval("SELECT progress FROM clips")))
    for attempt in (1, 2, 3, 4):
        for new in [*NAMES, "sleeping", ""]:
            if (attempt, new) == (2, current):
                continue  # staying is no move
            # What evidence and insistence add is beyond the database: it gets the most that they allow.
            expected = refusal(STREAM, standing, Request(attempt, new, observed=True, insists=True)) is None
            got = await allows(
                connection,
                "UPDATE clips SET status = $1, attempt = $2,"
                " progress = CASE WHEN $1 = 'error' THEN progress ELSE $3 END",
                new,
                attempt,
                STREAM[new].min_progress if new in STREAM else 50,
            )
            # The alternating pair keeps what was reached, so the lower minimum is refused for its progress alone.
            if (current, new, attempt) == ("mp4_processing", "waitformp4", 2):
                assert not got
                got = await allows(connection, "UPDATE clips SET status = 'waitformp4'")
            assert got == expected, (current, new, attempt)


@pytest.mark.parametrize("status", [name for name in NAMES if name != "error"])
async def test_progress_belongs_to_its_status(owner: asyncpg.Connection, reach, status: str) -> None:
    await reach(owner, "c", "error")
    low, high = (Decimal(str(bound)) for bound in span(status))
    enter = "UPDATE clips SET status = $1, attempt = 2, progress = $2"
    if status == "complete":  # no attempt starts there
        await owner.execute(enter, "r2_uploading", 95)
        enter = "UPDATE clips SET status = $1, progress = $2"
    assert await allows(owner, enter, status, low)
    assert await allows(owner, enter, status, high)
    assert not await allows(owner, enter, status, low - Decimal("0.01"))
    assert not await allows(owner, enter, status, high + Decimal("0.01"))


async def test_progress_never_falls_and_stands_still_at_error(monitor: asyncpg.Connection, reach) -> None:
    await reach(monitor, "c", "processing")
    await monitor.execute("UPDATE clips SET progress = 57.5")
    assert not await allows(monitor, "UPDATE clips SET progress = 57.49")
    assert await allows(monitor, "UPDATE clips SET progress = 57.5")
    assert await allows(monitor, "UPDATE clips SET progress = 57.51")
    assert not await allows(monitor, "UPDATE clips SET status = 'error', progress = 58")
    await monitor.execute("UPDATE clips SET status = 'error'")
    assert await monitor.fetchval("SELECT progress FROM clips") == Decimal("57.50")
    assert not await allows(monitor, "UPDATE clips SET progress = 58")
    assert not await allows(monitor, "UPDATE clips SET progress = 0")


async def test_what_a_clip_is_never_changes(owner: asyncpg.Connection, reach) -> None:
    await reach(owner, "c", "queued")
    assert not await allows(owner, "UPDATE clips SET id = 'd'")
    assert not await allows(owner, "UPDATE clips SET pipeline = 'other'")
    assert not await allows(owner, "UPDATE clips SET created_at = created_at - interval '1 day'")


async def test_an_epoch_that_is_over_writes_nothing(monitor: asyncpg.Connection, reach) -> None:
    await reach(monitor, "c", "queued")
    await monitor.execute("UPDATE clips SET epoch = 7")
    assert not await allows(monitor, "UPDATE clips SET status = 'processing', progress = 50, epoch = 6")
    assert await allows(monitor, "UPDATE clips SET status = 'processing', progress = 50, epoch = 7")
    assert await allows(monitor, "UPDATE clips SET status = 'processing', progress = 50, epoch = 8")


async def test_an_unfinished_clip_is_always_looked_at_again(monitor: asyncpg.Connection, reach) -> None:
    for status in NAMES:
        await reach(monitor, status, status)
        is_end = STREAM[status].is_terminal
        assert await allows(monitor, "UPDATE clips SET look_at = NULL WHERE id = $1", status) == is_end


async def test_every_change_raises_the_version_and_never_sets_the_time_back(owner: asyncpg.Connection, reach) -> None:
    await reach(owner, "c", "queued")
    before = await owner.fetchrow("SELECT version, updated_at FROM clips")
    await owner.execute("UPDATE clips SET title = 'x', version = 1, updated_at = '2000-01-01'")
    after = await owner.fetchrow("SELECT version, updated_at FROM clips")
    assert after["version"] == before["version"] + 1
    assert after["updated_at"] > before["updated_at"]


# What a statement of the engine's sets itself, so that what is lawful need not go through the function.
COUNTED = "version = version + 1, updated_at = greatest(clock_timestamp(), updated_at)"

UNLAWFUL = {
    "backward": ("status = 'uploading', progress = 30", "backward"),
    "beyond-its-span": ("progress = 50", "progress-span"),
    "below-its-span": ("status = 'processing'", "progress-span"),
    "unknown-status": ("status = 'sleeping'", "backward"),
    "progress-falls": ("progress = 29", "progress-falls"),
    "progress-at-the-end": ("status = 'error', progress = 40", "progress-falls"),
    "attempt-skipped": ("attempt = 3", "attempt"),
    "attempt-opened-too-early": ("attempt = 2", "attempt"),
    "epoch-over": ("epoch = 4", "stale-epoch"),
    "another-id": ("id = 'd'", "identity"),
    "another-pipeline": ("pipeline = 'cut'", "identity"),
    "another-birth": ("created_at = created_at - interval '1 day'", "identity"),
    "too-deep": (
        f"processing_details = '{{\"a\": {'[' * 33}{']' * 33}}}'",
        "processing_details_is_shallow",
    ),
    "too-long-a-number": ("processing_details = '{\"a\": [1e301]}'", "processing_details_has_plain_numbers"),
    "too-long-a-number-below": (
        'processing_details = \'{"a": {"b": -1e301}}\'',
        "processing_details_has_plain_numbers",
    ),
}


@pytest.mark.parametrize("role", [None, "orchestrator_monitor"])
@pytest.mark.parametrize("what", UNLAWFUL)
async def test_the_quick_way_past_the_function_lets_nothing_through_that_it_refuses(
    acting: asyncpg.Connection, reach, what: str
) -> None:
    await reach(acting, "c", "queued")
    await acting.execute("UPDATE clips SET epoch = 5")
    statement, constraint = UNLAWFUL[what]
    for counted in ("title = title", COUNTED):
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await acting.execute(f"UPDATE clips SET {statement}, {counted}")
        assert caught.value.constraint_name == constraint
    assert await acting.fetchval("SELECT status || ' ' || progress || ' ' || epoch FROM clips") == "queued 30.00 5"


async def test_the_quick_way_leads_nobody_out_of_error_within_an_attempt(owner: asyncpg.Connection, reach) -> None:
    # Progress stands still at an error, so it may belong to the status before: the move alone is unlawful.
    await reach(owner, "c", "queued")
    await owner.execute("UPDATE clips SET status = 'error'")
    for counted in ("title = title", COUNTED):
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await owner.execute(f"UPDATE clips SET status = 'queued', look_at = clock_timestamp(), {counted}")
        assert caught.value.constraint_name == "backward"


@pytest.mark.parametrize(
    "moment", ["clock_timestamp() + interval '1 hour'", "clock_timestamp() - interval '1 minute'", "updated_at"]
)
async def test_a_time_that_is_not_now_is_set_right(owner: asyncpg.Connection, reach, moment: str) -> None:
    await reach(owner, "c", "queued")
    before = await owner.fetchval("SELECT clock_timestamp()")
    await owner.execute(f"UPDATE clips SET version = version + 1, updated_at = {moment}")
    assert await owner.fetchval("SELECT updated_at BETWEEN $1 AND clock_timestamp() FROM clips", before)


async def test_a_request_is_filed_whoever_counts_the_version(owner: asyncpg.Connection, reach) -> None:
    await reach(owner, "c", "queued")
    await owner.execute(f'UPDATE clips SET {COUNTED}, processing_details = \'{{"requested_status": "error"}}\'')
    assert await owner.fetchval("SELECT pending FROM clips") == 1
    assert await owner.fetchval("SELECT requested_status FROM clip_signals") == "error"


async def test_the_generated_functions_say_what_the_tables_say(owner: asyncpg.Connection) -> None:
    rows = {(row["pipeline"], row["status"]): row for row in await owner.fetch("SELECT * FROM status_rows()")}
    assert set(rows) == {(table.pipeline, status.name) for table in TABLES.values() for status in table.statuses}
    for table in TABLES.values():
        for status in table.statuses:
            row = rows[table.pipeline, status.name]
            assert (float(row["floor"]), float(row["ceiling"])) == span(status.name, table)
            assert row["ord"] == status.order
            assert status.order == await owner.fetchval("SELECT status_order($1, $2)", table.pipeline, status.name)
            holds = "SELECT status_holds($1, $2, $3::float8::numeric)"
            low, high = span(status.name, table)
            for progress in (low, high, low - 0.01, high + 0.01):
                expected = status.name == "error" or low <= progress <= high
                assert await owner.fetchval(holds, table.pipeline, status.name, progress) == expected
    assert not await owner.fetchval("SELECT status_holds('stream', 'sleeping', 50)")
    assert await owner.fetchval("SELECT status_order('stream', 'sleeping')") is None


async def test_history_is_written_once(owner: asyncpg.Connection, monitor: asyncpg.Connection, reach) -> None:
    await reach(owner, "c", "queued")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await owner.execute("UPDATE clip_events SET source = 'somebody else'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await monitor.execute("UPDATE clip_events SET source = 'somebody else'")


A_LINE = "INSERT INTO clip_events (clip_id, at, kind, attempt, to_status, source) VALUES ($1, $2, 'moved', 1, $3, 'me')"
OLD, YOUNG = timedelta(days=8), timedelta(days=6)


@pytest.mark.parametrize("role", [None, "orchestrator_monitor"])
@pytest.mark.parametrize(
    ("stands", "age", "line", "rule"),
    [
        ("queued", OLD, "queued", "history-in-use"),
        ("error", YOUNG, "queued", "history-is-young"),
        ("error", OLD, "error", "history-of-an-end"),
        ("error", OLD, "complete", "history-of-an-end"),
        ("error", OLD, "queued", None),
    ],
    ids=["a-clip-on-its-way", "six-days-old", "a-failure", "a-success", "an-old-line-of-an-ended-clip"],
)
async def test_of_history_only_old_lines_of_ended_clips_can_be_deleted(
    acting, owner: asyncpg.Connection, reach, stands: str, age: timedelta, line: str, rule: str | None
) -> None:
    await reach(owner, "c", stands)
    await owner.execute(A_LINE, "c", datetime.now(UTC) - age, line)
    deletion = f"DELETE FROM clip_events WHERE kind = 'moved' AND to_status = '{line}'"
    if rule is None:
        assert await acting.execute(deletion) == "DELETE 1"
        return
    with pytest.raises(asyncpg.CheckViolationError) as refusal:
        await acting.execute(deletion)
    assert refusal.value.constraint_name == rule
