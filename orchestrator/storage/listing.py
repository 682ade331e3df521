"""Pages of clips, newest first, each by an index and within a bound, however many clips there are.

A page is a walk down one or two indexes that stops when it is full. Where the filter fits hardly any clip, a walk would
read the whole table: so it ends after `WALK_MAX` clips, too, and says where, for the next page to go on from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from orchestrator.noticing import Among, View, Yardsticks, yardsticks_as_json
from orchestrator.storage.clips import COLUMNS, Clip, clip_from_row
from statusutils import COMPLETE, ERROR

# Clips that one page looks through at most: 25 ms by measurement, and weeks of a busy house.
WALK_MAX = 50_000
# Unfinished clips are few: what is on its way at one time. Of more than these, those that waited longest for a look.
UNFINISHED_MAX = 50_000

_NEEDED = "id, created_at, pipeline, status, title, cloudflare_uid, processing_details, attempt, look_at, status_since"


@dataclass(frozen=True, slots=True)
class Place:
    """A clip's place in the list: the next page starts behind it."""

    created_at: datetime
    id: str


def place_of(clip: Clip) -> Place:
    """Where *clip* stands in the list."""
    return Place(clip.created_at, clip.id)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which clips are wanted; everything left out fits."""

    statuses: tuple[str, ...] = ()
    pipeline: str | None = None
    search: str | None = None
    error_code: str | None = None
    view: View | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One page, newest first: *more* is the place the next one starts behind, None at the end.

    *stopped_at* tells how far back was looked when the page ended before it was full.
    """

    clips: tuple[Clip, ...]
    more: Place | None = None
    stopped_at: datetime | None = None


@dataclass
class _Arguments:
    """The values of a statement, numbered as they are named."""

    values: list[Any] = field(default_factory=list)

    def add(self, value: Any, kind: str) -> str:
        """The parameter that stands for *value*."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


async def read_listing(
    connection: asyncpg.Connection,
    wanted: Filter,
    limit: int,
    *,
    before: Place | None = None,
    after: Place | None = None,
    yardsticks: Yardsticks | None = None,
) -> Listing:
    """A page of the clips that fit: those behind *before*, or the ones just above *after*, or the newest."""
    place, newer = (after, True) if after is not None else (before, False)
    arguments = _Arguments()
    statement = _statement(wanted, place, newer, limit + 1, arguments, yardsticks or {})
    clips = [clip_from_row(row) for row in await connection.fetch(statement, *arguments.values)]
    if newer:
        # The page below is where one came from. Where a walk upwards ends early, the page is the newest one instead.
        clips = clips[:limit][::-1]
        return Listing(tuple(clips), place_of(clips[-1]) if clips else None)
    has_walked_apart = len(_walks(wanted)) > 1
    edge = await _edge(connection, wanted, place) if has_walked_apart or len(clips) <= limit else None
    if edge is not None and has_walked_apart:
        # One walk ended where the other went on: what lies behind is left to the next page, which finds all of it.
        clips = [clip for clip in clips if (clip.created_at, clip.id) >= (edge.created_at, edge.id)]
    if len(clips) > limit:
        return Listing(tuple(clips[:limit]), place_of(clips[limit - 1]))
    return Listing(tuple(clips), edge, edge.created_at if edge else None)


def _statement(
    wanted: Filter, place: Place | None, newer: bool, limit: int, arguments: _Arguments, yardsticks: Yardsticks
) -> str:
    """The statement of one page; the walks of it end by themselves."""
    order = "created_at ASC, id ASC" if newer else "created_at DESC, id DESC"
    bound = _bound(place, newer, arguments)
    fits = _fits(wanted, arguments)
    measure = ""
    if wanted.view is not None and wanted.view.is_measured:
        measure = arguments.add(json.dumps(yardsticks_as_json(yardsticks)), "text")
    found = []
    for walk in _walks(wanted):
        among = _AMONG.get(walk)
        seen = f" AND {wanted.view.sql(among, measure)}" if wanted.view is not None and among is not None else ""
        found.append(
            f"(SELECT id, created_at FROM ({_walk(walk, bound, order)}) AS walked"
            f" WHERE {fits}{seen} ORDER BY {order} LIMIT {limit})"
        )
    if wanted.search is not None and wanted.view is None and place is None:
        # A whole id is found whatever its age; when the walk comes to it later, it is there once more.
        found.append(_named(wanted.search, fits, arguments))
    return (
        f"SELECT {COLUMNS} FROM clips JOIN ("
        f"SELECT id, created_at FROM ({' UNION '.join(found)}) AS found ORDER BY {order} LIMIT {limit}"
        f") AS page USING (id, created_at) ORDER BY {order}"
    )


# The walks: by age, by age among the failed, and among those on their way.
_AGE, _FAILED, _UNFINISHED = "age", "failed", "unfinished"
_AMONG = {_FAILED: Among.FAILED, _UNFINISHED: Among.UNFINISHED}


def _walks(wanted: Filter) -> Sequence[str]:
    if wanted.view is not None:
        return [walk for walk, among in _AMONG.items() if wanted.view.among(among)]
    if wanted.error_code is not None or (wanted.statuses and set(wanted.statuses) == {ERROR}):
        return [_FAILED]
    if wanted.statuses and not set(wanted.statuses) & {COMPLETE, ERROR}:
        return [_UNFINISHED]
    return [_AGE]


def _walk(walk: str, bound: str, order: str) -> str:
    if walk == _UNFINISHED:
        # In the order of the one index that holds nothing else; the few that are left are sorted afterwards.
        few = (
            f"SELECT {_NEEDED} FROM clips WHERE look_at IS NOT NULL AND status NOT IN ('{COMPLETE}', '{ERROR}')"
            f" ORDER BY look_at LIMIT {UNFINISHED_MAX}"
        )
        return f"SELECT * FROM ({few}) AS unfinished WHERE {bound}"
    only = f"status = '{ERROR}' AND " if walk == _FAILED else ""
    return f"SELECT {_NEEDED} FROM clips WHERE {only}{bound} ORDER BY {order} LIMIT {WALK_MAX}"


def _named(search: str, fits: str, arguments: _Arguments) -> str:
    text = arguments.add(search, "text")
    return f"(SELECT id, created_at FROM clips WHERE (id = {text} OR cloudflare_uid = {text}) AND {fits})"


def _bound(place: Place | None, newer: bool, arguments: _Arguments) -> str:
    if place is None:
        return "true"
    at, name = arguments.add(place.created_at, "timestamptz"), arguments.add(place.id, "text")
    return f"(created_at, id) {'>' if newer else '<'} ({at}, {name})"


def _fits(wanted: Filter, arguments: _Arguments) -> str:
    parts = ["true"]
    if wanted.statuses:
        parts.append(f"status = ANY ({arguments.add(list(wanted.statuses), 'text[]')})")
    if wanted.pipeline is not None:
        parts.append(f"pipeline = {arguments.add(wanted.pipeline, 'text')}")
    if wanted.error_code is not None:
        parts.append(
            f"left(processing_details ->> 'error_code', 100) = left({arguments.add(wanted.error_code, 'text')}, 100)"
        )
    if wanted.search is not None:
        # strpos takes the text as it is: there is no pattern to escape.
        text = arguments.add(wanted.search, "text")
        parts.append(
            f"(strpos(lower(coalesce(title, '')), lower({text})) > 0 OR strpos(id, {text}) = 1"
            f" OR cloudflare_uid = {text})"
        )
    return " AND ".join(parts)


async def _edge(connection: asyncpg.Connection, wanted: Filter, place: Place | None) -> Place | None:
    """Where the walk of a page that is not full came to its bound; None where it came to the end."""
    walks = [walk for walk in _walks(wanted) if walk != _UNFINISHED]
    if not walks:
        return None
    arguments = _Arguments()
    only = f"status = '{ERROR}' AND " if walks == [_FAILED] else ""
    rows = await connection.fetch(
        f"SELECT created_at, id FROM clips WHERE {only}{_bound(place, False, arguments)}"
        f" ORDER BY created_at DESC, id DESC OFFSET {WALK_MAX - 1} LIMIT 2",
        *arguments.values,
    )
    return Place(**rows[0]) if len(rows) > 1 else None
