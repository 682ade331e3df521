"""`webhook trigger`: a notification as the provider would send it, signed, to see what the receiver does with it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from orchestrator.commands.failures import CommandFailed
from orchestrator.commands.parsing import wrong
from orchestrator.commands.printing import plain, say
from orchestrator.commands.webhook.registering import shown_url
from orchestrator.drivers.signatures import HEADER, sign
from orchestrator.settings import Settings

# As long as the provider waits, by the only text that names a time.
_TIMEOUT_SECONDS = 30.0
_SHOWN_BYTES = 2000

_MEANING = {
    200: "accepted: the receiver has recorded it, if the video belongs to a clip there",
    401: "refused: the receiver has another secret than CLOUDFLARE_WEBHOOK_SECRET here, or none, or its clock is off",
    404: "there is no receiver at this address; it ends in /webhooks/cloudflare",
    413: "refused as too large",
}


async def trigger(settings: Settings, uid: str, state: str, url: str) -> int:
    """Send one notification; 0 when the receiver accepted it."""
    secrets = [secret.get_secret_value() for secret in settings.cloudflare_webhook_secret]
    if not secrets:
        raise wrong("CLOUDFLARE_WEBHOOK_SECRET: is not set, and an unsigned notification is always refused")
    _check_url(url)
    body = json.dumps(notification(uid, state, datetime.now(UTC))).encode()
    status, said = await _post(url, body, sign(body, secrets[0], time.time()))
    meaning = _MEANING.get(status, said or "nothing said")
    text = f"{shown_url(url)} answered {status}: {meaning}"
    if status != 200:
        raise CommandFailed(text)
    say(text)
    return 0


def notification(uid: str, state: str, now: datetime) -> dict[str, Any]:
    """The video object the provider sends when processing has ended, with a mark that it is a test.

    Source: https://developers.cloudflare.com/stream/manage-video-library/using-webhooks/
    """
    at = now.isoformat().replace("+00:00", "Z")
    status = {"state": state, "pctComplete": "100.000000", "errorReasonCode": "", "errorReasonText": ""}
    if state == "error":
        status |= {
            "pctComplete": "0.000000",
            "errorReasonCode": "ERR_UNKNOWN",
            "errorReasonText": "A test notification",
        }
    return {
        "uid": uid,
        "readyToStream": state == "ready",
        "status": status,
        "meta": {"name": "test notification"},
        "created": at,
        "modified": at,
    }


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise wrong(f"--url: {shown_url(url)!r} is not an http or https address")


async def _post(url: str, body: bytes, signature: str) -> tuple[int, str]:
    """The answer's status, and the beginning of what it says, in one line."""
    headers = {"Content-Type": "application/json", HEADER: signature}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            said = await answer.content.read(_SHOWN_BYTES)
            return answer.status, plain(said.decode("utf-8", "replace"))
    except TimeoutError:
        raise CommandFailed(f"{shown_url(url)} did not answer within {_TIMEOUT_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError) as problem:
        reason = f"{shown_url(url)} cannot be reached ({type(problem).__name__})"
        raise CommandFailed(f"{reason}; is the web process (`orchestrator serve`) running there?") from None
