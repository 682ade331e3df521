"""The provider's notifications: checked, turned into one signal, and nothing else.

The body is read up to a limit before anything is believed, the signature is checked over the bytes as they
came, and a video that is not ours gets the same answer as one that is. The body is never logged.
"""

from __future__ import annotations

import contextlib

from aiohttp import web

from orchestrator.drivers.cloudflare_models import WEBHOOK_MAX_BYTES, Video, parse_webhook_video
from orchestrator.drivers.signatures import HEADER, BadSignature, verify, was_signed
from orchestrator.drivers.strict_json import BadDocument
from orchestrator.pipelines.stream.plan import implied_status
from orchestrator.storage.clips import read_clip_by_uid
from orchestrator.storage.deliveries import Outcome, Signature
from orchestrator.web.bodies import read_limited
from orchestrator.web.connections import connection_of
from orchestrator.web.delivery_log import DELIVERY_LOG
from orchestrator.web.metrics import METRICS
from orchestrator.web.problems import Fault, Problem
from orchestrator.web.refusals import REFUSALS
from orchestrator.web.services import services_of
from orchestrator.web.shared_signals import SHARED_SIGNALS
from orchestrator.web.views import json_response
from signals import Signal, SignalError, UnknownClip
from statusutils import ERROR

SOURCE = "webhook"
# Enough to understand a failure; the provider's texts have about 100 characters.
_TEXT_MAX_CHARACTERS = 500


async def receive_notification(request: web.Request) -> web.Response:
    """Record what a signed notification says of a clip of ours, and wake the monitor."""
    metrics = request.app[METRICS]
    try:
        raw = await read_limited(request, WEBHOOK_MAX_BYTES)
        _check_signature(request, raw)
        video = parse_webhook_video(raw)
    except Problem as problem:
        metrics.count_webhook(problem.code)
        raise
    except BadDocument as problem:
        metrics.count_webhook("bad-json")
        raise Problem(
            "bad-json", f"The body is refused: {problem.reason}", [Fault("body", problem.reason)]
        ) from problem
    metrics.count_webhook("recorded" if await _record(request, video) else "unknown")
    return json_response({"received": True})


def _check_signature(request: web.Request, raw: bytes) -> None:
    services = services_of(request)
    secrets = [secret.get_secret_value() for secret in services.settings.cloudflare_webhook_secret]
    said = request.headers.getall(HEADER, [])
    try:
        verify(raw, said, secrets, services.now().timestamp())
    except BadSignature as problem:
        request.app[REFUSALS].warn("a notification was refused", reason=problem.reason)
        request.app[DELIVERY_LOG].count(problem.reason, services.now())
        if problem.reason in ("stale", "early") and was_signed(raw, said, secrets):
            # Ours or the provider's clock is wrong, or somebody sends an old one again: its clip's page tells.
            with contextlib.suppress(BadDocument):
                _keep_note(request, raw, parse_webhook_video(raw), "stale", "refused")
        # The reason stays here: whoever guesses should not be told how near he is.
        raise Problem("bad-signature", "The signature is missing, stale or wrong") from problem


async def _record(request: web.Request, video: Video) -> bool:
    """Leave one signal for the clip that has this video; whether there is one."""
    signal = signal_of(video, SOURCE)
    if signal is None:
        async with connection_of(request) as connection:
            if await read_clip_by_uid(connection, video.uid) is None:
                return False
        await _note(request, video, "ignored")
    else:
        try:
            await request.app[SHARED_SIGNALS].ask(signal)
        except UnknownClip:
            return False
        except SignalError:
            await _note(request, video, "refused")
            raise
        request.app[METRICS].count_signal(SOURCE)
        await _note(request, video, "recorded")
    services_of(request).wakeups.wake()
    return True


def signal_of(video: Video, source: str) -> Signal | None:
    """The signal that the notification of *video* stands for; None if it asks nothing.

    The one door for notifications: those that come, and those that somebody replays.
    """
    status = implied_status(video.state)
    if status is None:
        return None
    details = _details(video, is_error=status == ERROR)
    return Signal(status, source, cloudflare_uid=video.uid, details=details, hearsay=True)


async def _note(request: web.Request, video: Video, outcome: Outcome) -> None:
    _keep_note(request, await read_limited(request, WEBHOOK_MAX_BYTES), video, "valid", outcome)


def _keep_note(request: web.Request, raw: bytes, video: Video, signature: Signature, outcome: Outcome) -> None:
    request.app[DELIVERY_LOG].keep(raw, video, signature, outcome, services_of(request).now())


def _details(video: Video, *, is_error: bool) -> dict[str, str]:
    """The named fields that may go into the clip's document, cut to size."""
    details = {"cloudflare_status": video.state_raw[:100]}
    if is_error:
        details["error_code"] = "provider_error"
        details["provider_error_code"] = (video.error_code or "unknown")[:100]
        text = video.error_text or video.error_code or "no reason given"
        details["error_message"] = f"Cloudflare could not encode the video: {text}"[:_TEXT_MAX_CHARACTERS]
    return details
