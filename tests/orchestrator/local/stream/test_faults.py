"""Every fault, seen from outside: what it does, and that it stops after as many times as it was given."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError

from orchestrator.local.stream import Dwell, Faults
from orchestrator.local.stream.faults import ROUTES, Api5xx

MIB = 1024 * 1024


async def _get(account, address: str, **arguments) -> tuple[int, aiohttp.typedefs.LooseHeaders, bytes]:
    async with account.session.get(address, **arguments) as answer:
        return answer.status, answer.headers, await answer.read()


# --- API calls -------------------------------------------------------------------------------------


def test_a_misspelt_route_is_refused() -> None:
    with pytest.raises(ValidationError, match="no such route"):
        Api5xx(route="GET /streams")


async def test_known_routes_are_the_served_ones(account) -> None:
    app = account.stream._runner.app
    served = {
        f"{route.method} {route.resource.canonical.partition('{account}')[2] or route.resource.canonical[10:]}"
        for route in app.router.routes()
        if route.resource.canonical.startswith("/client/v4")
    }
    # A GET route answers HEAD as well; nobody breaks that on purpose.
    assert {name for name in served if not name.startswith("HEAD /stream")} - {
        "HEAD /tokens/verify",
        "HEAD /user/tokens/verify",
    } == ROUTES


async def test_api_5xx_bites_as_often_as_told_where_it_is_told(account) -> None:
    account.stream.faults.set(api_5xx={"times": 2, "skip": 1, "route": "GET /stream", "status": 502, "html": True})
    answers = [await account.call("GET", "/stream") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 502, 502, 200]
    assert answers[1].headers["Content-Type"].startswith("text/html")
    account.stream.faults.set(api_5xx={"route": "GET /stream"})
    assert (await account.call("GET", "/stream/storage-usage")).status == 200
    assert (await account.call("GET", "/stream")).code >= 1000


async def test_api_429_with_and_without_retry_after(account) -> None:
    account.stream.faults.set(api_429={"times": 1, "retry_after": 300})
    answer = await account.call("GET", "/stream")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, 971, "300")
    account.stream.faults.set(api_429={"times": 1})
    assert "Retry-After" not in (await account.call("GET", "/stream")).headers
    assert (await account.call("GET", "/stream")).status == 200


async def test_api_refused(account) -> None:
    account.stream.faults.set(api_refused={"times": 1, "status": 403})
    answer = await account.call("GET", "/stream")
    assert (answer.status, answer.code) == (403, 10000)


async def test_api_slow(account) -> None:
    account.stream.faults.set(api_slow={"times": 1, "seconds": 60})
    with pytest.raises(TimeoutError):
        await account.call("GET", "/stream", timeout=aiohttp.ClientTimeout(total=0.1))


async def test_an_answer_is_lost_after_the_work_was_done(account) -> None:
    account.stream.faults.set(api_answer_lost={"times": 1, "route": "POST /stream/direct_upload"})
    with pytest.raises(aiohttp.ClientError):
        await account.call("POST", "/stream/direct_upload", json={"maxDurationSeconds": 5, "meta": {"name": "ghost"}})
    assert [video["meta"]["name"] for video in (await account.call("GET", "/stream")).result] == ["ghost"]


async def test_queue_full_and_quota(account) -> None:
    account.stream.faults.set(queue_full={"times": 1}, quota_exceeded={"times": 1})
    statuses = [
        (await account.call("POST", "/stream/direct_upload", json={"maxDurationSeconds": 5})).status for _ in range(3)
    ]
    assert statuses == [429, 413, 200]


async def test_a_list_omits_a_video_for_a_while(account) -> None:
    for name in ("a", "b"):
        await account.announce(meta={"name": name})
    account.stream.faults.set(list_omits={"times": 2, "video": "a"})
    seen = [[v["meta"]["name"] for v in (await account.call("GET", "/stream")).result] for _ in range(3)]
    assert seen == [["b"], ["b"], ["b", "a"]]
    account.stream.faults.set(list_omits={"times": 1})
    assert (await account.call("GET", "/stream")).result == []


async def test_totals_as_text(account) -> None:
    account.stream.faults.set(total_as_string={"times": 1})
    body = (await account.call("GET", "/stream?include_counts=true")).body
    assert (body["total"], body["range"]) == ("0", "0")


async def test_odd_shapes_of_downloads(account, media: Path) -> None:
    uid = await account.ready(media / "clip.mp4")
    account.stream.faults.set(downloads_none={"times": 1, "shape": "null"})
    assert (await account.call("GET", f"/stream/{uid}/downloads")).result is None
    account.stream.faults.set(downloads_none={"times": 1})
    assert (await account.call("GET", f"/stream/{uid}/downloads")).code == 10003
    account.stream.faults.set(downloads_flat={"times": 1})
    assert set((await account.call("POST", f"/stream/{uid}/downloads")).result) == {"status", "url", "percentComplete"}


async def test_a_delete_that_conflicts(account) -> None:
    uid = (await account.announce())["uid"]
    account.stream.faults.set(delete_conflict={"times": 1})
    answer = await account.call("DELETE", f"/stream/{uid}")
    assert (answer.status, answer.code) == (409, 10046)
    assert (await account.call("DELETE", f"/stream/{uid}")).status == 200


# --- Uploads and processing ------------------------------------------------------------------------


async def test_a_patch_that_stalls_keeps_what_came(account) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(8 * MIB)}
    made = await account.call("POST", "/stream?direct_user=true", headers=headers)
    account.stream.faults.set(tus_patch_408={"times": 1})
    body = b"x" * (8 * MIB)
    patch = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}

    async def send(offset: int) -> int:
        given = {**patch, "Upload-Offset": str(offset)}
        async with account.session.patch(made.headers["Location"], data=body[offset:], headers=given) as answer:
            return answer.status

    assert await send(0) == 408
    async with account.session.head(made.headers["Location"]) as answer:
        offset = int(answer.headers["Upload-Offset"])
    assert 3 * MIB < offset < 5 * MIB
    assert await send(offset) == 204


@pytest.mark.parametrize("state", ["pendingupload", "queued", "inprogress"])
async def test_a_stuck_video_stays_until_the_fault_is_gone_and_holds_up_nobody(
    account, media: Path, state: str
) -> None:
    account.stream.faults.set(**{f"stuck_{state}": {"video": "poison"}})
    stuck = await account.upload(media / "clip.mp4", meta={"name": "poison"})
    await account.ready(media / "clip.mp4", meta={"name": "well"})
    assert (await account.until_state(stuck, state))["status"]["state"] == state
    account.stream.faults.clear()
    await account.until_state(stuck, "ready")


async def test_an_encoding_that_fails_once(account, media: Path) -> None:
    account.stream.faults.set(encoding_fails={"times": 1, "code": "ERR_MALFORMED_VIDEO"})
    uid = await account.upload(media / "clip.mp4")
    assert (await account.until_state(uid, "error"))["status"]["errorReasonCode"] == "ERR_MALFORMED_VIDEO"
    await account.ready(media / "clip.mp4")


async def test_ready_can_turn_into_error(open_account, media: Path, receiver) -> None:
    account = await open_account(webhook_url=receiver.url)
    account.stream.faults.set(error_after_ready={"times": 1, "seconds": 0.1})
    uid = await account.ready(media / "clip.mp4")
    video = await account.until(uid, lambda video: video["status"]["state"] == "error")
    assert video["readyToStream"] is False
    assert [json.loads(body)["status"]["state"] for _, body in await receiver.until(1)] == ["ready"]


async def test_a_state_that_nobody_knows(open_account, media: Path) -> None:
    account = await open_account(dwell=Dwell(0, 0, 0.2, 0, 0, 0))
    account.stream.faults.set(unknown_state={"state": "optimizing"})
    uid = await account.upload(media / "clip.mp4")
    await account.until(uid, lambda video: video["status"]["state"] == "optimizing")
    await account.until(uid, lambda video: video["status"]["state"] == "ready")


@pytest.mark.parametrize(
    ("spelling", "keys"), [("err", {"errReasonCode"}), ("both", {"errReasonCode", "errorReasonCode"})]
)
async def test_reasons_are_spelt_in_two_ways(account, media: Path, spelling: str, keys: set[str]) -> None:
    account.stream.faults.set(error_spelling={"spelling": spelling})
    uid = await account.upload(media / "text.mp4")
    status = (await account.until_state(uid, "error"))["status"]
    assert {name for name in status if name.endswith("Code")} == keys
    assert status["errReasonCode"] == "ERR_NON_VIDEO"


# --- MP4 -------------------------------------------------------------------------------------------


async def test_a_download_that_fails_once(account, media: Path) -> None:
    uid = await account.ready(media / "clip.mp4")
    account.stream.faults.set(download_fails={"times": 1})
    await account.call("POST", f"/stream/{uid}/downloads")
    await account.until_mp4(uid, "error")
    assert (await account.call("POST", f"/stream/{uid}/downloads")).result["default"]["status"] == "error"
    await account.call("DELETE", f"/stream/{uid}/downloads")
    await account.call("POST", f"/stream/{uid}/downloads")
    await account.until_mp4(uid, "ready")


async def test_an_mp4_that_is_ready_before_it_is_there(account, media: Path) -> None:
    account.stream.faults.set(mp4_late={"seconds": 0.3})
    _, address = await account.mp4(media / "clip.mp4")
    assert (await _get(account, address))[0] == 404
    while (await _get(account, address))[0] == 404:
        pass
    assert (await _get(account, address))[0] == 200


async def test_an_mp4_that_is_refused_or_not_there_with_424(account, media: Path) -> None:
    uid, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_refused={"times": 1, "status": 503})
    assert [(await _get(account, address))[0] for _ in range(2)] == [503, 200]
    account.stream.faults.set(mp4_not_ready_424={"times": 1})
    await account.call("DELETE", f"/stream/{uid}/downloads")
    assert [(await _get(account, address))[0] for _ in range(2)] == [424, 404]


async def test_a_truncated_mp4_is_seen_or_goes_unseen(account, media: Path) -> None:
    size = (media / "clip.mp4").stat().st_size
    uid, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_truncated={"times": 1, "share": 0.25})
    with pytest.raises(aiohttp.ClientPayloadError):
        await _get(account, address)
    assert account.stream.traffic.of(uid).bytes_sent == size // 4
    account.stream.faults.set(mp4_truncated={"times": 1, "share": 0.5, "quietly": True})
    status, headers, body = await _get(account, address)
    assert (status, headers["Content-Length"], len(body)) == (200, str(size // 2), size // 2)
    assert len((await _get(account, address))[2]) == size


async def test_a_truncated_answer_without_a_length_is_seen_too(account, media: Path) -> None:
    _, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_truncated={"times": 1}, mp4_no_length={"times": 1})
    with pytest.raises(aiohttp.ClientPayloadError):
        await _get(account, address)


async def test_answers_without_ranges_length_or_etag(account, media: Path) -> None:
    whole = (media / "clip.mp4").read_bytes()
    _, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_no_ranges={"times": 1}, mp4_no_length={"times": 1}, mp4_no_etag={"times": 1})
    status, headers, body = await _get(account, address, headers={"Range": "bytes=10-"})
    assert (status, body) == (200, whole)
    assert not {"Accept-Ranges", "Content-Length", "ETag"} & set(headers)
    status, headers, body = await _get(account, address, headers={"Range": "bytes=10-"})
    assert (status, body) == (206, whole[10:])


async def test_an_mp4_behind_a_redirect(account, media: Path) -> None:
    _, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_redirect={"status": 302})
    assert (await _get(account, address, allow_redirects=False))[0] == 302
    status, _, body = await _get(account, address, headers={"Range": "bytes=0-9"})
    assert (status, len(body)) == (206, 10)


async def test_a_slow_mp4(account, media: Path) -> None:
    size = (media / "clip.mp4").stat().st_size
    uid, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_slow={"bytes_per_second": size * 4})
    began = time.monotonic()
    assert len((await _get(account, address))[2]) == size
    assert time.monotonic() - began >= 0.2
    assert account.stream.traffic.of(uid).bytes_sent == size


# --- Webhooks --------------------------------------------------------------------------------------


def _is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    fields = dict(part.split("=", 1) for part in headers["Webhook-Signature"].split(","))
    expected = hmac.new(secret.encode(), fields["time"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return fields["sig1"] == expected


@pytest.fixture
async def notified(open_account, receiver):
    """An account whose webhook is the receiver."""
    return await open_account(webhook_url=receiver.url, webhook_secret="s" * 32, webhook_backoff_seconds=0.01)


async def test_a_lost_notification(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_lost={"times": 1})
    await notified.ready(media / "clip.mp4")
    second = await notified.ready(media / "clip.mp4")
    ((_, body),) = await receiver.until(1)
    assert json.loads(body)["uid"] == second


async def test_a_duplicated_notification(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_duplicated={"times": 1, "copies": 2})
    uid = await notified.upload(media / "clip.mp4")
    received = await receiver.until(3)
    assert {json.loads(body)["uid"] for _, body in received} == {uid}


async def test_a_delayed_notification_is_overtaken(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_delayed={"video": "late", "seconds": 0.5})
    late = await notified.ready(media / "clip.mp4", meta={"name": "late"})
    early = await notified.ready(media / "clip.mp4")
    assert [json.loads(body)["uid"] for _, body in await receiver.until(2)] == [early, late]


async def test_reordered_notifications(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_reordered={"batch": 3, "seconds": 60})
    uids = [await notified.ready(media / "clip.mp4") for _ in range(3)]
    assert [json.loads(body)["uid"] for _, body in await receiver.until(3)] == uids[::-1]
    notified.stream.faults.set(webhook_reordered={"batch": 3, "seconds": 0.05})
    last = await notified.ready(media / "clip.mp4")
    assert json.loads((await receiver.until(4))[3][1])["uid"] == last


async def test_a_wrong_signature(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_wrong_secret={"times": 1})
    receiver.statuses = [401]
    await notified.upload(media / "clip.mp4")
    (first, second) = await receiver.until(2)
    assert not _is_signed("s" * 32, *first)
    assert _is_signed("s" * 32, *second)


async def test_a_rotated_secret(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_secret_rotated={"times": 1})
    await notified.upload(media / "clip.mp4")
    (only,) = await receiver.until(1)
    assert not _is_signed("s" * 32, *only)
    secret = (await notified.call("GET", "/stream/webhook")).result["secret"]
    assert _is_signed(secret, *only)


async def test_a_stale_signature(notified, media: Path, receiver) -> None:
    notified.stream.faults.set(webhook_stale={"times": 1, "seconds": 900})
    await notified.upload(media / "clip.mp4")
    ((headers, body),) = await receiver.until(1)
    assert _is_signed("s" * 32, headers, body)
    assert time.time() - int(headers["Webhook-Signature"][5:15]) >= 900


async def test_faults_can_be_set_from_the_start(open_account) -> None:
    account = await open_account(faults=Faults(api_5xx=Api5xx(times=1)))
    assert [(await account.call("GET", "/stream")).status for _ in range(2)] == [503, 200]


def test_every_fault_has_a_test() -> None:
    tested = Path(__file__).read_text()
    assert [name for name in Faults.model_fields if name not in tested and not name.startswith("stuck_")] == []
