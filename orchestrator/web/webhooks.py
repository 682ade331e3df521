"""The provider's notifications: checked, turned into one signal, and nothing else.

The body is read up to a limit before anything is believed, the signature is checked over the bytes as they
came, and a video that is not ours gets the same answer as one that is. The body is never logged.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from orchestrator.drivers.cloudflare_models import WEBHOOK_MAX_BYTES, Video, parse_webhook_video
from orchestrator.drivers.signatures import HEADER, BadSignature, verify
from orchestrator.drivers.strict_json import BadDocument
from orchestrator.pipelines.stream.plan import implied_status
from orchestrator.storage.clips import read_clip_by_uid
from orchestrator.web.bodies import read_limited
from orchestrator.web.connections import connection_of
from orchestrator.web.metrics import METRICS
from orchestrator.web.problems import Fault, Problem
from orchestrator.web.refusals import REFUSALS
from orchestrator.web.services import services_of
from orchestrator.web.views import json_response
from signals import signal_status_update
from statusutils import ERROR

log = structlog.get_logger(__name__)

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
    try:
        verify(raw, request.headers.getall(HEADER, []), secrets, services.now().timestamp())
    except BadSignature as problem:
        request.app[REFUSALS].warn("a notification was refused", reason=problem.reason)
        # The reason stays here: whoever guesses should not be told how near he is.
        raise Problem("bad-signature", "The signature is missing, stale or wrong") from problem


async def _record(request: web.Request, video: Video) -> bool:
    """Leave one signal for the clip that has this video; whether there is one."""
    services = services_of(request)
    async with connection_of(request) as connection:
        clip = await read_clip_by_uid(connection, video.uid)
        if clip is None:
            return False
        status = implied_status(video.state)
        if status is not None:
            details = _details(video, is_error=status == ERROR)
            await signal_status_update(connection, clip.id, status, details, SOURCE, hearsay=True)
            request.app[METRICS].count_signal(SOURCE)
    services.wakeups.wake()
    log.info("a notification was recorded", clip_id=clip.id, provider_state=video.state.value)
    return True


def _details(video: Video, *, is_error: bool) -> dict[str, str]:
    """The named fields that may go into the clip's document, cut to size."""
    details = {"cloudflare_status": video.state_raw[:100]}
    if is_error:
        details["error_code"] = "provider_error"
        details["provider_error_code"] = (video.error_code or "unknown")[:100]
        text = video.error_text or video.error_code or "no reason given"
        details["error_message"] = f"Cloudflare could not encode the video: {text}"[:_TEXT_MAX_CHARACTERS]
    return details
