"""The pages in a real browser: live, polling, many tabs, uploads that break, nothing let through as script."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.drivers.cloudflare_models import DirectUpload
from orchestrator.web.events import FEED

MIB = 1024 * 1024
TOKEN = "a-token-of-sixteen-characters"
LIVE = "document.querySelector('[data-connection]').textContent === 'live'"


def address(client: Any, path: str) -> str:
    return str(client.make_url(path))


async def test_a_clip_page_follows_its_clip_to_the_end_without_being_loaded_again(client, place, tab):
    await place.clip("one", uid="u1", title="A day")
    await tab.go(address(client, "/clips/one"))
    await tab.run("window.sameDocument = true")
    await tab.until(LIVE)
    for stage in ("queued", "processing", "stream_ready"):
        await place.move("one", stage)
        await tab.until(f"document.querySelector('[aria-current=step] code').textContent === '{stage}'")
        assert await tab.run("document.querySelector('[data-connection]').textContent") == "live"
    assert await tab.run("document.querySelector('[data-progress]').value") == 60
    assert await tab.run("document.title.startsWith('60 % A day')")
    assert "60 percent" in await tab.run("document.getElementById('announcer').textContent")
    await place.move("one", "complete", r2_url="https://media.example.org/videos/u1.mp4", look_at=None)
    await tab.until("document.querySelector('.badge.done')")
    assert await tab.run("document.getElementById('announcer').textContent") == "Complete"
    assert await tab.run("window.sameDocument")
    assert await tab.run("document.querySelectorAll('[data-region=history] tbody tr').length") == 5
    feed = client.app[FEED]
    async with asyncio.timeout(10):
        while feed.client_count:
            await asyncio.sleep(0.02)


async def test_without_a_stream_the_page_polls(client, place, tab, monkeypatch):
    monkeypatch.setattr("orchestrator.web.events.STREAMS_MAX", 0)
    await place.clip("one", uid="u1")
    await tab.go(address(client, "/clips/one"))
    await tab.until("document.querySelector('[data-connection]').textContent.includes('every few seconds')")
    await place.move("one", "processing")
    await tab.until("document.querySelector('[aria-current=step] code').textContent === 'processing'")


async def test_a_lost_service_is_told_and_found_again(client, place, tab):
    await place.clip("one", uid="u1")
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    port = client.port
    await client.server.close()
    await tab.until("document.querySelector('[data-connection]').textContent.includes('lost')")
    from orchestrator.web import create_app

    server = TestServer(create_app(place.services), port=port)
    await server.start_server()
    try:
        await tab.until(LIVE)
        await place.move("one", "queued")
        await tab.until("document.querySelector('[aria-current=step] code').textContent === 'queued'")
    finally:
        await server.close()


async def test_eight_tabs_share_one_stream(client, place, browser):
    feed = client.app[FEED]
    tabs = []
    for number in range(8):
        await place.clip(f"clip{number}", uid=f"u{number}")
        tab = await browser.tab()
        tabs.append(tab)
        await tab.go(address(client, f"/clips/clip{number}"))
    # Only the tab in front is visible; the others follow again when they are looked at.
    await tabs[0].call("Page.bringToFront")
    for tab in tabs:
        await tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    for number, tab in enumerate(tabs):
        await place.move(f"clip{number}", "queued")
        await tab.call("Page.bringToFront")
        await tab.until("document.querySelector('[aria-current=step] code').textContent === 'queued'")
    # A stream that was given up is noticed within two seconds.
    async with asyncio.timeout(10):
        while feed.client_count > 1:
            await asyncio.sleep(0.02)


async def test_the_list_moves_with_its_clips(client, place, tab):
    await place.clip("one", uid="u1", title="First")
    await place.clip("two", uid="u2", title="Second")
    await tab.go(address(client, "/"))
    feed = client.app[FEED]
    async with asyncio.timeout(10):
        while not feed.client_count:
            await asyncio.sleep(0.02)
    await place.move("two", "processing")
    await tab.until("document.querySelector('[data-clip=two] .badge.running')")
    await place.move("one", "error", error_message="The file is corrupt")
    await tab.until("document.querySelector('[data-clip=one] .badge.failed')")
    assert await tab.run("document.getElementById('announcer').textContent") == "First: Failed: The file is corrupt"


async def test_a_new_clip_appears_on_an_empty_list(client, place, tab):
    await tab.go(address(client, "/"))
    assert "No clips yet" in await tab.run("document.body.innerText")
    feed = client.app[FEED]
    async with asyncio.timeout(10):
        while not feed.client_count:
            await asyncio.sleep(0.02)
    await place.clip("one", uid="u1", title="First")
    await place.move("one", "queued")
    await tab.until("document.querySelector('[data-clip=one] .badge.running')")


async def test_without_scripts_the_page_brings_itself_up_to_date(client, place, tab):
    await place.clip("one", uid="u1")
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await tab.go(address(client, "/clips/one"))
    await place.move("one", "processing")
    await tab.until("document.querySelector('[aria-current=step] code').textContent === 'processing'")


async def test_foreign_texts_run_nowhere(client, place, tab):
    hostile = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    await place.clip("one", uid="u1", title=hostile)
    for path in ("/", "/clips/one"):
        await tab.go(address(client, path))
        await place.move("one", "processing" if path == "/" else "error", error_message=hostile)
        await tab.until("document.querySelector('.badge.running, .badge.failed')")
    await tab.until("document.querySelector('.badge.failed')")
    assert await tab.run("document.querySelector('h1').textContent") == hostile
    assert not await tab.run("window.hacked")
    assert tab.complaints == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_pages_fit_320_pixels_in_both_schemes_and_complain_of_nothing(client, place, tab, dark):
    await place.clip("one", uid="u" * 32, title="A_very_long_title_without_any_space_" * 5)
    await place.move("one", "error", error_message="An_error_without_any_space_" * 10)
    await tab.resize(320, dark=dark)
    for path in ("/", "/clips/one", "/upload", "/api/docs", "/clips/nope"):
        await tab.go(address(client, path))
        assert await tab.run("document.documentElement.scrollWidth") <= 320, path
        light = await tab.run("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(18, 20, 28)") == dark
    assert [text for text in tab.complaints if "/clips/nope" not in text] == []


async def test_a_person_signs_in_deletes_a_clip_and_signs_out(place, tab):
    client = await place.start(api_tokens=TOKEN)
    await place.clip("one", uid="u1", title="A day")
    await tab.go(address(client, "/healthz"))
    await tab.run("location.assign('/clips/one')")
    await tab.until("document.querySelector('input[name=token]')")
    await tab.run(f"document.querySelector('input[name=token]').value = '{TOKEN}'")
    await tab.run("document.querySelector('main form').requestSubmit()")
    await tab.until("location.pathname === '/clips/one' && document.querySelector('h1').textContent === 'A day'")
    assert await tab.run("document.cookie") == ""
    await tab.until(LIVE)
    await tab.run("document.querySelector('.confirm summary').click()")
    await tab.run("document.querySelector('.confirm form').requestSubmit()")
    await tab.until("document.body.innerText.includes('Requested: Failed')")
    assert [signal["insists"] for signal in await place.signals("one")] == [True]
    await tab.run("document.querySelector('form[action=\"/sign-out\"]').requestSubmit()")
    await tab.until("location.pathname === '/sign-in'")


@dataclass
class UploadHost:
    """Where the browser sends its bytes: takes a form, or speaks tus, and fails where it is told to."""

    fail_patches: list[int] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    calls: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_route("*", "/{name}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append(request.method)
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "*",
            "Access-Control-Allow-Headers": "*",
            "Access-Control-Expose-Headers": "Upload-Offset",
        }
        if request.method == "POST":
            part = (await request.post())["file"]
            self.received += part.file.read()  # type: ignore[union-attr]
        elif request.method == "PATCH":
            count = self.calls.count("PATCH")
            body = await request.read()
            if int(request.headers["Upload-Offset"]) != len(self.received):
                return web.Response(status=409, headers=headers)
            if count in self.fail_patches:
                self.received += body[:MIB]  # part of it came through
                return web.Response(status=500, headers=headers)
            self.received += body
        if request.method in ("HEAD", "PATCH"):
            headers["Upload-Offset"] = str(len(self.received))
        return web.Response(status=200 if request.method != "PATCH" else 204, headers=headers)


@pytest.fixture
async def host(place):
    """The upload host, and a provider that sends browsers there."""
    found = UploadHost()
    server = TestServer(found.app())
    await server.start_server()
    url = str(server.make_url("/an-upload-address"))

    async def reserve(*arguments: Any) -> DirectUpload:
        return DirectUpload("u1", url, arguments[-1])

    place.stream.create_direct_upload = place.stream.create_tus_upload = reserve
    found.origin = url.removesuffix("/an-upload-address")  # type: ignore[attr-defined]
    place.clock.at = place.clock.at.replace(year=2100)  # addresses that the browser's own clock still finds good
    yield found
    await server.close()


async def start_upload(place: Any, host: Any, tab: Any, path: Any) -> Any:
    client = await place.start(cloudflare_api_url=f"{host.origin}/client/v4")
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await tab.until("document.querySelector('[data-chosen]').textContent.includes('clip.mp4')")
    await tab.run("document.querySelector('form[data-upload] button').click()")
    return client


async def test_a_small_file_is_sent_as_a_form_and_leads_to_its_page(place, host, tab, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(os.urandom(3 * MIB))
    await start_upload(place, host, tab, path)
    await tab.until("location.pathname.startsWith('/clips/') && document.querySelector('h1')")
    assert await tab.run("document.querySelector('h1').textContent") == "clip.mp4"
    assert bytes(host.received) == path.read_bytes()
    assert tab.complaints == []


async def test_a_large_file_is_sent_in_chunks_and_resumed_where_it_broke(place, host, tab, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.web.schemas.FORM_MAX_BYTES", MIB)
    path = tmp_path / "clip.mp4"
    path.write_bytes(os.urandom(23 * MIB + 12345))
    host.fail_patches = [2, 3]
    await start_upload(place, host, tab, path)
    await tab.until("location.pathname.startsWith('/clips/') && document.querySelector('h1')")
    assert bytes(host.received) == path.read_bytes()
    assert host.calls.count("HEAD") == 3
    assert await tab.run("Object.keys(localStorage).length") == 0


async def test_an_upload_goes_on_after_the_page_was_closed(place, host, tab, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.web.schemas.FORM_MAX_BYTES", MIB)
    path = tmp_path / "clip.mp4"
    path.write_bytes(os.urandom(8 * MIB))
    host.fail_patches = list(range(2, 50))
    client = await start_upload(place, host, tab, path)
    await tab.until("document.querySelector('[data-doing]').textContent.includes('trying again')")
    await tab.run("window.onbeforeunload = null; document.querySelector('[data-pause]').click()")
    await tab.until("document.querySelector('[data-doing]').textContent === 'Paused'")
    host.fail_patches = []
    await tab.go(address(client, "/"))
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await tab.run("document.querySelector('form[data-upload] button').click()")
    await tab.until("location.pathname.startsWith('/clips/') && document.querySelector('h1')")
    assert bytes(host.received) == path.read_bytes()
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_a_refusal_stands_beside_the_form(place, host, tab, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x")
    client = await place.start(cloudflare_api_url=f"{host.origin}/client/v4")
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await place.services.pool.close()
    await tab.run("document.querySelector('form[data-upload] button').click()")
    await tab.until("document.querySelector('[data-fault]').textContent.includes('database did not answer')")
    assert await tab.run("document.querySelector('form[data-upload]').hidden") is False
