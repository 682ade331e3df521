"""From an upload to a file in the bucket, through the program's real processes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.drivers.signatures import sign
from statusutils import STREAM

if TYPE_CHECKING:
    from house import House

NO_WEBHOOKS = {"webhook_url": None}


async def _assert_same_bytes(house: House, clip_id: str) -> None:
    clip = await house.until(clip_id, lambda _: True)
    delivered = await house.read(clip.mp4_url)
    stored = await house.read(clip.r2_url)
    assert hashlib.sha256(stored).hexdigest() == hashlib.sha256(delivered).hexdigest()
    assert clip.file_size == len(stored)


async def test_by_form_and_by_tus(house: House, sample: Path) -> None:
    await house.start_web()
    house.start("monitor")
    by_form = await house.create_upload("by form")
    by_tus = await house.create_upload("by tus", size_bytes=sample.stat().st_size, protocol="tus")
    await house.upload_form(by_form["upload_url"], sample)
    await house.upload_tus(by_tus["upload_url"], sample)
    for made in (by_form, by_tus):
        await house.until_complete(made["id"])
        await _assert_same_bytes(house, made["id"])
        status, answer = await house.api("GET", f"/api/clips/{made['id']}/status")
        assert (status, answer["state"], answer["progress"], answer["terminal"]) == (200, "done", 100, True)


async def test_the_history_tells_every_move_and_every_refusal(house: House, sample: Path) -> None:
    await house.start_web()
    house.start("monitor")
    made = await house.create_upload("history")
    await house.upload_form(made["upload_url"], sample)
    await house.until_complete(made["id"])
    status, _ = await house.api("POST", f"/api/clips/{made['id']}/signals", json={"requested_status": "queued"})
    assert status == 202
    await house.until(made["id"], lambda clip: clip.pending == 0)
    _, answer = await house.api("GET", f"/api/clips/{made['id']}/events")
    events = answer["events"]
    moves = [event for event in events if event["kind"] == "moved"]
    orders = [STREAM[move["to_status"]].order for move in moves]
    assert orders == sorted(orders)
    assert all(move["at"] and move["source"] and move["details"]["reason"] for move in moves)
    refused = [event for event in events if event["kind"] == "refused"]
    assert [(event["source"], event["details"]["rule"]) for event in refused] == [("api", "complete-is-final")]


class TestWithoutWebhooks:
    @pytest.fixture
    def stream_options(self) -> dict[str, Any]:
        return NO_WEBHOOKS

    async def test_it_completes_all_the_same(self, house: House, sample: Path) -> None:
        await house.start_web()
        house.start("monitor")
        made = await house.create_upload("no webhooks")
        await house.upload_form(made["upload_url"], sample)
        await house.until_complete(made["id"])
        assert house.stream.calls.count("GET /stream") > 0

    async def test_a_monitor_that_starts_late_finds_the_clip(self, house: House, sample: Path) -> None:
        await house.start_web()
        made = await house.create_upload("late")
        await house.upload_form(made["upload_url"], sample)
        await house.rows.execute("UPDATE clips SET look_at = look_at - interval '1 hour'")
        house.start("monitor")
        await house.until_complete(made["id"])


async def test_an_address_is_fetched_by_the_provider_and_never_shown(house: House, sample: Path) -> None:
    source = await house.serve_file(sample)
    await house.start_web()
    house.start("monitor")
    status, made = await house.api("POST", "/api/clips", json={"source": "url", "url": source, "title": "by address"})
    assert status == 201, made
    await house.until_complete(made["id"])
    await _assert_same_bytes(house, made["id"])
    assert house.stream.calls.count("POST /stream/copy") == 1
    for path in ("", "/status", "/events"):
        assert "canary" not in str(await house.api("GET", f"/api/clips/{made['id']}{path}"))
    assert "canary" not in house.logs()
    assert await house.rows.fetchval("SELECT source_url FROM clips") is None


async def test_a_video_that_is_there_already_is_adopted(house: House, sample: Path) -> None:
    await house.start_web()
    first = await house.create_upload("the video")
    await house.upload_form(first["upload_url"], sample)
    await house.rows.execute("DELETE FROM clips")
    body = {"source": "stream", "cloudflare_uid": first["cloudflare_uid"]}
    status, adopted = await house.api("POST", "/api/clips", json=body)
    assert status == 201, adopted
    house.start("monitor")
    await house.until_complete(adopted["id"])


async def test_a_signed_webhook_is_no_proof(house: House) -> None:
    await house.start_web()
    house.start("monitor")
    made = await house.create_upload("nothing was sent")
    raw = f'{{"uid":"{made["cloudflare_uid"]}","readyToStream":true,"status":{{"state":"ready"}}}}'.encode()
    signature = sign(raw, house.webhook_secret, time.time())
    async with house.http.post(
        f"{house.address}/webhooks/cloudflare", data=raw, headers={"Webhook-Signature": signature}
    ) as answer:
        assert answer.status == 200
    await house.until(made["id"], lambda clip: clip.pending == 0 and clip.version > 2)
    looked = await house.until(made["id"], lambda clip: "last_checked" in clip.processing_details)
    assert looked.status == "uploading"
    assert [event.kind for event in await house.history(made["id"])] == ["created", "noted"]


async def test_error_wins_in_either_order(house: House) -> None:
    await house.start_web()
    ids = [(await house.create_upload(title))["id"] for title in ("one", "two")]
    for clip_id, order in zip(ids, (("error", "mp4_processing"), ("mp4_processing", "error")), strict=True):
        for requested in order:
            status, _ = await house.api("POST", f"/api/clips/{clip_id}/signals", json={"requested_status": requested})
            assert status == 202
    house.start("monitor")
    for clip_id in ids:
        clip = await house.until(clip_id, lambda clip: clip.pending == 0 and clip.status != "uploading")
        assert clip.status == "error"


async def test_deleting_removes_the_video_and_ends_the_clip(house: House, sample: Path) -> None:
    await house.start_web()
    house.start("monitor")
    made = await house.create_upload("to go")
    await house.upload_form(made["upload_url"], sample)
    await house.until_complete(made["id"])
    status, _ = await house.api("DELETE", f"/api/clips/{made['id']}")
    assert status == 202
    clip = await house.until(made["id"], lambda clip: "deleted_at" in clip.processing_details and clip.look_at is None)
    assert (clip.status, clip.processing_details["error_code"]) == ("error", "deleted")
    assert house.stream.calls.count("DELETE /stream/{uid}") == 1


async def test_a_failed_transfer_is_retried_where_it_failed(house: House, sample: Path) -> None:
    """The MP4 is cut short again and again; a person mends it and tries again: it is not made a second time."""
    house.stream.faults.set(mp4_truncated={"share": 0.5, "quietly": True})
    await house.start_web()
    house.start("monitor")
    made = await house.create_upload("cut short")
    await house.upload_form(made["upload_url"], sample)
    failing = await house.until(made["id"], lambda clip: clip.tries >= 1)
    assert failing.r2_url is None
    await house.api("POST", f"/api/clips/{made['id']}/signals", json={"requested_status": "error"})
    await house.until(made["id"], lambda clip: clip.status == "error")
    house.stream.faults.clear()
    status, _ = await house.api("POST", f"/api/clips/{made['id']}/retry")
    assert status == 202
    await house.until(made["id"], lambda clip: clip.attempt == 2)
    await house.until_complete(made["id"])
    assert house.stream.calls.count("POST /stream/{uid}/downloads") == 1
    await _assert_same_bytes(house, made["id"])


async def test_a_signed_error_is_looked_into_before_it_is_believed(house: House, sample: Path) -> None:
    await house.start_web()
    house.start("monitor")
    made = await house.create_upload("said to have failed")
    raw = f'{{"uid":"{made["cloudflare_uid"]}","status":{{"state":"error","errorReasonCode":"ERR_UNKNOWN"}}}}'.encode()
    signature = sign(raw, house.webhook_secret, time.time())
    headers = {"Webhook-Signature": signature}
    async with house.http.post(f"{house.address}/webhooks/cloudflare", data=raw, headers=headers) as answer:
        assert answer.status == 200
    await house.until(made["id"], lambda clip: clip.pending == 0 and "last_checked" in clip.processing_details)
    await house.upload_form(made["upload_url"], sample)
    await house.until_complete(made["id"])
    assert "noted" in [event.kind for event in await house.history(made["id"])]
