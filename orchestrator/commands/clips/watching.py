"""`clips watch`: each change of one clip as it happens, until it ends.

The monitor's notification says when to look; a look every three seconds makes up for lost ones, and a lost
connection is opened again for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from orchestrator.commands.clips.reading import known_clip
from orchestrator.commands.database import asking
from orchestrator.commands.failures import NOT_DONE, CommandFailed, DatabaseAway
from orchestrator.commands.printing import complain, moment, painted, plain, say, say_json
from orchestrator.explaining import retry_moment
from orchestrator.settings import DatabaseSettings
from orchestrator.storage.clips import Clip, Event, read_events
from orchestrator.storage.pool import is_pooled
from orchestrator.web.views import is_terminal, message_of, reason_of, state_of, timestamp, timestamp_or_none
from signals import CHANGED_CHANNEL
from statusutils import COMPLETE, ERROR

# What the pages poll at, too: a person does not notice, and the database neither.
POLL_SECONDS = 3.0
# A failover takes tens of seconds. Who watches longer than this without a database should know.
AWAY_MAX_SECONDS = 60.0
# What tells where the clip stands; the rest of the history tells of requests and tries.
_PLACES = ("now", "progress", "moved", "created")
# Changes of one look; a clip that has more of them at once shows them a look later.
_EVENTS = 200


async def watch_clip(settings: DatabaseSettings, clip_id: str, timeout_seconds: float, *, as_json: bool) -> int:
    """Print the changes of a clip until nothing more will come; 0 when it is complete."""
    watch = _Watch(clip_id, as_json)
    try:
        async with asyncio.timeout(timeout_seconds):
            clip = await _follow(settings, watch)
    except TimeoutError:
        where = watch.seen.clip.status if watch.seen else "an unknown place"
        raise CommandFailed(f"clip {clip_id} is still at {where} after {timeout_seconds:g} s") from None
    return 0 if clip.status == COMPLETE else NOT_DONE


async def _follow(settings: DatabaseSettings, watch: _Watch) -> Clip:
    """The clip at its end, over as many connections as it takes."""
    while True:
        try:
            async with asking(settings) as connection:
                return await _follow_on(connection, watch)
        except DatabaseAway as problem:
            if watch.seen is None or time.monotonic() - watch.seen.at > AWAY_MAX_SECONDS:
                raise
            complain(f"{problem.text} Looking again.")
        await asyncio.sleep(POLL_SECONDS)


async def _follow_on(connection: asyncpg.Connection, watch: _Watch) -> Clip:
    changed = asyncio.Event()

    def told(*notification: Any) -> None:
        if watch.clip_id in str(notification[-1]).split(","):
            changed.set()

    connection.add_termination_listener(lambda *_: changed.set())
    if not await is_pooled(connection):
        await connection.add_listener(CHANGED_CHANNEL, told)
    while True:
        changed.clear()
        seen = await _look(connection, watch)
        watch.take(seen)
        if seen.more:
            continue
        if _is_settled(seen.clip):
            return seen.clip
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await changed.wait()


def _is_settled(clip: Clip) -> bool:
    """Whether the clip has ended: a failed one that is tried again, by itself or on request, has not."""
    if clip.status == ERROR:
        return clip.pending == 0 and retry_moment(clip) is None
    return clip.status == COMPLETE


@dataclass(frozen=True, slots=True)
class _Seen:
    """The clip, and its history since the look before, of one moment; *at* by the monotonic clock."""

    clip: Clip
    events: tuple[Event, ...]
    at: float

    @property
    def more(self) -> bool:
        return len(self.events) == _EVENTS


async def _look(connection: asyncpg.Connection, watch: _Watch) -> _Seen:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        clip = await known_clip(connection, watch.clip_id)
        after = watch.last_event_id
        if after is None:  # what was before is for `show`
            after = await connection.fetchval("SELECT max(id) FROM clip_events WHERE clip_id = $1", clip.id) or 0
            watch.last_event_id = after
        events = await read_events(connection, clip.id, after, _EVENTS)
        return _Seen(clip, tuple(events), time.monotonic())


@dataclass(frozen=True, slots=True)
class _Change:
    """One thing to print: a line of the history, or (as `now` and `progress`) where the clip stands."""

    kind: str
    at: datetime
    attempt: int
    status: str
    progress: float
    asked_for: str | None = None
    source: str | None = None
    reason: str | None = None
    retry_at: datetime | None = None


def _change_of(event: Event, clip: Clip) -> _Change:
    status = event.to_status if event.kind in _PLACES else event.from_status
    return _Change(
        kind=event.kind,
        at=event.at,
        attempt=event.attempt,
        status=status or clip.status,
        progress=clip.progress if event.progress is None else event.progress,
        # A failed try asked for nothing: it wanted to get on where it was.
        asked_for=None if event.kind in (*_PLACES, "failed-try") else event.to_status,
        source=event.source,
        reason=reason_of(event.details),
    )


class _Watch:
    """What has been seen and printed of one clip."""

    def __init__(self, clip_id: str, as_json: bool) -> None:
        self.clip_id = clip_id
        self.last_event_id: int | None = None
        self.seen: _Seen | None = None
        self._as_json = as_json
        self._printed: tuple[int, str, float] | None = None
        self._told_retry_at: datetime | None = None

    def take(self, seen: _Seen) -> None:
        """Print what is new."""
        self.seen = seen
        clip = seen.clip
        for event in seen.events:
            change = _change_of(event, clip)
            self._print(clip, change)
            self.last_event_id = event.id
            if change.kind in _PLACES:
                self._printed = (change.attempt, change.status, change.progress)
        place = (clip.attempt, clip.status, clip.progress)
        if place != self._printed and not seen.more:
            kind = "now" if self._printed is None else "progress"
            self._print(clip, _Change(kind, clip.updated_at, *place))
            self._printed = place
        self._tell_retry(clip)

    def _tell_retry(self, clip: Clip) -> None:
        """Say once when a failed clip is tried again by itself, and that the watch goes on until then."""
        retry_at = retry_moment(clip)
        if retry_at is None or retry_at == self._told_retry_at:
            return
        self._told_retry_at = retry_at
        reason = f"attempt {clip.attempt + 1} begins at {moment(retry_at)} UTC"
        place = (clip.attempt, clip.status, clip.progress)
        self._print(clip, _Change("retry", clip.updated_at, *place, reason=reason, retry_at=retry_at))

    def _print(self, clip: Clip, change: _Change) -> None:
        message = message_of(clip.pipeline, change.status, clip.error_message)
        if self._as_json:
            say_json(_document(clip, change, message))
        else:
            say(_line(change, message))


def _document(clip: Clip, change: _Change, message: str) -> dict[str, Any]:
    return {
        "id": clip.id,
        "kind": change.kind,
        "at": timestamp(change.at),
        "attempt": change.attempt,
        "status": change.status,
        "state": state_of(clip.pipeline, change.status),
        "progress": change.progress,
        "message": message,
        "terminal": is_terminal(change.status),
        "asked_for": change.asked_for,
        "source": change.source,
        "reason": change.reason,
        "retry_at": timestamp_or_none(change.retry_at),
    }


def _line(change: _Change, message: str) -> str:
    why = f": {plain(change.reason)}" if change.reason else ""
    if change.kind == "retry":
        return f"{moment(change.at)}  It is tried again by itself{why}"
    if change.kind not in _PLACES:
        asked_for = f" asked for {change.asked_for}" if change.asked_for else ""
        return f"{moment(change.at)}  {plain(f'{change.kind}: {change.source}{asked_for}')}{why}"
    by = f"  ({plain(change.source)}{why})" if change.source else ""
    return f"{moment(change.at)}  {painted(change.status)}  {change.progress:g} %  {plain(message)}{by}"
