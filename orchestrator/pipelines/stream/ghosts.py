"""Ghosts: videos at the provider that were made for a clip of ours and belong to none.

A copy whose answer was lost, or one of an attempt that another attempt has replaced, stays at the provider and costs
storage by the minute. What may be called a ghost is narrow, for a video that is removed is gone:

    it carries our mark, `clip.attempt`, as its creator, and is more than a day old;
    our database knows that clip, and the mark's attempt is not ahead of it (another installation's might be);
    no clip of ours holds the video, and none will: the clip holds another, ended, or is in a later attempt.

A video whose clip we do not know is left alone: staging and production may share an account. Ghosts are told in the
log, and removed only where the owner has said so.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from orchestrator.drivers.budget import CallClass
from orchestrator.drivers.cloudflare import CloudflareStream
from orchestrator.drivers.cloudflare_models import Video, VideoState
from orchestrator.drivers.database import connection_of
from orchestrator.storage.clips import Clip, read_clip, read_clip_by_uid
from statusutils import COMPLETE, ERROR

log = structlog.get_logger(__name__)

# Whatever is under way is recorded within minutes, or tried again within hours.
GRACE = timedelta(hours=24)
# Four calls an hour that nobody misses: a thousand videos an hour, from the newest to the oldest, and over again.
PAGES = 4
PAGE_VIDEOS = 250
# A mistake of ours should not empty a library before somebody has read the log.
REMOVED_AT_ONCE = 20

_MARK = re.compile(r"([A-Za-z0-9_-]{1,64})\.([1-9][0-9]{0,8})")
_STATES = frozenset(VideoState) - {VideoState.UNKNOWN, VideoState.LIVE_IN_PROGRESS}


def mark_of(video: Video) -> tuple[str, int] | None:
    """The clip and the attempt that *video* was made for; None when its creator is no mark of ours."""
    found = _MARK.fullmatch(video.creator or "")
    return (found[1], int(found[2])) if found else None


def is_ghost(video: Video, attempt: int, clip: Clip) -> bool:
    """Whether *video*, made for *attempt* of *clip*, is wanted by that clip no more, and never will be again."""
    if attempt > clip.attempt or clip.cloudflare_uid == video.uid:
        return False
    will_be_found = clip.cloudflare_uid is None and attempt == clip.attempt and clip.status not in (COMPLETE, ERROR)
    return not will_be_found


class GhostSweep:
    """Walks through the library, some pages at a time; where it stands is known to this process alone."""

    def __init__(self, stream: CloudflareStream, pool: asyncpg.Pool, *, removes: bool) -> None:
        self._stream = stream
        self._pool = pool
        self._removes = removes
        self._before: datetime | None = None

    async def sweep(self) -> dict[str, int]:
        """How many videos were looked at, are ghosts, and were removed. Raises as the driver does."""
        counts = {"videos_looked_at": 0, "ghosts": 0, "ghosts_removed": 0}
        for _ in range(PAGES):
            page = await self._stream.list_in_states(_STATES, self._before, PAGE_VIDEOS, CallClass.RECONCILE)
            counts["videos_looked_at"] += len(page.videos)
            for video in page.videos:
                if await self._is_ghost(video):
                    counts["ghosts"] += 1
                    counts["ghosts_removed"] += await self._found(video, counts["ghosts_removed"] < REMOVED_AT_ONCE)
            oldest = min((video.created_at for video in page.videos if video.created_at is not None), default=None)
            if oldest is None or (self._before is not None and oldest >= self._before):
                self._before = None
                break
            self._before = oldest
        return counts

    async def _is_ghost(self, video: Video) -> bool:
        mark = mark_of(video)
        if mark is None or video.created_at is None or datetime.now(UTC) - video.created_at < GRACE:
            return False
        async with connection_of(self._pool) as connection:
            if await read_clip_by_uid(connection, video.uid) is not None:
                return False
            clip = await read_clip(connection, mark[0])
        return clip is not None and is_ghost(video, mark[1], clip)

    async def _found(self, video: Video, may_remove: bool) -> bool:
        """Tell of a ghost, and remove it where the owner wants that."""
        removes = self._removes and may_remove
        log.warning("a video belongs to no clip", uid=video.uid, mark=video.creator, removed=removes)
        if removes:
            await self._stream.delete(video.uid, CallClass.RECONCILE)
        return removes
