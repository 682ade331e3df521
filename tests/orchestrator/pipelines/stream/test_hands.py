"""The hands: what one clip's refusal means to the others, when an MP4 was asked for, and tidying up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoPage
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.monitor.failures import BLAMELESS
from orchestrator.pipelines.stream import hands as hands_module
from orchestrator.pipelines.stream.effects import CopyFromUrl, EnableMp4, TransferToBucket
from orchestrator.pipelines.stream.foresight import Foresight
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import DELIVERY, DOWNLOAD, VIDEO, NothingThere, VideoMissing
from orchestrator.pipelines.terms import Step
from orchestrator.storage.clips import Clip
from orchestrator.transfer import NotYetThereError, TransferJob, TransferResult

REFUSED = PermanentError("provider_refused", "not this one")


class Stream:
    """A provider whose list leaves videos out, and which refuses some of them."""

    def __init__(self, download: Download | None = None, made: Video | None = None) -> None:
        self.asked: list[str] = []
        self.left = 1.0
        self.download = download or Download(DownloadState.ABSENT)
        self.made = made

    def headroom(self) -> float:
        return self.left

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
        if uid.startswith("refused"):
            raise REFUSED
        self.asked.append(f"downloads {uid}")
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
    """A database that knows where the clip is to be fetched from, and what was asked for already."""

    def __init__(self, *asked: tuple[str, str], broken: Exception | None = None) -> None:
        self.asked = set(asked)
        self.broken = broken

    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[Pool]:
        yield self

    async def fetchval(self, statement: str, *args: str) -> str | bool | None:
        if "source_url" in statement:
            return "https://owner.example/clip.mp4"
        if self.broken is not None:
            raise self.broken
        is_first = args not in self.asked
        self.asked.add(args)  # type: ignore[arg-type]
        return is_first or None

    async def fetch(self, statement: str) -> list[Any]:
        return []

    async def execute(self, statement: str, *args: Any) -> str:
        return "DELETE 0"


class Silent:
    """Reports nobody hears."""

    def progress(self, status: str, percent: float | None) -> None:
        pass

    async def step(self, step: Step) -> None:
        pass


class Host:
    """A delivery host that has some files, refuses others, and is silent about the rest."""

    def __init__(self, *has: str) -> None:
        self.has = has
        self.asked: list[str] = []

    async def probe(self, address: str) -> None:
        self.asked.append(address)
        if address.partition("?")[0] in self.has:
            return
        if "forbidden" in address:
            raise PermanentError("source_forbidden", "no")
        if "silent" in address:
            await asyncio.sleep(60)
        raise NotYetThereError("mp4_not_yet_there", "The source answered 404.")


def hands_of(stream: Stream, pool: Pool | None = None, host: Host | None = None, **others: Any) -> StreamHands:
    clock = others.pop("clock", lambda: datetime.now(UTC))
    return StreamHands(stream, None, host, None, pool or Pool(), 1, clock=clock, **others)  # type: ignore[arg-type]


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


async def test_an_mp4_of_which_the_provider_refuses_to_speak_hides_no_other() -> None:
    seen = await hands_of(stream := Stream()).observe(DOWNLOAD, [clip(uid) for uid in ("one", "refused", "two")])
    assert seen == {"c-one": stream.download, "c-refused": REFUSED, "c-two": stream.download}


async def test_each_request_for_an_mp4_is_counted_with_its_time_by_the_clock_of_the_plan() -> None:
    then = datetime(2031, 5, 6, tzinfo=UTC)
    done = await hands_of(Stream(), clock=lambda: then).carry_out(EnableMp4("c", 2, "u", 3), None)  # type: ignore[arg-type]
    assert (done.details["mp4_makes"], done.details["mp4_makes_in_attempt"]) == (3, 2)
    assert done.details["mp4_asked_at"] == then.isoformat()


@pytest.mark.parametrize("state", [state for state in DownloadState if state is not DownloadState.ABSENT])
async def test_an_mp4_that_is_there_or_on_its_way_is_not_asked_for_again(state: DownloadState) -> None:
    stream = Stream(download=Download(state))
    await hands_of(stream).carry_out(EnableMp4("c", 1, "u"), None)  # type: ignore[arg-type]
    assert stream.asked == ["downloads u"]


async def test_a_copy_that_was_made_already_is_not_asked_for_again() -> None:
    """The answer to the first request was lost, and a second one would make a second video."""
    stream = Stream(made=Video("there"))
    hands = hands_of(stream, Pool(("c", "copy 2")))
    done = await hands.carry_out(CopyFromUrl("c", 2, None), None)  # type: ignore[arg-type]
    assert stream.asked == ["find c.2"]
    assert done.step is not None
    assert done.step.facts == {"cloudflare_uid": "there"}


async def test_a_copy_nobody_has_asked_for_is_not_looked_for_and_each_further_one_is() -> None:
    stream = Stream()
    hands = hands_of(stream)
    copied, looked = "copy https://owner.example/clip.mp4 as c.2", "find c.2"
    for asked in ([copied], [copied, looked, copied]):
        await hands.carry_out(CopyFromUrl("c", 2, None), None)  # type: ignore[arg-type]
        assert stream.asked == asked
    stream.asked.clear()
    await hands.carry_out(CopyFromUrl("c", 3, None), None)  # type: ignore[arg-type]
    assert stream.asked == ["copy https://owner.example/clip.mp4 as c.3"], "the mark of another attempt is another one"


@pytest.mark.parametrize(
    "problem",
    [ConnectionRefusedError(), asyncpg.DiskFullError("no space"), asyncpg.InsufficientPrivilegeError("no")],
    ids=repr,
)
@pytest.mark.parametrize("effect", [CopyFromUrl("c", 1, None), EnableMp4("c", 1, "u", is_fresh=True)], ids=repr)
async def test_what_cannot_be_noted_is_not_asked_for(problem: Exception, effect: Any) -> None:
    """Else the next one finds no note of it and asks for a second time."""
    stream = Stream()
    with pytest.raises(TransientError) as refusal:
        await hands_of(stream, Pool(broken=problem)).carry_out(effect, None)  # type: ignore[arg-type]
    assert refusal.value.code in BLAMELESS
    assert stream.asked == []


async def test_the_first_mp4_of_a_fresh_video_is_asked_for_without_a_look_and_no_other() -> None:
    for asked_before, effect, expected in (
        ((), EnableMp4("c", 1, "u", is_fresh=True), ["enable"]),
        ((("c", "mp4 u"),), EnableMp4("c", 1, "u", is_fresh=True), ["downloads u", "enable"]),
        ((), EnableMp4("c", 1, "u", make=2, is_fresh=True), ["downloads u", "enable"]),
        ((), EnableMp4("c", 1, "u"), ["downloads u", "enable"]),
    ):
        stream = Stream()
        await hands_of(stream, Pool(*asked_before)).carry_out(effect, None)  # type: ignore[arg-type]
        assert stream.asked == expected


async def test_an_mp4_is_looked_for_at_the_address_the_provider_named_and_costs_no_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hands_module, "ADDRESS_SECONDS", 0.05)
    urls = {name: f"https://host.example/{name}/default.mp4" for name in ("there", "not-yet", "forbidden", "silent")}
    host = Host(urls["there"])
    hands = hands_of(stream := Stream(), host=host)
    for name, url in urls.items():
        stream.download = Download(DownloadState.IN_PROGRESS, 5.0, url)
        assert await hands.observe(DOWNLOAD, [clip(name)]) == {f"c-{name}": stream.download}
    stream.asked.clear()
    seen = await hands.observe(DELIVERY, [clip(name) for name in urls])
    assert seen == {
        "c-there": Download(DownloadState.READY, 100.0, urls["there"]),
        "c-not-yet": NothingThere(),
        "c-forbidden": NothingThere(),
        "c-silent": NothingThere(),
    }
    assert stream.asked == []
    await hands.observe(DELIVERY, [clip("not-yet")])
    asked = [address for address in host.asked if "not-yet" in address]
    assert len(set(asked)) == 2, "an answer kept on the way is not met again"
    assert all(address.startswith(f"{urls['not-yet']}?filename=look-") for address in asked)


async def test_an_address_nobody_has_named_is_asked_for() -> None:
    hands = hands_of(stream := Stream(Download(DownloadState.IN_PROGRESS, 5.0)))
    assert await hands.observe(DELIVERY, [clip("u")]) == {"c-u": stream.download}
    assert stream.asked == ["downloads u"]


async def test_the_outlook_learns_from_each_look() -> None:
    foresight = Foresight()
    hands = hands_of(stream := Stream(), foresight=foresight)
    stream.left = 0.3
    await hands.observe(VIDEO, [clip("listed1"), clip("listed2")])
    assert (foresight.outlook().headroom, foresight.outlook().crowd) == (0.3, 2)


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
    assert stream.asked == ["downloads u", *asked]


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
