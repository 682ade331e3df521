"""Notifications are kept for people: bounded, without secrets, beside the way of the notification itself."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from time import process_time
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from orchestrator import beside
from orchestrator.drivers.cloudflare_models import parse_webhook_video
from orchestrator.drivers.signatures import HEADER, sign
from orchestrator.storage import deliveries as storage
from orchestrator.storage.clips import read_clip
from orchestrator.web import delivery_log
from orchestrator.web.deliveries import replay
from orchestrator.web.delivery_log import DELIVERY_LOG
from orchestrator.web.redaction import KEPT_MAX_BYTES, body_to_keep, without_addresses
from orchestrator.web.views import timestamp

PATH = "/webhooks/cloudflare"
SECRET = "the-new-webhook-secret"


def body_of(uid: str = "u1", state: str = "ready", **more: Any) -> bytes:
    return json.dumps({"uid": uid, "readyToStream": state == "ready", "status": {"state": state}, **more}).encode()


async def notify(client: TestClient[Any, Any], place: Any, body: bytes, secret: str = SECRET, **ago: float) -> int:
    at = place.clock().timestamp() - ago.get("seconds", 0)
    answer = await client.post(PATH, data=body, headers={HEADER: sign(body, secret, at)})
    return answer.status


async def listed(client: TestClient[Any, Any], clip_id: str = "one") -> dict[str, Any]:
    await client.app[DELIVERY_LOG].write()
    answer = await client.get(f"/api/clips/{clip_id}/deliveries")
    assert answer.status == 200
    return await answer.json()


@pytest.fixture(autouse=True)
async def no_deliveries(place):
    """None yet, and a clock in the hand that agrees with the database's, by which they are forgotten."""
    place.clock.at = await place.owner.fetchval("SELECT date_trunc('hour', clock_timestamp())")
    await place.owner.execute("TRUNCATE webhook_deliveries, webhook_refusals")


async def test_a_delivery_is_listed_with_its_signature_state_and_outcome(client, place):
    await place.clip("one", uid="u1")
    body = body_of(meta={"name": "A day"})
    assert await notify(client, place, body) == 200
    [found] = (await listed(client))["deliveries"]
    assert found | {"id": 0} == {
        "id": 0,
        "cloudflare_uid": "u1",
        "received_at": timestamp(place.clock()),
        "last_at": timestamp(place.clock()),
        "times": 1,
        "signature": "valid",
        "state": "ready",
        "outcome": "recorded",
        "size_bytes": len(body),
        "body": json.dumps(json.loads(body), separators=(",", ":")),
    }


async def test_they_are_written_by_themselves(client, place, monkeypatch):
    monkeypatch.setattr(beside, "GATHER_SECONDS", 0.0)
    await place.clip("one", uid="u1")
    await notify(client, place, body_of())
    async with asyncio.timeout(10):
        while not await place.owner.fetchval("SELECT count(*) FROM webhook_deliveries"):
            await asyncio.sleep(0.01)


async def test_the_same_one_again_is_the_same_row(client, place):
    await place.clip("one", uid="u1")
    for _ in range(3):
        await notify(client, place, body_of())
    assert [each["times"] for each in (await listed(client))["deliveries"]] == [3]
    place.clock.move(seconds=60)
    await notify(client, place, body_of())
    [found] = (await listed(client))["deliveries"]
    assert (found["times"], found["last_at"]) == (4, timestamp(place.clock()))
    assert found["received_at"] == timestamp(place.clock() - timedelta(seconds=60))


async def test_one_that_was_really_signed_but_too_late_is_kept_as_stale(client, place):
    await place.clip("one", uid="u1")
    assert await notify(client, place, body_of(), seconds=3600) == 401
    found = await listed(client)
    assert [(each["signature"], each["outcome"]) for each in found["deliveries"]] == [("stale", "refused")]
    assert [(each["reason"], each["times"]) for each in found["refused_within_a_day"]] == [("stale", 1)]


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_a_forged_one_is_counted_and_never_kept(client, place, seconds):
    await place.clip("one", uid="u1")
    for number in range(5):
        body = body_of(number=number)
        assert await notify(client, place, body, "somebody-elses-secret", seconds=seconds) == 401
    found = await listed(client)
    assert found["deliveries"] == []
    reason = "stale" if seconds else "mismatch"
    assert [(each["reason"], each["times"]) for each in found["refused_within_a_day"]] == [(reason, 5)]


async def test_what_was_refused_within_a_day_is_told_by_reason(client, place):
    await place.clip("one", uid="u1")
    for _ in range(2):
        await notify(client, place, body_of(), "somebody-elses-secret")
    await client.post(PATH, data=b"{}")
    found = (await listed(client))["refused_within_a_day"]
    assert [(each["reason"], each["times"]) for each in found] == [("mismatch", 2), ("missing", 1)]
    place.clock.move(seconds=-2 * 86400)
    await notify(client, place, body_of(), "somebody-elses-secret")
    assert sum(each["times"] for each in (await listed(client))["refused_within_a_day"]) == 3


async def test_a_video_that_is_not_ours_leaves_nothing(client, place):
    await place.clip("one", uid="u1")
    await notify(client, place, body_of(uid="f" * 32))
    await client.app[DELIVERY_LOG].write()
    assert await place.owner.fetchval("SELECT count(*) FROM webhook_deliveries") == 0


async def test_a_state_that_asks_for_nothing_is_ignored_and_a_full_inbox_refuses(client, place):
    await place.clip("one", uid="u1")
    await notify(client, place, body_of(state="transmogrifying"))
    await place.owner.execute("ALTER TABLE clips DISABLE TRIGGER USER")
    await place.owner.execute("UPDATE clips SET pending = 1000")
    await place.owner.execute("ALTER TABLE clips ENABLE TRIGGER USER")
    assert await notify(client, place, body_of()) == 429
    outcomes = {each["state"]: each["outcome"] for each in (await listed(client))["deliveries"]}
    assert outcomes == {"transmogrifying": "ignored", "ready": "refused"}


async def test_a_clip_keeps_its_newest_and_all_clips_together_no_more_than_is_kept(client, place, monkeypatch):
    await place.clip("one", uid="u1")
    for number in range(storage.KEPT_PER_CLIP + 5):
        await notify(client, place, body_of(number=number))
        place.clock.move(seconds=1)
    bodies = [json.loads(each["body"])["number"] for each in (await listed(client))["deliveries"]]
    assert bodies == list(reversed(range(5, storage.KEPT_PER_CLIP + 5)))
    old = place.clock() - timedelta(days=3650)
    await place.owner.execute("UPDATE webhook_deliveries SET last_at = $1", old)
    await storage.forget_deliveries(place.owner)
    assert (await listed(client))["deliveries"] == []


async def test_a_flood_is_bounded_in_memory_and_told(client, place, monkeypatch):
    monkeypatch.setattr(delivery_log, "HELD_MAX", 10)
    await place.clip("one", uid="u1")
    notes = client.app[DELIVERY_LOG]
    for number in range(500):
        body = body_of(number=number)
        notes.keep(body, parse_webhook_video(body), "valid", "recorded", place.clock())
    found = await listed(client)
    assert len(found["deliveries"]) == 10
    assert [(each["reason"], each["times"]) for each in found["refused_within_a_day"]] == [("not-kept", 490)]


async def test_a_database_that_cannot_keep_them_is_no_reason_to_refuse_a_notification(client, place, monkeypatch):
    async def fails(*_: Any) -> None:
        raise RuntimeError("of whatever kind")

    monkeypatch.setattr(delivery_log, "keep_deliveries", fails)
    await place.clip("one", uid="u1")
    assert await notify(client, place, body_of()) == 200
    await client.app[DELIVERY_LOG].write()
    assert len(await place.signals("one")) == 1
    monkeypatch.undo()
    assert await notify(client, place, body_of()) == 200
    assert len((await listed(client))["deliveries"]) == 1


def kept(raw: bytes) -> str:
    return body_to_keep(raw, parse_webhook_video(raw))


def test_no_address_with_its_path_and_no_secret_is_kept():
    secret = "canary"
    raw = body_of(
        thumbnail=f"https://customer-x.cloudflarestream.com/u1/thumbnails/thumbnail.jpg?token={secret}",
        preview=f"https://customer-x.cloudflarestream.com/{secret * 12}/watch",
        playback={"hls": "https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8", "dash": f"//x?{secret}#"},
        meta={"downloaded-from": f"https://user:{secret}@example.org/{secret}.mp4?sig={secret}", f"s3://b/{secret}": 1},
        uploadURL=f"https://upload.example.org/{secret}",
        token=secret,
        list=[f"see https://example.org/{secret} for more"],
        requireSignedURLs=True,
        status={"state": "error", "errorReasonText": f"could not fetch https://example.org/a?{secret}"},
    )
    text = kept(raw)
    document = json.loads(text)
    document["playback"].pop("dash")
    assert secret not in json.dumps(document)
    assert document["thumbnail"] == "https://customer-x.cloudflarestream.com/u1/thumbnails/thumbnail.jpg"
    assert document["playback"]["hls"] == "https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8"
    assert document["meta"]["downloaded-from"] == "https://example.org/…"
    assert document["requireSignedURLs"] is True
    assert document["status"]["errorReasonText"] == "could not fetch https://example.org/…"


@pytest.mark.parametrize(
    ("said", "kept_of_it"),
    [
        ("no address here: a//b", "no address here: a//b"),
        ("see (https://example.org/canary).", "see https://example.org/…"),
        ("https://user:canary@example.org:8443/x", "https://example.org:8443/…"),
        ("https://user:can/ary@example.org/x", "https://…"),
        ("https://[2001:db8::1]:80/canary", "https://[2001:db8::1]:80/…"),
        ("s3://bucket/canary https://a.example/canary", "s3://bucket/… https://a.example/…"),
        ("https:///canary", "https://…"),
        ("https://example.org\\\\canary", "https://example.org/…"),
        ("://", "://…"),
        ("b.example/v?X-Amz-Signature=canary", "b.example/v?X-Amz-Signature=…"),
        ("https%3A%2F%2Fb%2Fv%3FX-Amz-Signature%3Dcanary%26a", "https%3A%2F%2Fb%2Fv%3FX-Amz-Signature%3D…"),
        ("https://h/ path?sig=canary&a=1", "https://h/… path?sig=…&a=1"),
    ],
)
def test_an_address_is_cut_to_its_host_wherever_it_stands(said, kept_of_it):
    assert without_addresses(said) == kept_of_it


async def test_a_state_that_is_an_address_takes_no_others_notes_along(client, place):
    """Cut to its host it may be longer than before."""
    await place.clip("one", uid="u1")
    await place.clip("two", uid="u2")
    assert await notify(client, place, body_of(state="a://b " * 16)) == 200
    assert await notify(client, place, body_of(uid="u2")) == 200
    for clip_id in ("one", "two"):
        assert len((await listed(client, clip_id))["deliveries"]) == 1


async def test_without_a_number_the_newest_that_came_in_time_is_replayed(client, place):
    """A stranger who recorded an old one can send it again at any time."""
    await place.clip("one", uid="u1")
    assert await notify(client, place, body_of(state="inprogress")) == 200
    place.clock.move(seconds=1)
    assert await notify(client, place, body_of(state="error"), seconds=86_400) == 401
    assert [each["signature"] for each in (await listed(client))["deliveries"]] == ["stale", "valid"]
    async with place.services.pool.acquire() as connection:
        asked = await replay(connection, await read_clip(connection, "one"), None, "test")
    assert asked[0] == "processing"


async def test_all_clips_together_keep_no_more_rows_than_allowed_however_many_numbers_were_used(client, place):
    """A repeat uses a number up, too."""
    row = "('one', 'u1', now(), now(), 1, 'valid', 'ready', 'recorded', 1, sha256($1::text::bytea), '{}')"
    await place.clip("one", uid="u1")
    columns = "clip_id, cloudflare_uid, received_at, last_at, times, signature, state, outcome, size_bytes, body_sha256"
    await place.owner.execute(f"INSERT INTO webhook_deliveries ({columns}, body) VALUES {row}", "first")
    await place.owner.execute(f"SELECT setval('webhook_deliveries_id_seq', {10 * storage.KEPT_IN_ALL})")
    await place.owner.execute(f"INSERT INTO webhook_deliveries ({columns}, body) VALUES {row}", "second")
    await storage.forget_deliveries(place.owner)
    assert await place.owner.fetchval("SELECT count(*) FROM webhook_deliveries") == 2


@pytest.mark.parametrize("filling", ["x" * 40_000, "\u202e" * 4000, "\\" * 8000])
def test_a_large_body_is_cut_to_what_counts_and_can_still_be_replayed(filling):
    raw = body_of(state="error", meta={"name": filling})
    text = kept(raw)
    assert len(text.encode()) <= KEPT_MAX_BYTES
    assert parse_webhook_video(text.encode()).state == parse_webhook_video(raw).state


@pytest.mark.parametrize("filling", ["x", "x.", "://", "a://", " a", "@", "x:/", "\\\\"])
def test_no_body_takes_long_to_clear(filling):
    raw = body_of(meta={"name": (filling * 11_000)[:11_000]})
    began = process_time()
    kept(raw)
    assert process_time() - began < 0.1  # it takes a millisecond or two


async def test_replaying_goes_through_the_same_door(client, place):
    await place.clip("one", uid="u1")
    await notify(client, place, body_of())
    [found] = (await listed(client))["deliveries"]
    answer = await client.post(f"/api/clips/one/deliveries/{found['id']}/replay")
    assert answer.status == 202
    assert await answer.json() == {
        "id": "one", "requested_status": "stream_ready", "attempt": 1, "recorded": True, "status": "uploading",
    }  # fmt: skip
    first, second = [dict(signal) for signal in await place.signals("one")]
    assert (first.pop("source"), second.pop("source")) == ("webhook", "webhook replay")
    assert first == second


@pytest.mark.parametrize("number", ["0", "x", "-1", "9" * 25, "%00"])
async def test_replaying_what_is_not_kept_is_a_404(client, place, number):
    await place.clip("one", uid="u1")
    answer = await client.post(f"/api/clips/one/deliveries/{number}/replay")
    assert (answer.status, (await answer.json())["code"]) == (404, "unknown-delivery")


async def test_a_delivery_is_replayed_for_its_own_clip_alone_and_only_if_it_asks(client, place):
    await place.clip("one", uid="u1")
    await place.clip("two", uid="u2")
    await notify(client, place, body_of(state="transmogrifying"))
    [found] = (await listed(client))["deliveries"]
    answer = await client.post(f"/api/clips/two/deliveries/{found['id']}/replay")
    assert (await answer.json())["code"] == "unknown-delivery"
    answer = await client.post(f"/api/clips/one/deliveries/{found['id']}/replay")
    assert (answer.status, (await answer.json())["code"]) == (409, "cannot-replay")
    assert await place.signals("one") == []


async def test_replaying_from_another_sites_page_is_refused(client, place):
    await place.clip("one", uid="u1")
    for path in ("/api/clips/one/deliveries/1/replay", "/clips/one/deliveries/1/replay"):
        answer = await client.post(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403


async def test_an_unknown_clip_has_no_deliveries(client):
    answer = await client.get("/api/clips/nope/deliveries")
    assert (answer.status, (await answer.json())["code"]) == (404, "unknown-clip")
