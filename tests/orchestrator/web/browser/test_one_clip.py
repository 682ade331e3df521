"""The page of one clip in a real browser: what it says of itself, what its buttons do, and what plays."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.drivers.ffmpeg import find_ffmpeg
from orchestrator.web.assets import read_assets

LIVE = "document.querySelector('[data-connection]').textContent === 'live'"
# What a browser says that does not play HLS itself.
CANNOT = "HTMLMediaElement.prototype.canPlayType = function (kind) { return /mpegurl/i.test(kind) ? '' : 'maybe'; };"
MANIFEST = "https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8"


def toast(kind: str, text: str) -> str:
    return f"[...document.querySelectorAll('.toast.{kind}')].some((toast) => toast.textContent.includes({text!r}))"


async def test_good_news_leaves_by_itself_and_an_error_stays_until_it_is_closed(client, place, tab, address):
    await place.clip("one", uid="u1", title="A day")
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    await place.move("one", "stream_ready")
    await tab.until(toast("info", "It can be watched now"))
    await place.move("one", "error", error_message="The file is corrupt")
    await tab.until(toast("error", "Failed: The file is corrupt"))
    assert await tab.run("document.querySelector('.toast.error').getAttribute('role')") == "alert"
    await tab.until("!document.querySelector('.toast.info')")  # five seconds later
    assert await tab.run(toast("error", "corrupt"))
    await tab.run("document.querySelector('.toast.error button').click()")
    assert not await tab.run("document.querySelector('.toast')")


async def test_a_button_asks_without_leaving_the_page_and_tells_a_refusal(client, place, tab, address):
    await place.clip("one", uid="u1", title="A day")
    await place.move("one", "error", error_message="Broken", look_at=None)
    await tab.go(address(client, "/clips/one"))
    await tab.run("window.sameDocument = true")
    assert await tab.run("document.querySelector('[data-region=banner]').textContent") == ""
    await tab.press("Try again")
    await tab.until(toast("info", "Requested: the monitor decides"))
    await tab.until("document.body.innerText.includes('not judged yet')")
    # Something is waited for again: the page follows.
    await tab.until(LIVE)
    await tab.until("document.querySelector('[data-region=banner]').textContent !== ''")
    await place.owner.execute("UPDATE clips SET status = 'queued', attempt = 2, progress = 30, pending = 0")
    await tab.press("Try again")
    await tab.until(toast("error", "Only a failed clip can be tried again"))
    assert await tab.run("window.sameDocument")


async def test_a_notification_is_replayed_by_its_button(client, place, tab, address):
    await place.owner.execute("TRUNCATE webhook_deliveries")
    await place.clip("one", uid="u1")
    await place.owner.execute(
        "INSERT INTO webhook_deliveries (clip_id, cloudflare_uid, signature, state, outcome, size_bytes, body_sha256,"
        " body) VALUES ('one', 'u1', 'valid', 'queued', 'recorded', 1, sha256('x'), $1)",
        '{"uid": "u1", "status": {"state": "queued"}}',
    )
    await tab.go(address(client, "/clips/one"))
    await tab.press("Replay the notification of queued")
    await tab.until("document.body.innerText.includes('by webhook replay')")
    assert [signal["source"] for signal in await place.signals("one")] == ["webhook replay"]


async def test_moments_to_come_are_counted_down_by_the_clock_of_the_service(client, place, browser, address):
    await place.clip("one", uid="u1")
    look_at = await place.owner.fetchval("SELECT clock_timestamp() + interval '100 s'")
    await place.move("one", "processing", look_at=look_at)
    tab = await browser.tab()
    # This machine's clock is an hour ahead.
    await tab.do(tab.page.add_init_script("const now = Date.now; Date.now = () => now() + 3600_000;"))
    await tab.go(address(client, "/clips/one"))
    shown = "Number(document.querySelector('[data-until]').textContent.match(/in (\\d+) s/)[1])"
    first = await tab.run(shown)
    assert 60 < first <= 100
    await tab.until(f"{shown} < {first}")


async def test_an_address_is_copied(client, place, tab, address):
    await place.clip("one", uid="u1")
    await place.move("one", "complete", r2_url="https://media.example.org/videos/u1.mp4", look_at=None)
    await tab.do(tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"]))
    await tab.go(address(client, "/clips/one"))
    await tab.press("Copy the address: MP4 in your bucket")
    await tab.until(toast("success", "The address was copied"))
    assert await tab.run("navigator.clipboard.readText()") == "https://media.example.org/videos/u1.mp4"


async def test_where_the_stream_cannot_be_had_the_providers_player_takes_its_place(client, place, tab, address):
    await place.clip("one", uid="u1")
    await place.move("one", "stream_ready", hls_url=MANIFEST)
    await tab.go(address(client, "/clips/one"))
    await tab.until("document.querySelector('iframe.player')")
    source = await tab.run("document.querySelector('iframe.player').src")
    assert source == "https://customer-x.cloudflarestream.com/u1/iframe"


async def test_where_nothing_plays_the_page_says_so(client, place, tab, address):
    await place.clip("one", uid="u1")
    await place.move("one", "stream_ready", hls_url="https://customer-x.cloudflarestream.com/u1/other.m3u8")
    await tab.go(address(client, "/clips/one"))
    await tab.until("!document.querySelector('[data-unplayable]').hidden")
    await place.clip("two", uid="u2")
    await place.move("two", "complete", r2_url="https://media.example.org/videos/nowhere.mp4", look_at=None)
    await tab.go(address(client, "/clips/two"))
    await tab.until("!document.querySelector('[data-unplayable]').hidden")
    assert "it can be downloaded" in await tab.run("document.querySelector('[data-unplayable]').textContent")


@dataclass
class Cinema:
    """A film as the provider and the bucket serve them."""

    url: str

    @property
    def manifest(self) -> str:
        return f"{self.url}/u1/manifest/video.m3u8"

    @property
    def file(self) -> str:
        return f"{self.url}/u1/file.mp4"


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where twenty seconds of film lie, as a stream and as a file."""
    here = tmp_path_factory.mktemp("films")
    directory = here / "u1" / "manifest"
    directory.mkdir(parents=True)
    ffmpeg = find_ffmpeg(None)
    film = ["-f", "lavfi", "-i", "testsrc=size=160x90:rate=10:duration=20", "-pix_fmt", "yuv420p", "-g", "10"]
    for output in (["-hls_time", "2", "-hls_list_size", "0", directory / "video.m3u8"], [here / "u1" / "file.mp4"]):
        subprocess.run([ffmpeg, "-loglevel", "error", *film, *output], check=True, timeout=60)
    return here


@pytest.fixture
async def cinema(films: Path) -> AsyncIterator[Cinema]:
    @web.middleware
    async def open_to_all(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    app = web.Application(middlewares=[open_to_all])
    app.router.add_static("/", films)
    async with TestServer(app) as server:
        yield Cinema(str(server.make_url("")).rstrip("/"))


async def test_hls_js_plays_where_the_browser_does_not(place, browser, cinema, address):
    if read_assets().files.get("hls.js") is None:
        pytest.skip("hls.js was not bundled here; python hatch_build.py makes it")
    client = await place.start(cloudflare_delivery_hosts=cinema.url)
    await place.clip("one", uid="u1")
    await place.move("one", "stream_ready", hls_url=cinema.manifest)
    tab = await browser.tab()
    await tab.do(tab.page.add_init_script(CANNOT))
    await tab.go(address(client, "/clips/one"))
    # In one question: a browser that does play HLS may have begun with the address before the module took its place.
    await tab.until("(v => v.src.startsWith('blob:') && v.readyState >= 2)(document.querySelector('video'))")
    assert tab.complaints == []


async def test_whoever_watches_is_not_interrupted_when_the_file_is_there(place, tab, cinema, address):
    client = await place.start(cloudflare_delivery_hosts=cinema.url, r2_public_url=cinema.url)
    await place.clip("one", uid="u1")
    await place.move("one", "stream_ready", hls_url=cinema.manifest)
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    await tab.run("(async () => { const v = document.querySelector('video'); v.muted = true; await v.play(); })()")
    await tab.until("document.querySelector('video').currentTime > 0")
    await place.move("one", "complete", r2_url=cinema.file, look_at=None)
    await tab.until("document.querySelector('.badge.done')")
    assert await tab.run("'hls' in document.querySelector('video').dataset")
    await tab.run("document.querySelector('video').pause()")
    await tab.until("'file' in document.querySelector('video').dataset")
    await tab.until("document.querySelector('video').readyState >= 2")
