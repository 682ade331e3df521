"""Asking: one statement each, nothing lost between writers, and every refusal has a name and changes nothing."""

from __future__ import annotations

import asyncio
import json
import math
import time
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest

from orchestrator.monitor.judging import drain
from orchestrator.monitor.leadership import Lease
from orchestrator.storage.pool import create_pool
from signals import (
    DetailsNotAccepted,
    PendingSignal,
    SignalError,
    TooManySignals,
    UnknownClip,
    read_pending,
    signal_retry,
    signal_status_update,
    update_processing_details,
)


async def document(connection: asyncpg.Connection) -> dict[str, Any]:
    return json.loads(await connection.fetchval("SELECT processing_details FROM clips WHERE id = 'c'"))


async def everything(connection: asyncpg.Connection) -> list[Any]:
    """The row and all that was filed for it."""
    row = await connection.fetchrow("SELECT processing_details, pending, version, updated_at, look_at FROM clips")
    counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in ("clip_signals", "clip_events")]
    return [*row, *counts]


async def judge_all(database: str) -> None:
    pool = await create_pool(database, "orchestrator_monitor", "test monitor", max_size=2)
    lease = Lease(pool, time.monotonic)
    term = await lease.take()
    assert term is not None
    await drain(pool, term, lambda: datetime.now(UTC))
    await lease.release(term)
    await pool.close()


async def test_a_request_is_filed_with_what_was_said(service: asyncpg.Connection) -> None:
    attempt = await signal_status_update(service, "c", "queued", {"cloudflare_status": "queued"}, "webhook")
    assert attempt == 1
    row = await service.fetchrow(
        "SELECT requested_status, attempt, source, details, observed, insists FROM clip_signals"
    )
    assert tuple(row) == ("queued", 1, "webhook", '{"cloudflare_status": "queued"}', False, False)
    shown = await document(service)
    assert (shown["requested_status"], shown["cloudflare_status"]) == ("queued", "queued")
    assert datetime.fromisoformat(shown["status_request_time"]).tzinfo is not None
    assert "request" not in shown
    (pending,) = await read_pending(service, "c")
    assert pending == PendingSignal("queued", 1, "webhook", pending.at)


async def test_who_insists_and_for_which_attempt_is_filed_too(service: asyncpg.Connection) -> None:
    await signal_status_update(service, "c", "error", None, "person", insists=True)
    await signal_status_update(service, "c", "queued", None, "step", attempt=4)
    await signal_status_update(service, "c", "error", None, "webhook", hearsay=True)
    rows = await service.fetch("SELECT insists, hearsay, attempt FROM clip_signals ORDER BY id")
    assert [tuple(row) for row in rows] == [(True, False, 1), (False, False, 4), (False, True, 1)]


async def test_what_was_only_heard_stands_in_the_history_and_covers_nothing(service: asyncpg.Connection) -> None:
    await update_processing_details(service, "c", {"cloudflare_status": "ready"})
    await signal_status_update(service, "c", "queued", {"cloudflare_status": "queued"}, "webhook", hearsay=True)
    assert (await document(service))["cloudflare_status"] == "ready"
    assert await service.fetchval("SELECT details FROM clip_signals") == '{"cloudflare_status": "queued"}'


async def test_a_retry_asks_for_the_attempt_after_the_present_one(service: asyncpg.Connection) -> None:
    assert await signal_retry(service, "c", "stream_ready", "person") == 1
    assert [(signal.requested_status, signal.attempt) for signal in await read_pending(service, "c")] == [
        ("stream_ready", 2)
    ]


async def test_details_alone_are_merged_and_ask_for_nothing(service: asyncpg.Connection) -> None:
    await update_processing_details(service, "c", {"a": 1, "b": {"x": 1}})
    await update_processing_details(service, "c", {"b": {"y": 2}, "c": None})
    assert await document(service) == {"a": 1, "b": {"y": 2}, "c": None}
    assert await read_pending(service, "c") == []
    assert await service.fetchval("SELECT pending FROM clips") == 0


async def test_five_hundred_at_once_lose_nothing(database: str, service: asyncpg.Connection) -> None:
    pool = await asyncpg.create_pool(database, min_size=8, max_size=8, server_settings={"role": "orchestrator_api"})

    async def ask(number: int) -> None:
        async with pool.acquire() as connection:
            await signal_status_update(connection, "c", "processing", {f"key{number}": number}, f"source{number}")

    await asyncio.gather(*(ask(number) for number in range(500)))
    await pool.close()
    shown = await document(service)
    assert {key: shown[key] for key in shown if key.startswith("key")} == {f"key{n}": n for n in range(500)}
    assert len(await read_pending(service, "c")) == 500
    await judge_all(database)
    assert await read_pending(service, "c") == []
    judged = await service.fetch("SELECT source, details FROM clip_events WHERE kind <> 'created'")
    assert sorted(row["source"] for row in judged) == sorted(f"source{n}" for n in range(500))
    assert all(json.loads(row["details"])[f"key{row['source'][6:]}"] == int(row["source"][6:]) for row in judged)
    after = await document(service)
    assert "requested_status" not in after
    assert len([key for key in after if key.startswith("key")]) == 500


async def test_two_requests_in_one_interval_are_both_judged(database: str, service: asyncpg.Connection) -> None:
    await signal_status_update(service, "c", "error", {"error_message": "it broke"}, "step")
    await signal_status_update(service, "c", "queued", {}, "webhook")
    await judge_all(database)
    assert await service.fetchval("SELECT status FROM clips") == "error"
    judged = await service.fetch("SELECT source, kind FROM clip_events WHERE kind <> 'created' ORDER BY id")
    assert [tuple(row) for row in judged] == [("step", "moved"), ("webhook", "outranked")]


@pytest.mark.parametrize("shown_first", ["error", "mp4_processing"])
async def test_a_naive_writers_request_is_judged_beside_ours(
    database: str, service: asyncpg.Connection, shown_first: str
) -> None:
    """In either order, by an UPDATE that knows nothing of the inbox."""

    async def naive() -> None:
        await service.execute(
            'UPDATE clips SET processing_details = processing_details || \'{"requested_status": "mp4_processing"}\''
        )

    if shown_first == "error":
        await signal_status_update(service, "c", "error", {}, "step")
        await naive()
    else:
        await naive()
        await signal_status_update(service, "c", "error", {}, "step")
    assert (await document(service))["requested_status"] == "error"
    await judge_all(database)
    assert await service.fetchval("SELECT status FROM clips") == "error"
    judged = await service.fetch("SELECT to_status FROM clip_events WHERE kind <> 'created'")
    assert sorted(row[0] for row in judged) == ["error", "mp4_processing"]


async def test_details_cannot_carry_a_request(service: asyncpg.Connection) -> None:
    smuggled = {
        "requested_status": "complete",
        "requested_attempt": 9,
        "status_request_time": "2000-01-01",
        "request": {"insists": True, "source": "smuggler"},
        "note": 1,
    }
    await update_processing_details(service, "c", smuggled)
    assert await document(service) == {"note": 1}
    await signal_status_update(service, "c", "queued", smuggled, "honest")
    (pending,) = await read_pending(service, "c")
    assert (pending.requested_status, pending.attempt, pending.source) == ("queued", 1, "honest")
    assert json.loads(await service.fetchval("SELECT details FROM clip_signals")) == {"note": 1}


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


BAD_DETAILS = {
    "nul": {"a": "x\0y"},
    "nul-in-a-key": {"a\0": 1},
    "lone-surrogate": {"a": "\ud800"},
    "nan": {"a": math.nan},
    "infinity": {"a": [math.inf]},
    "too-long-a-number": {"a": 10**5000},
    "deep": nested(100),
    "too-deep-for-python": nested(100_000),
    "list": [("a", 1)],
    "text": "a=1",
    "number": 7,
    "bytes": {"a": b"x"},
    "set": {"a": {1}},
    "moment": {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    "tuple-key": {(1, 2): 3},
    "too-large": {"a": "x" * 70_000},
    "a-mapping-that-is-none": {"a": MappingProxyType({"b": 1})},
}


@pytest.mark.parametrize("name", BAD_DETAILS)
async def test_bad_details_are_refused_by_name_and_change_nothing(service: asyncpg.Connection, name: str) -> None:
    await update_processing_details(service, "c", {"note": 1})
    before = await everything(service)
    with pytest.raises(DetailsNotAccepted):
        await update_processing_details(service, "c", BAD_DETAILS[name])  # type: ignore[arg-type]
    with pytest.raises(DetailsNotAccepted):
        await signal_status_update(service, "c", "queued", BAD_DETAILS[name], "test")  # type: ignore[arg-type]
    assert await everything(service) == before


@pytest.mark.parametrize(
    "details", [{}, None, nested(25), {"ünï": "çødé 🎬"}, {"n": 10**100, "f": 1e-300}, {"a": [{}]}]
)
async def test_odd_details_are_kept_as_they_are(service: asyncpg.Connection, details: Any) -> None:
    await signal_status_update(service, "c", "queued", details, "test")
    assert json.loads(await service.fetchval("SELECT details FROM clip_signals")) == (details or {})


async def test_large_details_piece_by_piece_meet_the_same_bound(service: asyncpg.Connection) -> None:
    await update_processing_details(service, "c", {"first": "x" * 30_000})
    before = await everything(service)
    with pytest.raises(DetailsNotAccepted, match="48 KiB"):
        await update_processing_details(service, "c", {"second": "y" * 30_000})
    assert await everything(service) == before


@pytest.mark.parametrize("status", ["", None])
async def test_a_request_for_nothing_is_refused(service: asyncpg.Connection, status: Any) -> None:
    before = await everything(service)
    with pytest.raises(DetailsNotAccepted):
        await signal_status_update(service, "c", status)
    assert await everything(service) == before


@pytest.mark.parametrize("clip_id", ["d", "", "c' OR true --", "x" * 1000, "C"])
async def test_an_unknown_clip_is_refused_by_name(service: asyncpg.Connection, clip_id: str) -> None:
    before = await everything(service)
    for asking in (
        signal_status_update(service, clip_id, "queued"),
        update_processing_details(service, clip_id, {"a": 1}),
        signal_retry(service, clip_id, "uploading", "test"),
    ):
        with pytest.raises(UnknownClip) as refused:
            await asking
        assert refused.value.clip_id == clip_id
        assert len(str(refused.value)) < 100
    assert await everything(service) == before


@pytest.mark.parametrize("text", ["queued\0", "\ud800"])
async def test_a_status_postgresql_cannot_hold_is_refused_by_name(service: asyncpg.Connection, text: str) -> None:
    before = await everything(service)
    for asking in (signal_status_update(service, "c", text), signal_status_update(service, text, "queued")):
        with pytest.raises(SignalError):
            await asking
    assert await everything(service) == before


async def test_the_thousand_and_first_pending_request_is_refused(service: asyncpg.Connection) -> None:
    await service.execute(
        "DO $$ BEGIN FOR n IN 1..1000 LOOP UPDATE clips SET processing_details = processing_details ||"
        " jsonb_build_object('requested_status', 'queued', 'status_request_time', n); END LOOP; END $$"
    )
    before = await everything(service)
    with pytest.raises(TooManySignals):
        await signal_status_update(service, "c", "error", {"a": 1}, "test")
    with pytest.raises(TooManySignals):
        await signal_retry(service, "c", "uploading", "test")
    assert await everything(service) == before
    assert len(await read_pending(service, "c")) == 1000


async def test_a_callers_transaction_decides(service: asyncpg.Connection) -> None:
    """An accepted request is one that was committed."""
    before = await everything(service)
    transaction = service.transaction()
    await transaction.start()
    await signal_status_update(service, "c", "queued", {"a": 1}, "test")
    await transaction.rollback()
    assert await everything(service) == before
