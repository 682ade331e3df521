"""The hands: what one clip's refusal means to the others, when an MP4 was asked for, and tidying up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoPage
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.pipelines.stream import hands as hands_module
from orchestrator.pipelines.stream.effects import CopyFromUrl, EnableMp4, TransferToBucket
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import VIDEO, VideoMissing
from orchestrator.pipelines.terms import Step
from orchestrator.storage.clips import Clip
from orchestrator.transfer import NotYetThereError, TransferJob, TransferResult

REFUSED = PermanentError("provider_refused", "not this one")


class Stream:
    """A provider whose list leaves videos out, and which refuses some of them."""

    def __init__(self, download: Download | None = None, made: Video | None = None) -> None:
        self.asked: list[str] = []
        self.download = download or Download(DownloadState.ABSENT)
        self.made = made

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
        return self.download

    async def find_by_creator(self, creator: str) -> Video | None:
        self.asked.append(f"find {creator}")
        return self.made

    async def copy_from_url(self, url: str, creator: str, meta: Mapping[str, str]) -> Video:
        self.asked.append(f"copy {url} as {creator}")
        return Video("copied")

    async def create_token(self, uid: str, downloadable: bool) -> str:
        self.asked.append("token")
        return "a-token"

    async def enable_download(self, uid: str) -> Download:
        self.asked.append("enable")
        return Download(DownloadState.IN_PROGRESS)


class Pool:
    """A database that knows where the clip is to be fetched from."""

    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[Pool]:
        yield self

    async def fetchval(self, statement: str, clip_id: str) -> str:
        return "https://owner.example/clip.mp4"


class Silent:
    """Reports nobody hears."""

    def progress(self, status: str, percent: float | None) -> None:
        pass

    async def step(self, step: Step) -> None:
        pass


def hands_of(stream: Stream) -> StreamHands:
    return StreamHands(stream, None, None, None, Pool(), 1)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("state", [state for state in DownloadState if state is not DownloadState.ABSENT])
async def test_an_mp4_that_is_there_or_on_its_way_is_not_asked_for_again(state: DownloadState) -> None:
    stream = Stream(download=Download(state))
    await hands_of(stream).carry_out(EnableMp4("c", 1, "u"), None)  # type: ignore[arg-type]
    assert stream.asked == []


async def test_a_copy_that_was_made_already_is_not_asked_for_again() -> None:
    """The answer to the first request was lost, and a second one would make a second video."""
    stream = Stream(made=Video("there"))
    done = await hands_of(stream).carry_out(CopyFromUrl("c", 2, None), None)  # type: ignore[arg-type]
    assert stream.asked == ["find c.2"]
    assert done.step is not None
    assert done.step.facts == {"cloudflare_uid": "there"}


async def test_a_copy_that_is_not_there_yet_is_asked_for_once_under_its_mark() -> None:
    stream = Stream()
    await hands_of(stream).carry_out(CopyFromUrl("c", 2, None), None)  # type: ignore[arg-type]
    assert stream.asked == ["find c.2", "copy https://owner.example/clip.mp4 as c.2"]


async def test_a_private_video_is_read_by_a_token_that_is_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    async def copy_to_bucket(job: TransferJob, *_: Any) -> TransferResult:
        read.append(job.source_url)
        return TransferResult("stream/u.mp4", "https://bucket.example/stream/u.mp4", 5, "etag", None)

    monkeypatch.setattr(hands_module, "copy_to_bucket", copy_to_bucket)
    effect = TransferToBucket(
        "c", 1, "u", "https://customer-x.cloudflarestream.com/u/downloads/default.mp4", None, True
    )
    done = await hands_of(Stream()).carry_out(effect, None)  # type: ignore[arg-type]
    assert read == ["https://customer-x.cloudflarestream.com/a-token/downloads/default.mp4"]
    assert "a-token" not in repr(done)


@pytest.mark.parametrize(
    ("state", "asked"), [(DownloadState.ABSENT, ["enable"]), (DownloadState.IN_PROGRESS, []), (DownloadState.READY, [])]
)
async def test_an_mp4_that_was_taken_away_again_is_asked_for_afresh(
    state: DownloadState, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A former leader's reset arrived after its successor had seen the MP4 ready; its address stays the same."""

    async def copy_to_bucket(*_: Any) -> TransferResult:
        raise NotYetThereError("mp4_not_yet_there", "The source answered 404.")

    monkeypatch.setattr(hands_module, "copy_to_bucket", copy_to_bucket)
    stream = Stream(download=Download(state))
    address = "https://customer-x.cloudflarestream.com/u/downloads/default.mp4"
    effect = TransferToBucket("c", 1, "u", address, None, False)
    with pytest.raises(NotYetThereError):
        await hands_of(stream).carry_out(effect, Silent())
    assert stream.asked == asked


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
