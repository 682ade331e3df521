"""Asking that a clip move: everything is recorded, nothing is moved by the asking."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from signals import WAKE_CHANNEL
from statusutils import STREAM


async def test_a_signal_is_recorded_with_its_details_and_moves_nothing(client, place):
    await place.clip("one", kept=1)
    answer = await client.post("/api/clips/one/signals", json={"requested_status": "queued", "details": {"by": "me"}})
    asked = await answer.json()
    assert answer.status == 202
    assert asked == {"id": "one", "requested_status": "queued", "attempt": 1, "recorded": True, "status": "uploading"}
    [signal] = await place.signals("one")
    assert (signal["requested_status"], signal["source"], signal["insists"]) == ("queued", "api", False)
    assert json.loads(signal["details"]) == {"by": "me"}
    clip = await (await client.get("/api/clips/one")).json()
    assert (clip["status"], clip["pending"]) == ("uploading", 1)
    assert clip["processing_details"]["kept"] == 1
    assert clip["processing_details"]["by"] == "me"


async def test_a_persons_error_insists_and_no_other_status_does(client, place):
    await place.clip("one")
    for status in STREAM.by_name:
        assert (await client.post("/api/clips/one/signals", json={"requested_status": status})).status == 202
    recorded = await place.signals("one")
    assert [signal["requested_status"] for signal in recorded if signal["insists"]] == ["error"]
    assert not any(signal["observed"] for signal in recorded)


async def test_the_monitor_is_woken_after_the_signal_is_there(client, place):
    await place.clip("one")
    heard = asyncio.Event()

    def listen(*_: Any) -> None:
        heard.set()

    await place.owner.add_listener(WAKE_CHANNEL, listen)
    await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    async with asyncio.timeout(5):
        await heard.wait()
    assert len(await place.signals("one")) == 1


async def test_an_unknown_status_is_told_which_there_are(client, place):
    await place.clip("one")
    before = await place.fingerprint()
    answer = await client.post("/api/clips/one/signals", json={"requested_status": "done"})
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (422, "unknown-status")
    assert problem["errors"][0]["field"] == "requested_status"
    assert problem["errors"][0]["value"] == "done"
    assert all(name in problem["errors"][0]["reason"] for name in STREAM.by_name)
    assert await place.fingerprint() == before


async def test_a_signal_for_nobody_is_a_404(client):
    answer = await client.post("/api/clips/nope/signals", json={"requested_status": "queued"})
    assert (answer.status, (await answer.json())["code"]) == (404, "unknown-clip")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requested_status"),
        ({"requested_status": None}, "requested_status"),
        ({"requested_status": 5}, "requested_status"),
        ({"requested_status": ["queued"]}, "requested_status"),
        ({"requested_status": "queued\0"}, "requested_status"),
        ({"requested_status": "queued", "details": []}, "details"),
        ({"requested_status": "queued", "details": "x"}, "details"),
        ({"requested_status": "queued", "details": None}, "details"),
        ({"requested_status": "queued", "details": {"a": {"b": ["x\0"]}}}, "details.a.b[0]"),
        ({"requested_status": "queued", "details": {"a\0": 1}}, "details.a\N{REPLACEMENT CHARACTER}"),
        ({"requested_status": "queued", "details": {"a": "\udfff"}}, "details.a"),
        ({"requested_status": "queued", "details": {"a": "x" * 70_000}}, "details"),
        ({"requested_status": "queued", "insists": True}, "insists"),
        ({"requested_status": "queued", "attempt": 9}, "attempt"),
    ],
)
async def test_a_bad_signal_is_named_and_changes_nothing(client, place, body, field):
    await place.clip("one")
    before = await place.fingerprint()
    answer = await client.post("/api/clips/one/signals", json=body)
    assert answer.status == 422
    assert field in [error["field"] for error in (await answer.json())["errors"]]
    assert await place.fingerprint() == before


async def test_details_cannot_forge_a_request(client, place):
    await place.clip("one")
    forged = {"requested_status": "complete", "request": {"attempt": 7, "observed": True, "source": "monitor"}}
    await client.post("/api/clips/one/signals", json={"requested_status": "queued", "details": forged})
    [signal] = await place.signals("one")
    assert (signal["requested_status"], signal["attempt"], signal["source"]) == ("queued", 1, "api")
    assert not signal["observed"]


async def test_a_flood_is_told_to_come_again(client, place):
    await place.clip("one")
    await place.owner.execute("UPDATE clips SET pending = 1000")
    answer = await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    assert (answer.status, (await answer.json())["code"]) == (429, "too-many-signals")
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_failed_clip_is_tried_again_from_its_last_safe_place(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "mp4downloading", hls_url="https://h.example/x", mp4_url="https://h.example/y")
    await place.move("one", "error", error_message="broke off")
    answer = await client.post("/api/clips/one/retry")
    assert answer.status == 202
    assert (await answer.json())["requested_status"] == "mp4downloading"
    assert (await answer.json())["attempt"] == 2
    [signal] = await place.signals("one")
    assert (signal["requested_status"], signal["attempt"], signal["source"]) == ("mp4downloading", 2, "api")


async def test_only_a_failed_clip_can_be_tried_again(client, place):
    await place.clip("one", uid="u1")
    answer = await client.post("/api/clips/one/retry", json={})
    assert (answer.status, (await answer.json())["code"]) == (409, "not-failed")
    assert await place.signals("one") == []


async def test_a_clip_with_nothing_left_cannot_be_tried_again(client, place):
    await place.clip("one", uid="u1", delete_requested=True)
    await place.move("one", "error")
    answer = await client.post("/api/clips/one/retry")
    assert (answer.status, (await answer.json())["code"]) == (409, "cannot-retry")


async def test_a_retry_takes_no_fields(client, place):
    assert (await client.post("/api/clips/one/retry", json={"from": "complete"})).status == 422


@pytest.mark.parametrize("stage", ["uploading", "processing", "complete"])
async def test_a_deletion_is_an_error_that_insists(client, place, stage):
    await place.clip("one", uid="u1")
    if stage != "uploading":
        await place.move("one", stage)
    for _ in range(2):
        assert (await client.delete("/api/clips/one")).status == 202
    signals = await place.signals("one")
    assert {(signal["requested_status"], signal["insists"]) for signal in signals} == {("error", True)}
    clip = await (await client.get("/api/clips/one")).json()
    assert clip["status"] == stage
    assert clip["processing_details"]["delete_requested"] is True
    assert json.loads(signals[0]["details"])["error_code"] == "deleted"


async def test_deleting_a_failed_clip_marks_it_and_asks_for_no_move(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    assert (await client.delete("/api/clips/one")).status == 202
    assert await place.signals("one") == []
    assert (await (await client.get("/api/clips/one")).json())["processing_details"]["delete_requested"] is True


async def test_nobody_cannot_be_deleted(client):
    assert (await client.delete("/api/clips/nope")).status == 404
