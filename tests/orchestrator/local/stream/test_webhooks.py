from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

from orchestrator.local.stream.webhooks import sign


def _signed_with(secret: str, headers: dict[str, str], body: bytes) -> bool:
    fields = dict(part.split("=", 1) for part in headers["Webhook-Signature"].split(","))
    source = fields["time"].encode() + b"." + body
    return fields["sig1"] == hmac.new(secret.encode(), source, hashlib.sha256).hexdigest()


def test_the_signature_is_the_documented_one() -> None:
    body = b'{"uid":"6b9e68b07dfee8cc2d116e4c51d6a957","readyToStream":true}'
    assert sign("85011ed3a913c6ad5f9cf6c5573cc0a7", body, 1230811200) == (
        "time=1230811200,sig1=baf8b35ee3c62e48ad7217a648ab1dbaa8ff5d589bd99b023bf821f86cf27f24"
    )


async def test_ready_is_told_once_and_signed(open_account, media: Path, receiver) -> None:
    account = await open_account(webhook_url=receiver.url, webhook_secret="s" * 32, ready_at_percent=80.0)
    uid = await account.upload(media / "clip.mp4", meta={"name": "x"})
    # An MP4, 100 %, an edit and a deletion follow; none of them is told.
    await account.until(uid, lambda video: video["status"]["pctComplete"] == "100.000000")
    await account.call("POST", f"/stream/{uid}/downloads")
    await account.until_mp4(uid, "ready")
    await account.call("POST", f"/stream/{uid}", json={"creator": "me"})
    await account.call("DELETE", f"/stream/{uid}")
    other = await account.upload(media / "clip.mp4")
    (headers, body), (_, last) = await receiver.until(2)
    assert _signed_with("s" * 32, headers, body)
    assert headers["Content-Type"] == "application/json"
    told = json.loads(body)
    assert (told["uid"], told["status"]["state"], told["readyToStream"]) == (uid, "ready", True)
    assert told["status"]["pctComplete"] == "80.000000"
    assert json.loads(last)["uid"] == other
    assert "result" not in told


async def test_failure_is_told(open_account, media: Path, receiver) -> None:
    account = await open_account(webhook_url=receiver.url)
    uid = await account.upload(media / "text.mp4")
    ((_, body),) = await receiver.until(1)
    told = json.loads(body)
    assert (told["uid"], told["status"]["state"], told["readyToStream"]) == (uid, "error", False)
    assert told["status"]["errorReasonCode"] == "ERR_NON_VIDEO"


async def test_a_refused_notification_is_repeated_a_few_times(open_account, media: Path, receiver) -> None:
    account = await open_account(webhook_url=receiver.url, webhook_attempts=3, webhook_backoff_seconds=0.01)
    receiver.statuses = [500, 404]
    uid = await account.upload(media / "clip.mp4")
    received = await receiver.until(3)
    assert len({body for _, body in received}) == 1
    receiver.statuses = [500] * 3
    await account.upload(media / "clip.mp4")
    await receiver.until(6)
    await account.upload(media / "clip.mp4")
    assert len(await receiver.until(7)) == 7
    async with account.session.get(f"{account.stream.base_url}/stand-in/webhooks") as answer:
        rows = await answer.json()
    assert rows[:3] == [
        {"uid": uid, "state": "ready", "attempt": attempt, "status": status}
        for attempt, status in ((1, 500), (2, 404), (3, 200))
    ]
    assert [row["status"] for row in rows[3:]] == [500, 500, 500, 200]


async def test_another_address_brings_another_secret(open_account, receiver) -> None:
    account = await open_account(webhook_secret="f" * 32)
    assert (await account.call("GET", "/stream/webhook")).code == 10003
    put = (await account.call("PUT", "/stream/webhook", json={"notificationUrl": receiver.url})).result
    assert (put["notificationUrl"], put["secret"]) == (receiver.url, "f" * 32)
    again = (await account.call("PUT", "/stream/webhook", json={"notificationUrl": receiver.url})).result
    assert again["secret"] == "f" * 32
    other = (await account.call("PUT", "/stream/webhook", json={"notification_url": receiver.url + "/2"})).result
    assert other["secret"] != "f" * 32
    assert len(other["secret"]) == 32
    assert (await account.call("GET", "/stream/webhook")).result == other
    assert account.stream.webhook_secret == other["secret"]
    assert (await account.call("DELETE", "/stream/webhook")).result == ""
    assert (await account.call("GET", "/stream/webhook")).status == 404
    assert (await account.call("DELETE", "/stream/webhook")).status == 404


async def test_only_web_addresses_are_notified(account) -> None:
    for url in ("127.0.0.1/hook", "ftp://host/hook", "http://"):
        answer = await account.call("PUT", "/stream/webhook", json={"notificationUrl": url})
        assert (answer.status, answer.code) == (400, 10010)
    assert (await account.call("PUT", "/stream/webhook", json={})).code == 10005


async def test_what_was_owed_is_told_after_a_restart(open_account, media: Path, receiver) -> None:
    nowhere = {"webhook_url": "http://127.0.0.1:9/hook", "webhook_secret": "a" * 32}
    account = await open_account(**nowhere, webhook_backoff_seconds=60)
    uid = await account.ready(media / "clip.mp4")
    await account.stream.stop()
    await open_account(webhook_url=receiver.url, webhook_secret="b" * 32)
    ((headers, body),) = await receiver.until(1)
    assert json.loads(body)["uid"] == uid
    assert _signed_with("b" * 32, headers, body)
