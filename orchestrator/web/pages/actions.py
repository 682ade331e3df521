"""The buttons of a clip's page, as plain forms: they ask and lead back to the page."""

from __future__ import annotations

from aiohttp import web

from orchestrator.web.asking import SOURCE, ask_deletion, recorded, resume_status_of
from orchestrator.web.connections import connection_of
from orchestrator.web.deliveries import REPLAY_SOURCE, delivery_id_of
from orchestrator.web.deliveries import replay as ask_again
from orchestrator.web.pages.clip_page import clip_id_of_page
from orchestrator.web.reading import known_clip
from signals import signal_retry


async def retry(request: web.Request) -> web.Response:
    """Ask for a new attempt."""
    clip_id = clip_id_of_page(request)
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
        await signal_retry(connection, clip_id, resume_status_of(clip), SOURCE)
    recorded(request)
    return _back_to(clip_id)


async def delete(request: web.Request) -> web.Response:
    """Ask that the clip end and its video go."""
    clip_id = clip_id_of_page(request)
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
        await ask_deletion(connection, clip, SOURCE)
    recorded(request)
    return _back_to(clip_id)


async def replay(request: web.Request) -> web.Response:
    """Ask once more for what a kept notification asked for."""
    clip_id, delivery_id = clip_id_of_page(request), delivery_id_of(request)
    async with connection_of(request) as connection, connection.transaction():
        clip = await known_clip(connection, clip_id)
        await ask_again(connection, clip, delivery_id, REPLAY_SOURCE)
    recorded(request)
    return _back_to(clip_id)


def _back_to(clip_id: str) -> web.Response:
    return web.Response(status=303, headers={"Location": f"/clips/{clip_id}"})
