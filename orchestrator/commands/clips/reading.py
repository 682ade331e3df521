"""`clips ls`, `show` and `explain`: what the database holds, in words or as JSON."""

from __future__ import annotations

import argparse
from typing import Any

import asyncpg

from orchestrator.commands.clips.words import clip_lines, event_lines, list_row, pending_lines
from orchestrator.commands.database import asking
from orchestrator.commands.parsing import wrong
from orchestrator.commands.printing import complain, moment, plain, say, say_json, table
from orchestrator.explaining import explain, read_leadership
from orchestrator.explanations import explanation_of
from orchestrator.settings import DatabaseSettings
from orchestrator.storage.clips import Clip, Event, read_clip, read_events
from orchestrator.storage.heavy_steps import read_step_of
from orchestrator.storage.pruning import read_pruned_before
from orchestrator.web.expecting import Expectations
from orchestrator.web.explanations import explanation_as_json
from orchestrator.web.reading import MAX_LIMIT, ListQuery, read_page
from orchestrator.web.views import clip_as_json, event_as_json, timestamp, timestamp_or_none
from signals import PendingSignal, read_pending

# Ten pages of history are a clip that was signalled to all day; the newest of them are in the API.
_HISTORY_PAGES = 10


async def list_clips(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Print clips, newest first."""
    async with asking(settings) as connection:
        clips, more = await _pages(connection, options)
        now = (await read_leadership(connection)).now
    if options.json:
        say_json({"clips": [clip_as_json(clip) for clip in clips], "more": more})
        return 0
    rows = [list_row(clip, now) for clip in clips]
    for line in table(("ID", "STATUS", "%", "FOR", "TITLE"), rows, coloured=1):
        say(line)
    if more:
        complain(f"there are more than these {len(clips)}; narrow the search or raise --limit")
    return 0


async def _pages(connection: asyncpg.Connection, options: argparse.Namespace) -> tuple[list[Clip], bool]:
    """As many clips as were asked for, a page at a time, and whether there are more."""
    clips: list[Clip] = []
    more, place, expectations = True, None, Expectations()
    while more and len(clips) < options.limit:
        query = ListQuery(
            statuses=tuple(options.status or ()),
            pipeline=options.pipeline,
            search=options.search or None,
            before=place,
            limit=min(MAX_LIMIT, options.limit - len(clips)),
            error_code=options.error_code or None,
            view=options.view,
        )
        page = await read_page(connection, query, expectations)
        clips += page.clips
        # A page may be short, or empty, where few clips fit; the walk goes on from where it ended.
        more, place = page.more is not None, page.more
    return clips, more


async def show_clip(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Print one clip with its history and what waits to be judged."""
    async with asking(settings) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        clip = await known_clip(connection, options.id)
        events, more = await _history(connection, clip.id)
        pruned_before = await read_pruned_before(connection, clip.id)
        pending = await read_pending(connection, clip.id)
        leadership = await read_leadership(connection)
        heavy_step = await read_step_of(connection, clip.id)
    sentence = explain(clip, leadership.now, leadership, heavy_step)
    if options.json:
        say_json(
            _document(clip, sentence, events, pending)
            | {"more_events": more, "pruned_before": timestamp_or_none(pruned_before)}
        )
        return 0
    for line in [*clip_lines(clip, sentence), "", *event_lines(events), *pending_lines(pending)]:
        say(line)
    if pruned_before is not None:
        say(
            f"Of what came before {moment(pruned_before)} UTC only how each attempt ended is kept; the rest was pruned."
        )
    if more:
        complain(f"the history goes on after these {len(events)} lines")
    return 0


async def _history(connection: asyncpg.Connection, clip_id: str) -> tuple[list[Event], bool]:
    """The history from its beginning, and whether it goes on."""
    events: list[Event] = []
    for _ in range(_HISTORY_PAGES):
        page = await read_events(connection, clip_id, events[-1].id if events else 0, MAX_LIMIT)
        events += page
        if len(page) < MAX_LIMIT:
            return events, False
    return events, bool(await read_events(connection, clip_id, events[-1].id, 1))


def _document(clip: Clip, sentence: str, events: list[Event], pending: list[PendingSignal]) -> dict[str, Any]:
    return clip_as_json(clip) | {
        "explanation": sentence,
        "events": [event_as_json(event) for event in events],
        "pending_signals": [
            {
                "requested_status": signal.requested_status,
                "attempt": signal.attempt,
                "source": signal.source,
                "at": timestamp(signal.at),
            }
            for signal in pending
        ],
    }


async def explain_clip(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Print the one sentence, or with its fields as the API tells it."""
    async with asking(settings) as connection:
        clip = await known_clip(connection, options.id)
        leadership = await read_leadership(connection)
        heavy_step = await read_step_of(connection, clip.id)
    explanation = explanation_of(clip, leadership.now, leadership, heavy_step)
    if options.json:
        say_json(explanation_as_json(clip, explanation))
    else:
        say(plain(explanation.sentence))
    return 0


async def known_clip(connection: asyncpg.Connection, clip_id: str) -> Clip:
    """The clip.

    Raises:
        CommandFailed: there is none.
    """
    clip = await read_clip(connection, clip_id)
    if clip is None:
        raise wrong(f"there is no clip {clip_id}; `orchestrator clips ls` shows those there are")
    return clip
