"""Notifications: only signed, fresh and small ones count, and even they only ask."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from orchestrator.drivers.signatures import HEADER, sign

PATH = "/webhooks/cloudflare"
# Both are in force while one is rotated; the fixture's settings have them.
SECRET = "an-old-webhook-secret", "the-new-webhook-secret"


def body_of(uid: str = "u1", state: str = "ready", **status: Any) -> bytes:
    return json.dumps({"uid": uid, "readyToStream": state == "ready", "status": {"state": state, **status}}).encode()


async def notify(client: TestClient[Any, Any], place: Any, body: bytes, secret: str = SECRET[0], **ago: float) -> Any:
    at = place.clock().timestamp() - ago.get("seconds", 0)
    return await client.post(PATH, data=body, headers={HEADER: sign(body, secret, at)})


@pytest.mark.parametrize("secret", SECRET)
async def test_a_signed_notification_leaves_one_signal_and_moves_nothing(client, place, secret):
    await place.clip("one", uid="u1")
    answer = await notify(client, place, body_of(pctComplete="39.000000"), secret)
    assert (answer.status, await answer.json()) == (200, {"received": True})
    [signal] = await place.signals("one")
    assert (signal["requested_status"], signal["source"]) == ("stream_ready", "webhook")
    assert (signal["observed"], signal["insists"], signal["hearsay"]) == (False, False, True)
    assert json.loads(signal["details"]) == {"cloudflare_status": "ready"}
    assert await place.owner.fetchval("SELECT status FROM clips") == "uploading"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("pendingupload", "uploading"),
        ("downloading", "uploading"),
        ("queued", "queued"),
        ("inprogress", "processing"),
        ("ready", "stream_ready"),
        ("error", "error"),
    ],
)
async def test_each_state_of_the_provider_asks_for_its_status(client, place, state, status):
    await place.clip("one", uid="u1")
    assert (await notify(client, place, body_of(state=state))).status == 200
    assert [signal["requested_status"] for signal in await place.signals("one")] == [status]


@pytest.mark.parametrize("spelling", ["errorReason", "errReason"])
async def test_a_failure_brings_its_reason_and_does_not_insist(client, place, spelling):
    await place.clip("one", uid="u1")
    reason = {f"{spelling}Code": "ERR_NON_VIDEO", f"{spelling}Text": "The file is <b>no</b> video"}
    await notify(client, place, body_of(state="error", **reason))
    [signal] = await place.signals("one")
    details = json.loads(signal["details"])
    assert not signal["insists"]
    assert details["provider_error_code"] == "ERR_NON_VIDEO"
    assert details["error_message"].endswith("The file is <b>no</b> video")


async def test_a_state_nobody_knows_yet_only_wakes(client, place):
    await place.clip("one", uid="u1")
    assert (await notify(client, place, body_of(state="transmogrifying"))).status == 200
    assert await place.signals("one") == []


async def test_a_video_that_is_not_ours_gets_the_same_answer_and_leaves_nothing(client, place):
    await place.clip("one", uid="u1")
    before = await place.fingerprint()
    ours_not = await notify(client, place, body_of(uid="f" * 32))
    assert (ours_not.status, await ours_not.json()) == (200, {"received": True})
    assert await place.fingerprint() == before


@pytest.fixture(scope="module")
def reasons() -> set[str]:
    """What the refusals said, all of them together."""
    return set()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(HEADER, "")],
        [(HEADER, "time=1,sig1=" + "0" * 64)],
        [(HEADER, "{good}"), (HEADER, "{good}")],
        [(HEADER, "{good},{good}")],
        [(HEADER, "{upper}")],
        [(HEADER, "{wrong_body}")],
        [(HEADER, "{wrong_secret}")],
        [(HEADER, "{stale}")],
        [(HEADER, "{early}")],
        [("cf-webhook-signature", "{good}")],
    ],
    ids=["none", "empty", "forged", "twice", "repeated-fields", "upper-case", "other-body", "other-secret", "stale",
         "early", "other-header"],
)  # fmt: skip
async def test_whatever_is_not_properly_signed_is_a_401_and_changes_nothing(client, place, headers, reasons, capfd):
    await place.clip("one", uid="u1")
    body, now = body_of(), place.clock().timestamp()
    good = sign(body, SECRET[0], now)
    time, signature = good.split(",sig1=")
    values = {
        "good": good,
        "upper": f"{time},sig1={signature.upper()}",
        "wrong_body": sign(body + b" ", SECRET[0], now),
        "wrong_secret": sign(body, "somebody-elses-secret", now),
        "stale": sign(body, SECRET[0], now - 301),
        "early": sign(body, SECRET[0], now + 301),
    }
    before = await place.fingerprint()
    answer = await client.post(PATH, data=body, headers=[(name, value.format(**values)) for name, value in headers])
    problem = await answer.text()
    assert answer.status == 401
    assert await place.fingerprint() == before
    reasons.add(problem.split('"request_id"')[0])
    assert len(reasons) == 1  # whoever guesses is not told how near he is
    assert not any(secret in "".join(capfd.readouterr()) for secret in (*SECRET, good))


async def test_the_edges_of_the_window_still_count(client, place):
    await place.clip("one", uid="u1")
    assert (await notify(client, place, body_of(), seconds=299)).status == 200
    assert (await notify(client, place, body_of(), seconds=-299)).status == 200


async def test_without_a_secret_every_notification_is_refused(place):
    client = await place.start(cloudflare_webhook_secret="")
    assert (await notify(client, place, body_of())).status == 401


async def test_a_notification_over_64_kib_is_a_413_however_it_is_announced(client, place):
    await place.clip("one", uid="u1")
    before = await place.fingerprint()
    body = body_of() + b" " * 65536
    assert (await notify(client, place, body)).status == 413

    async def chunks() -> Any:
        for _ in range(70):
            yield b" " * 1024

    header = {HEADER: sign(body, SECRET[0], place.clock().timestamp())}
    assert (await client.post(PATH, data=chunks(), headers=header)).status == 413
    assert await place.fingerprint() == before


async def test_a_compressed_notification_is_not_opened(client, place):
    await place.clip("one", uid="u1")
    body = gzip.compress(body_of())
    headers = {HEADER: sign(body, SECRET[0], place.clock().timestamp()), "Content-Encoding": "gzip"}
    assert (await client.post(PATH, data=body, headers=headers)).status == 415
    assert await place.signals("one") == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"{}", b'{"uid": 5}', b'{"uid": "../x"}', b"\xff\xfe", b"[" * 20_000,
     b'{"uid": "u1", "uid": "u2"}', b'{"uid": "u1", "meta": {"name": "a\\u0000"}}', b'{"uid": "u1", "size": NaN}'],
)  # fmt: skip
async def test_signed_nonsense_is_a_400_and_changes_nothing(client, place, body):
    await place.clip("one", uid="u1")
    before = await place.fingerprint()
    assert (await notify(client, place, body)).status == 400
    assert await place.fingerprint() == before


async def test_a_notification_needs_no_token(place):
    client = await place.start(api_tokens="a-token-of-sixteen-characters")
    await place.clip("one", uid="u1")
    assert (await notify(client, place, body_of())).status == 200


async def test_notifications_are_counted_by_what_became_of_them(client, place):
    await place.clip("one", uid="u1")
    await notify(client, place, body_of())
    await notify(client, place, body_of(uid="f" * 32))
    await client.post(PATH, data=b"{}")
    figures = await (await client.get("/metrics")).text()
    for outcome in ("recorded", "unknown", "bad-signature"):
        assert f'orchestrator_webhooks_total{{outcome="{outcome}"}} 1.0' in figures


async def test_the_body_is_not_logged(client, place, capfd):
    await place.clip("one", uid="u1")
    await notify(client, place, json.dumps({"uid": "u1", "meta": {"name": "canary-name"}}).encode())
    await client.post(PATH, data=b'{"canary-name": 1}')
    assert "canary-name" not in "".join(capfd.readouterr())
