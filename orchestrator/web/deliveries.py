"""What passed between the provider and us for one clip: calls, and notifications, which can be acted on again.

A notification is acted on through the door by which it came.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import asyncpg
from aiohttp import web

from orchestrator.drivers.cloudflare_models import parse_webhook_video
from orchestrator.storage.clips import Clip
from orchestrator.storage.deliveries import Delivery, Refusal, read_deliveries, read_delivery, read_refusals
from orchestrator.storage.provider_calls import read_calls
from orchestrator.web.asking import asked_document, recorded
from orchestrator.web.bodies import as_model, read_object
from orchestrator.web.connections import connection_of
from orchestrator.web.idempotency import Answer, keep_answer, making, once
from orchestrator.web.problems import Problem, shorten
from orchestrator.web.reading import clip_id_of, known_clip
from orchestrator.web.schemas import Empty
from orchestrator.web.views import json_response, timestamp
from orchestrator.web.webhooks import signal_of
from signals import signal_status_update

REPLAY_SOURCE = "webhook replay"
_ID_MAX = 2**63 - 1


async def show_deliveries(request: web.Request) -> web.Response:
    """The clip's notifications, newest first, and how many were refused by everybody within a day."""
    clip_id = clip_id_of(request)
    async with connection_of(request) as connection:
        await known_clip(connection, clip_id)
        deliveries = await read_deliveries(connection, clip_id)
        refusals = await read_refusals(connection)
    return json_response(
        {
            "deliveries": [delivery_as_json(each) for each in deliveries],
            "refused_within_a_day": [_refusal_as_json(each) for each in refusals],
        }
    )


async def show_calls(request: web.Request) -> web.Response:
    """The last calls about the clip's video, newest first; lists that looked at many videos are none of them."""
    clip_id = clip_id_of(request)
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
        made = await read_calls(connection, clip.cloudflare_uid) if clip.cloudflare_uid else []
    return json_response({"calls": [asdict(call) | {"at": timestamp(call.at)} for call in made]})


@once
async def replay_delivery(request: web.Request) -> web.Response:
    """Ask once more for what a kept notification asked for."""
    as_model(await read_object(request, optional=True), Empty)
    clip_id, delivery_id = clip_id_of(request), delivery_id_of(request)
    async with making(request) as connection:
        clip = await known_clip(connection, clip_id)
        status, attempt = await replay(connection, clip, delivery_id, REPLAY_SOURCE)
        answer = Answer(asked_document(clip, status, attempt), 202)
        await keep_answer(request, connection, answer)
    recorded(request)
    return answer.response()


async def replay(connection: asyncpg.Connection, clip: Clip, delivery_id: int | None, source: str) -> tuple[str, int]:
    """Leave the signal of a kept notification again, what was asked for.

    Without *delivery_id* it is the newest one's that came in time.

    The signature was checked when it came; like then, the monitor looks for itself before it believes a word.

    Raises:
        Problem: it is not kept (any more), or asks for nothing.
    """
    if delivery_id is None:
        # A stranger can send an old one again, which then came last: that is for a person to choose.
        kept = await read_deliveries(connection, clip.id)
        found = next((each for each in kept if each.signature == "valid"), None)
    else:
        found = await read_delivery(connection, clip.id, delivery_id)
    if found is None:
        raise Problem("unknown-delivery", f"Clip {clip.id} has no such notification, or none any more")
    told = signal_of(parse_webhook_video(found.body.encode()), source)
    if told is None:
        raise Problem("cannot-replay", f"The state {shorten(found.state or '')} asks for nothing")
    attempt = await signal_status_update(connection, clip.id, told.status, told.details, source, hearsay=told.hearsay)
    return told.status, attempt


def delivery_id_of(request: web.Request) -> int:
    """The number in the address; one that cannot be one is an unknown notification."""
    text = request.match_info["delivery"]
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > _ID_MAX:
        raise Problem("unknown-delivery", f"No notification has the number {shorten(text)}")
    return int(text)


def delivery_as_json(delivery: Delivery) -> dict[str, Any]:
    """The document of one notification."""
    return {
        "id": delivery.id,
        "cloudflare_uid": delivery.cloudflare_uid,
        "received_at": timestamp(delivery.received_at),
        "last_at": timestamp(delivery.last_at),
        "times": delivery.times,
        "signature": delivery.signature,
        "state": delivery.state,
        "outcome": delivery.outcome,
        "size_bytes": delivery.size_bytes,
        "body": delivery.body,
    }


def _refusal_as_json(refusal: Refusal) -> dict[str, Any]:
    return {"reason": refusal.reason, "times": refusal.times, "last_at": timestamp(refusal.last_at)}
