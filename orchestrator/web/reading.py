"""Reading clips: the list, one of them, its status for those who poll, its history."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from aiohttp import web

from orchestrator.noticing import VIEWS, yardsticks_from
from orchestrator.storage.clips import Clip, read_clip, read_events
from orchestrator.storage.listing import Filter, Listing, Place, read_listing
from orchestrator.storage.pruning import read_pruned_before
from orchestrator.web.bodies import check_text
from orchestrator.web.connections import connection_of
from orchestrator.web.expecting import EXPECTATIONS, Expectations, Usual
from orchestrator.web.problems import Problem, invalid, shorten
from orchestrator.web.services import services_of
from orchestrator.web.shared_reads import STANDINGS, VERSIONS
from orchestrator.web.views import (
    CLIP_ID,
    clip_as_json,
    event_as_json,
    json_response,
    status_as_json,
    timestamp,
    timestamp_or_none,
    unchanged,
    unknown_as_json,
    versioned_response,
)
from signals import UnknownClip, read_pending
from statusutils import TABLES

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
_SEARCH_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which clips are asked for; *before* is the place the page starts behind, *after* the one it ends above."""

    statuses: tuple[str, ...] = ()
    pipeline: str | None = None
    search: str | None = None
    before: Place | None = None
    limit: int = DEFAULT_LIMIT
    error_code: str | None = None
    view: str | None = None
    after: Place | None = None

    @property
    def filter(self) -> Filter:
        """What fits, wherever the page is."""
        view = VIEWS[self.view] if self.view else None
        return Filter(self.statuses, self.pipeline, self.search, self.error_code, view)

    @property
    def is_filtered(self) -> bool:
        """Whether some clips are left out."""
        return self.filter != Filter()


def query_from(request: web.Request) -> ListQuery:
    """The query of a list call, every value of it checked; empty ones count as absent."""
    asked = request.query
    before, after = (read_cursor(asked[name], name) if asked.get(name) else None for name in ("cursor", "newer"))
    return checked(
        ListQuery(
            tuple(dict.fromkeys(part for text in asked.getall("status", []) for part in text.split(",") if part)),
            asked.get("pipeline") or None,
            asked.get("search") or None,
            before,
            whole(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
            asked.get("error_code") or None,
            asked.get("view") or None,
            None if before else after,
        )
    )


def checked(query: ListQuery) -> ListQuery:
    """*query* if its filter can be asked for.

    Raises:
        Problem: with the value at fault.
    """
    if query.pipeline is not None and query.pipeline not in TABLES:
        raise invalid("pipeline", f"must be one of {', '.join(TABLES)}", query.pipeline)
    if query.view is not None and query.view not in VIEWS:
        raise invalid("view", f"must be one of {', '.join(VIEWS)}", query.view)
    known = dict.fromkeys(name for table in TABLES.values() for name in table.by_name)
    for status in query.statuses:
        if status not in known:
            raise invalid("status", f"must be one of {', '.join(known)}", status, code="unknown-status")
    for name, text in (("search", query.search), ("error_code", query.error_code)):
        if text is not None and len(text) > _SEARCH_MAX_CHARACTERS:
            raise invalid(name, f"must have at most {_SEARCH_MAX_CHARACTERS} characters", text)
        if text is not None:
            check_text(name, text)
    return query


def whole(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query, within its bounds."""
    text = request.query.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not low <= int(text) <= high:
        raise invalid(name, f"must be a whole number from {low} to {high}", text)
    return int(text)


def write_cursor(clip: Place) -> str:
    """The place after *clip*, opaque to the caller."""
    text = f"{clip.created_at.astimezone(UTC).isoformat()} {clip.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, name: str = "cursor") -> Place:
    """The place a cursor of ours stands for."""
    try:
        text = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        moment, _, clip_id = text.partition(" ")
        created_at = datetime.fromisoformat(moment)
        created_at.astimezone(UTC)  # at an end of the calendar another zone has no such day
    except (binascii.Error, ValueError, OverflowError):
        created_at, clip_id = datetime.min, ""
    if not CLIP_ID.fullmatch(clip_id) or created_at.tzinfo is None:
        raise invalid(name, "is none of ours; use next_cursor as it came", cursor)
    return Place(created_at, clip_id)


def medians_of(usual: Mapping[tuple[str, str], Usual]) -> dict[tuple[str, str], float]:
    """The medians alone, for those who measure by them."""
    return {place: each.median_seconds for place, each in usual.items()}


async def read_page(
    connection: asyncpg.Connection, query: ListQuery, expectations: Expectations | None = None
) -> Listing:
    """A page of clips, newest first; without *expectations* nothing counts as slow."""
    if expectations is not None and query.view is not None:
        await expectations.refresh(connection)
    yardsticks = yardsticks_from(medians_of(expectations.usual) if expectations is not None else {})
    return await read_listing(
        connection, query.filter, query.limit, before=query.before, after=query.after, yardsticks=yardsticks
    )


async def list_clips(request: web.Request) -> web.Response:
    """A page of clips, newest first. It may be short where few clips fit: go on until next_cursor is null."""
    query = query_from(request)
    async with connection_of(request) as connection:
        listing = await read_page(connection, query, request.app[EXPECTATIONS])
    following = write_cursor(listing.more) if listing.more else None
    return json_response({"clips": [clip_as_json(clip) for clip in listing.clips], "next_cursor": following})


def clip_id_of(request: web.Request) -> str:
    """The id in the address; one that cannot be an id is an unknown clip, not an error of its own."""
    clip_id = request.match_info["id"]
    if not CLIP_ID.fullmatch(clip_id):
        raise Problem("unknown-clip", f"No clip has the id {shorten(clip_id)}")
    return clip_id


async def known_clip(connection: asyncpg.Connection, clip_id: str) -> Clip:
    """The clip.

    Raises:
        UnknownClip: there is none.
    """
    clip = await read_clip(connection, clip_id)
    if clip is None:
        raise UnknownClip(clip_id)
    return clip


async def show_clip(request: web.Request) -> web.Response:
    """One clip, with its version as ETag."""
    clip_id = clip_id_of(request)
    if "If-None-Match" in request.headers:
        # Whoever polls has it already, most of the time: its number tells, and costs a fraction of the row.
        version = await request.app[VERSIONS].get(clip_id)
        answer = None if version is None else unchanged(request, f"v{version}")
        if answer is not None:
            return answer
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
    return versioned_response(f"v{clip.version}", clip_as_json(clip))


async def show_status(request: web.Request) -> web.Response:
    """Where a clip stands; an unknown id is an answer, not a 404."""
    clip_id = request.match_info["id"]
    now, expectations = services_of(request).now(), request.app[EXPECTATIONS]
    if expectations.are_old:
        async with connection_of(request) as connection:
            await expectations.refresh(connection)
    clip = await request.app[STANDINGS].get(clip_id) if CLIP_ID.fullmatch(clip_id) else None
    if clip is None:
        return json_response(unknown_as_json(clip_id, now))
    eta_seconds = expectations.eta_seconds(clip, now)
    # An estimate that has moved by less than ten seconds is the same to whoever polls.
    tag = f"s{clip.version}" if eta_seconds is None else f"s{clip.version}-{int(eta_seconds / 10)}"
    return unchanged(request, tag) or versioned_response(tag, status_as_json(clip, eta_seconds))


async def show_events(request: web.Request) -> web.Response:
    """The history of a clip, oldest first, and what waits to be judged."""
    clip_id = clip_id_of(request)
    after = whole(request, "after", 0, 0, 2**63 - 1)
    limit = whole(request, "limit", MAX_LIMIT, 1, MAX_LIMIT)
    async with connection_of(request) as connection:
        await known_clip(connection, clip_id)
        events = await read_events(connection, clip_id, after, limit + 1)
        pruned_before = await read_pruned_before(connection, clip_id)
        pending = await read_pending(connection, clip_id)
    shown = events[:limit]
    return json_response(
        {
            "events": [event_as_json(event) for event in shown],
            "pending": [
                {
                    "requested_status": signal.requested_status,
                    "attempt": signal.attempt,
                    "source": signal.source,
                    "at": timestamp(signal.at),
                }
                for signal in pending
            ],
            "next_after": shown[-1].id if len(events) > limit else None,
            "pruned_before": timestamp_or_none(pruned_before),
        }
    )
