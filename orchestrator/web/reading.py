"""Reading clips: the list, one of them, its status for those who poll, its history."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from aiohttp import web

from orchestrator.storage.clips import COLUMNS, Clip, clip_from_row, read_clip, read_events
from orchestrator.web.bodies import check_text
from orchestrator.web.connections import connection_of
from orchestrator.web.expecting import EXPECTATIONS
from orchestrator.web.problems import Problem, invalid, shorten
from orchestrator.web.services import services_of
from orchestrator.web.views import (
    CLIP_ID,
    clip_as_json,
    event_as_json,
    json_response,
    status_as_json,
    timestamp,
    unknown_as_json,
    versioned_response,
)
from signals import UnknownClip, read_pending
from statusutils import TABLES

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
_SEARCH_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Place:
    """A clip's place in the list: the next page starts behind it."""

    created_at: datetime
    id: str


def place_of(clip: Clip) -> Place:
    """Where *clip* stands in the list."""
    return Place(clip.created_at, clip.id)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which clips are asked for; *before* is the place the page starts behind."""

    statuses: tuple[str, ...] = ()
    pipeline: str | None = None
    search: str | None = None
    before: Place | None = None
    limit: int = DEFAULT_LIMIT


def query_from(request: web.Request) -> ListQuery:
    """The query of a list call, every value of it checked; empty ones count as absent."""
    asked = request.query
    statuses = tuple(dict.fromkeys(part for text in asked.getall("status", []) for part in text.split(",") if part))
    pipeline, search = asked.get("pipeline") or None, asked.get("search") or None
    if pipeline is not None and pipeline not in TABLES:
        raise invalid("pipeline", f"must be one of {', '.join(TABLES)}", pipeline)
    known = {name for table in TABLES.values() for name in table.by_name}
    for status in statuses:
        if status not in known:
            names = ", ".join(dict.fromkeys(name for table in TABLES.values() for name in table.by_name))
            raise invalid("status", f"must be one of {names}", status, code="unknown-status")
    if search is not None:
        if len(search) > _SEARCH_MAX_CHARACTERS:
            raise invalid("search", f"must have at most {_SEARCH_MAX_CHARACTERS} characters", search)
        check_text("search", search)
    cursor = asked.get("cursor") or None
    return ListQuery(
        statuses,
        pipeline,
        search,
        read_cursor(cursor) if cursor else None,
        whole(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
    )


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


def read_cursor(cursor: str) -> Place:
    """The place a cursor of ours stands for."""
    try:
        text = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        moment, _, clip_id = text.partition(" ")
        created_at = datetime.fromisoformat(moment)
    except (binascii.Error, ValueError):
        created_at, clip_id = datetime.min, ""
    if not CLIP_ID.fullmatch(clip_id) or created_at.tzinfo is None:
        raise invalid("cursor", "is none of ours; use next_cursor as it came", cursor)
    return Place(created_at, clip_id)


# list_clips: newest first, down an index; strpos takes the text as it is, no pattern to escape
_LIST = f"""
SELECT {COLUMNS} FROM clips
 WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2::text))
   AND ($3::text[] IS NULL OR status = ANY ($3))
   AND ($4::text IS NULL OR pipeline = $4)
   AND ($5::text IS NULL OR strpos(lower(coalesce(title, '')), lower($5)) > 0
        OR strpos(id, $5) = 1 OR cloudflare_uid = $5)
 ORDER BY created_at DESC, id DESC LIMIT $6
"""


async def read_list(connection: asyncpg.Connection, query: ListQuery) -> tuple[list[Clip], str | None]:
    """A page of clips, newest first, and the cursor of the next one."""
    before = query.before
    rows = await connection.fetch(
        _LIST,
        before.created_at if before else None,
        before.id if before else None,
        list(query.statuses) or None,
        query.pipeline,
        query.search,
        query.limit + 1,
    )
    clips = [clip_from_row(row) for row in rows[: query.limit]]
    return clips, write_cursor(place_of(clips[-1])) if len(rows) > query.limit else None


async def list_clips(request: web.Request) -> web.Response:
    """A page of clips, newest first."""
    query = query_from(request)
    async with connection_of(request) as connection:
        clips, next_cursor = await read_list(connection, query)
    return json_response({"clips": [clip_as_json(clip) for clip in clips], "next_cursor": next_cursor})


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
    async with connection_of(request) as connection:
        clip = await known_clip(connection, clip_id)
    return versioned_response(request, f"v{clip.version}", clip_as_json(clip))


async def show_status(request: web.Request) -> web.Response:
    """Where a clip stands; an unknown id is an answer, not a 404."""
    clip_id = request.match_info["id"]
    now, expectations = services_of(request).now(), request.app[EXPECTATIONS]
    clip = None
    if CLIP_ID.fullmatch(clip_id):
        async with connection_of(request) as connection:
            clip = await read_clip(connection, clip_id)
            await expectations.refresh(connection)
    if clip is None:
        return json_response(unknown_as_json(clip_id, now))
    eta_seconds = expectations.eta_seconds(clip, now)
    # An estimate that has moved by less than ten seconds is the same to whoever polls.
    tag = f"s{clip.version}" if eta_seconds is None else f"s{clip.version}-{int(eta_seconds / 10)}"
    return versioned_response(request, tag, status_as_json(clip, eta_seconds))


async def show_events(request: web.Request) -> web.Response:
    """The history of a clip, oldest first, and what waits to be judged."""
    clip_id = clip_id_of(request)
    after = whole(request, "after", 0, 0, 2**63 - 1)
    limit = whole(request, "limit", MAX_LIMIT, 1, MAX_LIMIT)
    async with connection_of(request) as connection:
        await known_clip(connection, clip_id)
        events = await read_events(connection, clip_id, after, limit + 1)
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
        }
    )
