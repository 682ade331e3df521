"""The hands: what one clip's refusal means to the others, when an MP4 was asked for, and tidying up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoPage
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.pipelines.stream import hands as hands_module
from orchestrator.pipelines.stream.effects import EnableMp4
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import VIDEO, VideoMissing
from orchestrator.storage.clips import Clip

REFUSED = PermanentError("provider_refused", "not this one")


class Stream:
    """A provider whose list leaves videos out, and which refuses some of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def list_by_ids(self, uids: Iterable[str]) -> dict[str, Video]:
        return {uid: Video(uid) for uid in uids if uid.startswith("listed")}

    async def get(self, uid: str) -> Video | None:
        if uid.startswith("refused"):
            raise REFUSED
        return None if uid.startswith("missing") else Video(uid)

    async def list_in_states(self, *_: Any) -> VideoPage:
        self.asked.append("ghosts")
        return VideoPage()

    async def get_downloads(self, uid: str) -> Download:
        return Download(DownloadState.ABSENT)

    async def enable_download(self, uid: str) -> Download:
        self.asked.append("enable")
        return Download(DownloadState.IN_PROGRESS)


def hands_of(stream: Stream) -> StreamHands:
    return StreamHands(stream, None, None, None, None, 1)  # type: ignore[arg-type]


def clip(uid: str) -> Clip:
    values: dict[str, Any] = dict.fromkeys(one.name for one in fields(Clip))
    return Clip(**values | {"id": f"c-{uid}", "cloudflare_uid": uid})


async def test_a_video_that_is_refused_hides_no_other() -> None:
    seen = await hands_of(Stream()).observe(VIDEO, [clip(uid) for uid in ("listed", "refused", "found", "missing")])
    assert seen == {
        "c-listed": Video("listed"),
        "c-refused": REFUSED,
        "c-found": Video("found"),
        "c-missing": VideoMissing(),
    }


async def test_each_request_for_an_mp4_is_counted_with_its_time() -> None:
    before = datetime.now(UTC)
    done = await hands_of(Stream()).carry_out(EnableMp4("c", 2, "u", 3), None)  # type: ignore[arg-type]
    assert (done.details["mp4_makes"], done.details["mp4_makes_in_attempt"]) == (3, 2)
    assert before <= datetime.fromisoformat(str(done.details["mp4_asked_at"])) <= datetime.now(UTC)


@pytest.mark.parametrize("problem", [None, TransientError("store_failing", "503")])
async def test_a_bucket_that_fails_hides_no_ghost(problem: DriverError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sweep_orphans(*_: Any) -> int:
        if problem is not None:
            raise problem
        return 2

    monkeypatch.setattr(hands_module, "sweep_orphans", sweep_orphans)
    stream = Stream()
    if problem is None:
        counts = await hands_of(stream).tidy()
        assert counts == {"uploads_aborted": 2, "videos_looked_at": 0, "ghosts": 0, "ghosts_removed": 0}
    else:
        with pytest.raises(TransientError):
            await hands_of(stream).tidy()
    assert stream.asked == ["ghosts"]
