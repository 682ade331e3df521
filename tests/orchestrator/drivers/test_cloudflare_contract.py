"""The driver and the Stream stand-in understand each other over real HTTP, from the first byte to the deletion."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.drivers.budget import BudgetSettings, CallClass, SharedCallBudget
from orchestrator.drivers.cloudflare import CloudflareSettings, CloudflareStream
from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState, parse_webhook_video
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.drivers.ffmpeg import find_ffmpeg
from orchestrator.drivers.signatures import HEADER, verify
from orchestrator.local.stream import StandInOptions, StreamStandIn

# Far longer than any wait of a test that passes.
PATIENCE_SECONDS = 30.0
# The provider's real limit takes minutes to fill; this one is a hundred times as fast and wide enough for a test.
WIDE = BudgetSettings(calls=100_000, window_seconds=10)
START = Callable[..., Awaitable[tuple[StreamStandIn, CloudflareStream]]]


@pytest.fixture(scope="session")
def small_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of a test picture with a tone."""
    path = tmp_path_factory.mktemp("media") / "small.mp4"
    inputs = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=1", "-f", "lavfi", "-i", "sine=duration=1"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    subprocess.run([find_ffmpeg(None), "-loglevel", "error", "-y", *inputs, *codecs, str(path)], check=True)
    return path


@pytest.fixture
async def start(database: str, tmp_path: Path) -> AsyncIterator[START]:
    """Starts a stand-in, and a driver for it on a real shared budget."""
    async with AsyncExitStack() as stack:

        async def start_one(budget: BudgetSettings = WIDE, **options: Any) -> tuple[StreamStandIn, CloudflareStream]:
            given = {"data_dir": tmp_path / "stream", "encode": "copy", "rate_limit_count": 1_000_000, **options}
            stand_in = await stack.enter_async_context(StreamStandIn(StandInOptions(**given)))
            pool = await asyncpg.create_pool(database, min_size=0, max_size=4)
            stack.push_async_callback(pool.close)
            settings = CloudflareSettings(
                stand_in.account_id, stand_in.api_token, stand_in.url, first_pause_seconds=0.001
            )
            driver = CloudflareStream(settings, SharedCallBudget(pool, budget, stand_in.account_id))
            stack.push_async_callback(driver.close)
            return stand_in, driver

        yield start_one


async def until(look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    """What *look* sees as soon as *holds* is true of it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds(seen := await look()):
            await asyncio.sleep(0.02)
        return seen


async def send_form(address: str, path: Path) -> None:
    """What a browser does with a one-time form address."""
    form = aiohttp.FormData()
    form.add_field("file", path.read_bytes(), filename=path.name, content_type="video/mp4")
    async with aiohttp.ClientSession() as session, session.post(address, data=form) as answer:
        assert answer.status == 200


async def ready_video(driver: CloudflareStream, path: Path) -> Video:
    """A video that was uploaded by form and is ready."""
    upload = await driver.create_direct_upload(60, "clip.1", {"name": "small"})
    await send_form(upload.upload_url, path)
    found = await until(lambda: driver.get(upload.uid), lambda video: video.state is VideoState.READY)
    assert isinstance(found, Video)
    return found


async def test_a_form_upload_becomes_an_mp4_and_is_deleted(start: START, small_mp4: Path) -> None:
    stand_in, driver = await start()
    expiry = datetime.now(UTC) + timedelta(hours=1)
    upload = await driver.create_direct_upload(60, "clip.1", {"name": "small", "clip_id": "clip"}, expiry)
    waiting = await driver.get(upload.uid)
    assert waiting is not None
    assert (waiting.state, waiting.creator, waiting.meta["clip_id"]) == (VideoState.PENDING_UPLOAD, "clip.1", "clip")
    assert waiting.upload_expires_at is not None
    assert abs(waiting.upload_expires_at - expiry) < timedelta(seconds=1)

    await send_form(upload.upload_url, small_mp4)
    video = await until(lambda: driver.get(upload.uid), lambda seen: seen.state is VideoState.READY)
    assert video.ready_to_stream
    assert video.percent == 100
    assert video.duration_seconds == pytest.approx(1, abs=0.2)
    assert video.size_bytes == small_mp4.stat().st_size
    assert video.hls_url is not None
    assert video.thumbnail_url is not None
    assert await driver.list_by_ids([upload.uid, "f" * 32]) == {upload.uid: video}

    assert await driver.get_downloads(upload.uid) == Download()
    assert (await driver.enable_download(upload.uid)).state is DownloadState.IN_PROGRESS
    ready = await until(lambda: driver.get_downloads(upload.uid), lambda seen: seen.state is DownloadState.READY)
    async with aiohttp.ClientSession() as session, session.get(ready.url) as answer:
        assert answer.status == 200
        assert (await answer.read())[4:8] == b"ftyp"
    await driver.reset_download(upload.uid)
    await driver.reset_download(upload.uid)
    assert await driver.get_downloads(upload.uid) == Download()

    await driver.delete(upload.uid)
    await driver.delete(upload.uid)
    assert await driver.get(upload.uid) is None
    assert stand_in.calls.limited == 0


async def test_a_tus_upload_goes_to_the_address_it_was_given(start: START, small_mp4: Path) -> None:
    _, driver = await start()
    body = small_mp4.read_bytes()
    expiry = datetime.now(UTC) + timedelta(hours=1)
    upload = await driver.create_tus_upload(len(body), 60, "clip.1", "Ä, b", expiry)
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    }
    async with (
        aiohttp.ClientSession() as session,
        session.patch(upload.upload_url, data=body, headers=headers) as answer,
    ):
        assert answer.status == 204
    video = await until(lambda: driver.get(upload.uid), lambda seen: seen.state is VideoState.READY)
    assert (video.creator, video.meta["name"]) == ("clip.1", "Ä, b")


async def test_a_copy_is_found_by_its_mark(start: START, small_mp4: Path) -> None:
    async def give(_: web.Request) -> web.FileResponse:
        return web.FileResponse(small_mp4)

    app = web.Application()
    app.router.add_get("/small.mp4", give)
    _, driver = await start()
    async with TestServer(app) as source:
        assert await driver.find_by_creator("clip.1") is None
        video = await driver.copy_from_url(str(source.make_url("/small.mp4")), "clip.1", {"clip_id": "clip"})
        assert video.state is VideoState.DOWNLOADING
        found = await driver.find_by_creator("clip.1")
        assert found is not None
        assert found.uid == video.uid
        await until(lambda: driver.get(video.uid), lambda seen: seen.state is VideoState.READY)


async def test_a_lost_answer_to_a_copy_makes_one_video_and_no_second(start: START, small_mp4: Path) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(api_answer_lost={"times": 1, "route": "POST /stream/copy"})
    with pytest.raises(TransientError) as failed:
        await driver.copy_from_url(f"{stand_in.base_url}/none.mp4", "clip.1", {})
    assert failed.value.code == "outcome_unknown"
    assert stand_in.calls.count("POST /stream/copy") == 1
    assert await driver.find_by_creator("clip.1") is not None


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 502, "html": True}])
async def test_creating_is_sent_once_and_reading_is_repeated(start: START, fault: dict[str, Any]) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(api_5xx=fault)
    for create in (
        driver.create_direct_upload(60, "clip.1", {}),
        driver.create_tus_upload(1000, 60, "clip.1", "x"),
        driver.copy_from_url(f"{stand_in.base_url}/none.mp4", "clip.1", {}),
    ):
        with pytest.raises(TransientError):
            await create
    assert stand_in.calls.total == 3
    with pytest.raises(TransientError):
        await driver.get("f" * 32)
    assert stand_in.calls.total == 6
    stand_in.faults.set(api_5xx={**fault, "times": 2})
    assert await driver.get("f" * 32) is None


async def test_an_mp4_before_its_time_is_not_ready(start: START) -> None:
    _, driver = await start()
    upload = await driver.create_direct_upload(60, "clip.1", {})
    with pytest.raises(TransientError) as failed:
        await driver.enable_download(upload.uid)
    assert failed.value.code == "not_ready"


async def test_the_limits_on_videos_are_not_the_limit_on_calls(start: START) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(queue_full={"times": 1})
    with pytest.raises(TransientError) as busy:
        await driver.create_direct_upload(60, "clip.1", {})
    assert busy.value.code == "provider_busy"
    stand_in.faults.set(quota_exceeded={"times": 1})
    with pytest.raises(PermanentError) as full:
        await driver.create_tus_upload(1000, 60, "clip.1", "x")
    assert full.value.code == "storage_quota"
    assert (await driver.create_direct_upload(60, "clip.1", {})).uid


@pytest.mark.parametrize("fault", [{}, {"retry_after": 120}])
async def test_429_ends_all_calls(start: START, fault: dict[str, Any]) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(api_429=fault)
    for _ in range(5):
        with pytest.raises(TransientError) as failed:
            await driver.get("f" * 32)
        assert failed.value.retry_after == pytest.approx(fault.get("retry_after", 300), abs=2)
    assert stand_in.calls.total == 1


async def test_a_refused_token_and_a_wrong_account_are_for_a_person(start: START, database: str) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(api_refused={"status": 403, "times": 1})
    with pytest.raises(PermanentError) as refused:
        await driver.get("f" * 32)
    assert refused.value.code == "provider_refused_token"
    settings = CloudflareSettings("other", stand_in.api_token, stand_in.url)
    async with asyncpg.create_pool(database, min_size=0, max_size=1) as pool:
        elsewhere = CloudflareStream(settings, SharedCallBudget(pool, WIDE, "other"))
        with pytest.raises(PermanentError) as wrong:
            await elsewhere.get("f" * 32)
        await elsewhere.close()
    assert wrong.value.code == "provider_address_wrong"


async def test_odd_answers_of_the_stand_in_are_understood(start: START, small_mp4: Path) -> None:
    stand_in, driver = await start(ready_at_percent=39.0)
    stand_in.faults.set(
        total_as_string={}, downloads_none={"shape": "404"}, downloads_flat={}, delete_conflict={"times": 1}
    )
    video = await ready_video(driver, small_mp4)
    assert video.state is VideoState.READY
    page = await driver.list_in_states([VideoState.READY])
    assert ([seen.uid for seen in page.videos], page.total) == ([video.uid], 1)
    assert await driver.get_downloads(video.uid) == Download()
    stand_in.faults.update(downloads_none={"shape": "null"})
    assert await driver.get_downloads(video.uid) == Download()
    assert (await driver.enable_download(video.uid)).state is DownloadState.IN_PROGRESS
    with pytest.raises(TransientError) as failed:
        await driver.delete(video.uid)
    assert failed.value.code == "provider_conflict"
    await driver.delete(video.uid)


@pytest.mark.parametrize("spelling", ["err", "both"])
async def test_a_failed_video_says_why(start: START, small_mp4: Path, spelling: str) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(encoding_fails={"code": "ERR_MALFORMED_VIDEO"}, error_spelling={"spelling": spelling})
    upload = await driver.create_direct_upload(60, "clip.1", {})
    await send_form(upload.upload_url, small_mp4)
    video = await until(lambda: driver.get(upload.uid), lambda seen: seen.state is VideoState.ERROR)
    assert video.error_code == "ERR_MALFORMED_VIDEO"
    assert not video.ready_to_stream


async def test_a_state_of_tomorrow_is_still_being_processed(start: START, small_mp4: Path) -> None:
    stand_in, driver = await start()
    stand_in.faults.set(unknown_state={"state": "optimizing"}, stuck_inprogress={})
    upload = await driver.create_direct_upload(60, "clip.1", {})
    await send_form(upload.upload_url, small_mp4)
    video = await until(lambda: driver.get(upload.uid), lambda seen: seen.state is VideoState.UNKNOWN)
    assert video.state_raw == "optimizing"
    stand_in.faults.clear()
    await until(lambda: driver.get(upload.uid), lambda seen: seen.state is VideoState.READY)


async def test_a_registered_webhook_is_signed_so_that_we_believe_it(start: START, small_mp4: Path) -> None:
    stand_in, driver = await start()
    arrived: asyncio.Queue[tuple[list[str], bytes]] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        arrived.put_nowait((request.headers.getall(HEADER), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with TestServer(app) as receiver:
        url = str(receiver.make_url("/hook"))
        assert await driver.get_webhook() is None
        registration = await driver.put_webhook(url)
        assert await driver.put_webhook(url) == registration
        assert stand_in.calls.count("PUT /stream/webhook") == 1
        video = await ready_video(driver, small_mp4)
        headers, body = await asyncio.wait_for(arrived.get(), PATIENCE_SECONDS)
        verify(body, headers, [registration.secret], datetime.now(UTC).timestamp())
        assert parse_webhook_video(body).uid == video.uid


async def test_a_private_video_is_read_with_a_token(start: START, small_mp4: Path) -> None:
    _, driver = await start()
    video = await ready_video(driver, small_mp4)
    token = await driver.create_token(video.uid, expires_in=timedelta(minutes=5))
    assert video.hls_url is not None
    async with (
        aiohttp.ClientSession() as session,
        session.get(video.hls_url.replace(video.uid, token)) as answer,
        session.get(video.hls_url.replace(video.uid, token[:-5] + "xxxxx")) as forged,
    ):
        assert (answer.status, forged.status) == (200, 401)


async def test_storage_is_told(start: START, small_mp4: Path) -> None:
    _, driver = await start()
    await ready_video(driver, small_mp4)
    usage = await driver.storage_usage()
    assert usage.video_count == 1
    assert usage.minutes_limit == 100_000


async def test_300_videos_in_flight_never_meet_the_rate_limit(start: START) -> None:
    # A limit that the machine would pass by far if nobody counted.
    budget = BudgetSettings(calls=150, window_seconds=1, max_wait_seconds=30)
    stand_in, driver = await start(budget, rate_limit_count=150, rate_limit_window_seconds=1.0, max_in_flight=1000)
    uploads = await asyncio.gather(*(driver.create_direct_upload(60, f"clip{n}.1", {}) for n in range(300)))
    uids = [upload.uid for upload in uploads]
    assert set(await driver.list_by_ids(uids)) == set(uids)
    await asyncio.gather(
        *(driver.get_downloads(uid) for uid in uids[:60]),
        *(driver.get(uid, call_class=CallClass.RECONCILE) for uid in uids[60:90]),
    )
    assert stand_in.calls.limited == 0
    assert stand_in.calls.count("GET /stream") == 6
    assert stand_in.calls.total == 300 + 6 + 60 + 30
