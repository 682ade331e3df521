"""Requests that arrive in ``processing_details``, from whoever writes them: each is filed, none hides another."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

MERGE = "UPDATE clips SET processing_details = processing_details || $1::jsonb WHERE id = 'c'"


@pytest.fixture
async def clip(api: asyncpg.Connection, reach) -> asyncpg.Connection:
    """The API's connection, with one clip 'c' there."""
    await api.execute("INSERT INTO clips (id) VALUES ('c')")
    return api


async def merge(connection: asyncpg.Connection, **keys: Any) -> None:
    await connection.execute(MERGE, json.dumps(keys))


async def document(connection: asyncpg.Connection) -> dict[str, Any]:
    return json.loads(await connection.fetchval("SELECT processing_details FROM clips WHERE id = 'c'"))


async def filed(connection: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await connection.fetch("SELECT requested_status FROM clip_signals ORDER BY id")]


async def test_a_naive_writers_request_is_filed(clip: asyncpg.Connection) -> None:
    await merge(clip, requested_status="error")
    assert await filed(clip) == ["error"]
    assert (await document(clip))["requested_status"] == "error"
    assert await clip.fetchval("SELECT pending FROM clips") == 1


async def test_a_naive_writer_does_not_hide_a_higher_request(clip: asyncpg.Connection) -> None:
    await merge(clip, requested_status="error", status_request_time="2026-01-01T00:00:00Z")
    await merge(clip, requested_status="mp4_processing")
    assert await filed(clip) == ["error", "mp4_processing"]
    shown = await document(clip)
    assert (shown["requested_status"], shown["status_request_time"]) == ("error", "2026-01-01T00:00:00Z")
    await merge(clip, requested_status="queued")
    await merge(clip, requested_status="uploading")
    assert await filed(clip) == ["error", "mp4_processing", "queued", "uploading"]
    assert (await document(clip))["requested_status"] == "error"


async def test_a_higher_request_replaces_the_one_shown(clip: asyncpg.Connection) -> None:
    await merge(clip, requested_status="queued")
    await merge(clip, requested_status="processing")
    assert (await document(clip))["requested_status"] == "processing"
    assert await filed(clip) == ["queued", "processing"]


async def test_details_alone_ask_for_nothing_even_beside_a_pending_request(clip: asyncpg.Connection) -> None:
    await merge(clip, note=1)
    assert await filed(clip) == []
    await merge(clip, requested_status="queued")
    await merge(clip, note=2)
    assert await filed(clip) == ["queued"]


async def test_replacing_the_whole_document_loses_no_request(clip: asyncpg.Connection) -> None:
    await merge(clip, requested_status="error")
    await clip.execute("UPDATE clips SET processing_details = '{}'")
    assert await filed(clip) == ["error"]
    assert await clip.fetchval("SELECT pending FROM clips") == 1
    await merge(clip, requested_status="queued")
    assert await filed(clip) == ["error", "queued"]


@pytest.mark.parametrize(
    "status", [None, 7, {"a": 1}, ["error"], True, "x" * 5000, "ünïcode", ""], ids=lambda value: repr(value)[:9]
)
async def test_a_request_of_the_wrong_type_harms_nobody(clip: asyncpg.Connection, status: Any) -> None:
    await merge(clip, requested_status=status)
    assert all(len(asked) <= 100 for asked in await filed(clip))
    await merge(clip, requested_status="error")
    assert (await filed(clip))[-1] == "error"


@pytest.mark.parametrize(
    "request_",
    [7, "x", None, [], {"attempt": "soon"}, {"attempt": -1}, {"attempt": 10**30}, {"details": []}, {"insists": "true"}],
    ids=repr,
)
async def test_a_request_object_of_the_wrong_form_counts_as_a_plain_one(
    clip: asyncpg.Connection, request_: Any
) -> None:
    await merge(clip, requested_status="queued", request=request_)
    signal = await clip.fetchrow("SELECT attempt, source, details, insists, observed FROM clip_signals")
    assert tuple(signal) == (1, "unknown", "{}", False, False)
    assert "request" not in await document(clip)


async def test_nobody_outside_can_claim_to_have_seen_it(clip: asyncpg.Connection) -> None:
    await merge(clip, requested_status="complete", observed=True, request={"observed": True, "source": "me"})
    assert await clip.fetchval("SELECT observed FROM clip_signals") is False


@pytest.mark.parametrize("garbage", ["soon", None, {}, 10**30, -5, 1.5], ids=repr)
async def test_a_spoiled_document_does_not_stop_the_next_request(clip: asyncpg.Connection, garbage: Any) -> None:
    await merge(clip, requested_status="queued", requested_attempt=garbage)
    await merge(clip, requested_attempt=garbage)
    await merge(clip, requested_status="processing", requested_attempt=garbage)
    await merge(clip, requested_status="error")
    assert await filed(clip) == ["queued", "processing", "error"]


@pytest.mark.parametrize("value", ["[]", "null", '"text"', "7", "[1, 2]", "true"])
async def test_the_document_stays_an_object(clip: asyncpg.Connection, value: str) -> None:
    await merge(clip, note=1)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await clip.execute("UPDATE clips SET processing_details = $1::jsonb", value)
    assert refused.value.constraint_name == "processing_details_is_an_object"
    with pytest.raises(asyncpg.NotNullViolationError):
        await clip.execute("UPDATE clips SET processing_details = NULL")
    with pytest.raises(asyncpg.CheckViolationError):
        await clip.execute("INSERT INTO clips (id, processing_details) VALUES ('d', $1::jsonb)", value)
    assert (await document(clip))["note"] == 1


async def test_the_document_is_bounded(clip: asyncpg.Connection) -> None:
    await merge(clip, note="x" * 40_000)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await merge(clip, more="y" * 40_000)
    assert refused.value.constraint_name == "processing_details_is_bounded"
    assert "more" not in await document(clip)


async def test_the_engine_keeps_room_in_a_document_that_others_have_filled(
    clip: asyncpg.Connection, monitor: asyncpg.Connection
) -> None:
    filling = 1024
    while filling:
        try:
            await merge(clip, **{f"filling{await clip.fetchval('SELECT version FROM clips')}": "x" * filling})
        except asyncpg.CheckViolationError:
            filling //= 2
    await monitor.execute(
        "UPDATE clips SET status = 'error', processing_details = processing_details || $1::jsonb",
        json.dumps({"error_message": "m" * 2000, "last_problem": "p" * 4000}),
    )
    assert await clip.fetchval("SELECT status FROM clips") == "error"


async def test_the_documents_depth_is_bounded(clip: asyncpg.Connection) -> None:
    for nested in ('{"a":' * 31 + "1" + "}" * 31, "[" * 31 + "]" * 31):
        await clip.execute(MERGE, f'{{"note": {nested}}}')
    for nested in ('{"a":' * 40 + "1" + "}" * 40, "[" * 5000 + "]" * 5000):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await clip.execute(MERGE, f'{{"deep": {nested}}}')
        assert refused.value.constraint_name == "processing_details_is_shallow"
    assert set(await document(clip)) == {"note"}


@pytest.mark.parametrize("form", ['{{"n": {}}}', '{{"n": [{{"m": {}}}]}}', '{{"request": {{"details": {{"n": {}}}}}}}'])
async def test_no_number_is_too_long_to_be_read_again(clip: asyncpg.Connection, form: str) -> None:
    for number in ("1e5000", "-1e5000", "1e130000", "1.5e301"):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await clip.execute(MERGE, form.format(number))
        assert refused.value.constraint_name == "processing_details_has_plain_numbers"
        with pytest.raises(asyncpg.CheckViolationError):
            await clip.execute("INSERT INTO clips (id, processing_details) VALUES ('d', $1)", form.format(number))
    for number in ("1e300", "-1e300", "1e-5000", "12345678901234567890123456789012345678901234567890"):
        await clip.execute(MERGE, form.format(number))
        await document(clip)


async def test_a_thousand_requests_may_wait_and_not_one_more(clip: asyncpg.Connection) -> None:
    await clip.execute(
        "DO $$ BEGIN FOR n IN 1..1000 LOOP UPDATE clips SET processing_details = processing_details ||"
        " jsonb_build_object('requested_status', 'queued', 'status_request_time', n); END LOOP; END $$"
    )
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await merge(clip, requested_status="error")
    assert refused.value.constraint_name == "pending_signals_are_bounded"
    assert await clip.fetchval("SELECT count(*) FROM clip_signals") == 1000
    await merge(clip, note="details alone still pass")


async def test_writing_to_an_ended_clip_has_it_looked_at_once_more(
    api: asyncpg.Connection, monitor: asyncpg.Connection, reach
) -> None:
    await reach(monitor, "c", "error")
    await monitor.execute("UPDATE clips SET look_at = NULL")
    await merge(api, delete_requested=True)
    assert await api.fetchval("SELECT look_at <= clock_timestamp() FROM clips")
    await monitor.execute("UPDATE clips SET look_at = NULL, processing_details = processing_details || '{\"x\": 1}'")
    assert await api.fetchval("SELECT look_at FROM clips") is None, "the engine's own writing asks for nothing"
