"""Why a clip is where it is, over HTTP: the sentence of the pages and the command line, and its fields."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from orchestrator.explaining import read_leadership
from orchestrator.explanations import Explanation, explanation_of
from orchestrator.storage.clips import Clip
from orchestrator.storage.heavy_steps import read_step_of
from orchestrator.web.connections import connection_of
from orchestrator.web.reading import clip_id_of, known_clip
from orchestrator.web.views import json_response, state_of, timestamp, timestamp_or_none


async def show_explanation(request: web.Request) -> web.Response:
    """The sentence for the present moment, by the database's clock."""
    clip_id = clip_id_of(request)
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
        leadership = await read_leadership(connection)
        heavy_step = await read_step_of(connection, clip_id)
    return json_response(explanation_as_json(clip, explanation_of(clip, leadership.now, leadership, heavy_step)))


def explanation_as_json(clip: Clip, explanation: Explanation) -> dict[str, Any]:
    """The document of the API and of `orchestrator clips explain --json`."""
    return {
        "id": clip.id,
        "status": clip.status,
        "state": state_of(clip.pipeline, clip.status),
        "attempt": clip.attempt,
        "explanation": explanation.sentence,
        "waiting_on": explanation.waiting_on,
        "unblocked_by": explanation.unblocked_by,
        "since": timestamp(explanation.since),
        "next_look_at": timestamp_or_none(explanation.next_look_at),
        "gives_up_at": timestamp_or_none(explanation.gives_up_at),
        "retry_at": timestamp_or_none(explanation.retry_at),
        "monitor_leads": explanation.monitor_leads,
        "at": timestamp(explanation.at),
    }
