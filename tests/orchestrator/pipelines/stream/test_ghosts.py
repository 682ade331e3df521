"""Ghosts: which videos are wanted by nobody, and that no other is ever removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.drivers.budget import CallClass
from orchestrator.drivers.cloudflare_models import Video, VideoPage, VideoState
from orchestrator.drivers.errors import TransientError
from orchestrator.pipelines.stream import ghosts
from orchestrator.pipelines.stream.ghosts import GRACE, PAGES, REMOVED_AT_ONCE, GhostSweep, mark_of

NOW = datetime.now(UTC)
OLD = NOW - GRACE - timedelta(hours=1)


class Library:
    """The provider's videos, newest first, as its list call gives them."""

    def __init__(self, videos: Iterable[Video] = ()) -> None:
        self.videos = list(videos)
        self.deleted: list[str] = []
        self.classes: set[CallClass] = set()
        self.lists = 0

    async def list_in_states(
        self, states: Iterable[VideoState], before: datetime | None, limit: int, call_class: CallClass
    ) -> VideoPage:
        self.lists += 1
        self.classes.add(call_class)
        wanted = set(states)
        newest_first = sorted(self.videos, key=lambda video: video.created_at or NOW, reverse=True)
        listed = [v for v in newest_first if before is None or (v.created_at or NOW) < before]
        return VideoPage(tuple(video for video in listed[:limit] if video.state in wanted))

    async def delete(self, uid: str, call_class: CallClass) -> None:
        self.classes.add(call_class)
        self.deleted.append(uid)


def video(uid: str, creator: str | None, created_at: datetime | None = OLD, **more: Any) -> Video:
    return Video(uid, more.pop("state", VideoState.READY), created_at=created_at, creator=creator, **more)


@pytest.fixture
async def clips(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Clips in every position that matters here; their own videos are u1 to u5."""
    owner = await asyncpg.connect(database)
    await owner.execute(
        "INSERT INTO clips (id, cloudflare_uid) VALUES ('running', 'u1'), ('done', 'u2'), ('failed', 'u3'),"
        " ('again', 'u4'), ('waiting', NULL), ('lost', NULL), ('adopter', 'u5')"
    )
    await owner.execute("UPDATE clips SET status = 'complete', progress = 100, look_at = NULL WHERE id = 'done'")
    await owner.execute("UPDATE clips SET status = 'error', look_at = NULL WHERE id IN ('failed', 'again', 'lost')")
    await owner.execute(
        "UPDATE clips SET status = 'uploading', attempt = 2, progress = 15, look_at = now() WHERE id = 'again'"
    )
    yield owner
    await owner.close()


GHOSTS = [
    video("g1", "running.1"),  # a second copy, the answer to whose request was lost
    video("g2", "done.1", state=VideoState.ERROR),
    video("g3", "failed.1", state=VideoState.PENDING_UPLOAD),
    video("g4", "again.1"),  # its attempt is over
    video("g5", "lost.1"),  # the clip ended before it was found
    video("g6", "again.2"),
]
WANTED = [
    video("u1", "running.1"),
    video("u2", "done.1"),
    video("u3", "failed.1"),
    video("u4", "again.1"),
    video("w1", "waiting.1"),  # the clip finds it by its mark
    video("u5", "done.1"),  # another clip holds it now
    video("w2", "running.2"),  # an attempt that our clip has not reached: another installation's
    video("w3", "elsewhere.1"),  # a clip of which our database knows nothing
    video("w4", None),
    video("w5", "running"),
    video("w6", "running.0"),
    video("w7", "running.1.1"),
    video("w8", "a customer.1"),
    video("w9", "running.1", created_at=NOW - GRACE + timedelta(hours=1)),
    video("w10", "running.1", created_at=None),
    video("w11", "running.1", state=VideoState.LIVE_IN_PROGRESS),
    video("w12", "running.1", state=VideoState.UNKNOWN),
]


async def test_a_video_is_a_ghost_only_where_nobody_can_want_it(clips: Any, pool: asyncpg.Pool) -> None:
    library = Library([*GHOSTS, *WANTED])
    with capture_logs() as logs:
        counts = await GhostSweep(library, pool, removes=True).sweep()  # type: ignore[arg-type]
    assert sorted(library.deleted) == [ghost.uid for ghost in GHOSTS]
    assert (counts["ghosts"], counts["ghosts_removed"]) == (len(GHOSTS), len(GHOSTS))
    assert library.classes == {CallClass.RECONCILE}
    assert {entry["uid"] for entry in logs} == {ghost.uid for ghost in GHOSTS}


async def test_nothing_is_removed_unless_the_owner_has_said_so(clips: Any, pool: asyncpg.Pool) -> None:
    library = Library(GHOSTS)
    with capture_logs() as logs:
        counts = await GhostSweep(library, pool, removes=False).sweep()  # type: ignore[arg-type]
    assert (library.deleted, counts["ghosts"], counts["ghosts_removed"]) == ([], len(GHOSTS), 0)
    assert [entry["removed"] for entry in logs] == [False] * len(GHOSTS)


async def test_a_run_removes_no_more_than_a_few(clips: Any, pool: asyncpg.Pool) -> None:
    library = Library([video(f"g{n}", "done.1") for n in range(REMOVED_AT_ONCE + 5)])
    sweep = GhostSweep(library, pool, removes=True)  # type: ignore[arg-type]
    assert (await sweep.sweep())["ghosts_removed"] == REMOVED_AT_ONCE


async def test_a_run_makes_few_calls_and_the_next_goes_on_where_it_ended(
    clips: Any, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ghosts, "PAGE_VIDEOS", 10)
    library = Library(video(f"v{n:03}", None, created_at=OLD - timedelta(minutes=n)) for n in range(75))
    library.videos.append(video("g", "done.1", created_at=OLD - timedelta(days=9)))
    sweep = GhostSweep(library, pool, removes=False)  # type: ignore[arg-type]
    assert await sweep.sweep() == {"videos_looked_at": 40, "ghosts": 0, "ghosts_removed": 0}
    assert library.lists == PAGES
    assert await sweep.sweep() == {"videos_looked_at": 36, "ghosts": 1, "ghosts_removed": 0}
    again = await sweep.sweep()
    again_from_the_newest = again["videos_looked_at"] or (await sweep.sweep())["videos_looked_at"]
    assert again_from_the_newest == 40


async def test_a_provider_that_lists_the_same_over_and_over_is_left_alone(clips: Any, pool: asyncpg.Pool) -> None:
    class Stubborn(Library):
        async def list_in_states(self, states: Any, before: Any, limit: int, call_class: CallClass) -> VideoPage:
            return await super().list_in_states(states, None, limit, call_class)

    library = Stubborn([video("v", None)])
    await GhostSweep(library, pool, removes=False).sweep()  # type: ignore[arg-type]
    assert library.lists == 2


async def test_a_provider_that_is_away_is_told_and_asked_again(clips: Any, pool: asyncpg.Pool) -> None:
    class Away(Library):
        async def list_in_states(self, *_: Any) -> VideoPage:
            raise TransientError("provider_unavailable", "away")

    with pytest.raises(TransientError):
        await GhostSweep(Away(), pool, removes=True).sweep()  # type: ignore[arg-type]


def test_marks_are_read_as_they_are_made() -> None:
    assert mark_of(video("u", "0123abcd.12")) == ("0123abcd", 12)
    assert mark_of(replace(video("u", None), creator=f"{'x' * 65}.1")) is None
