"""The pages in a real browser: live, polling, many tabs, uploads that break, nothing let through as script."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from orchestrator.web.events import FEED

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
    tabs = await browser.tabs(8)
    for number, tab in enumerate(tabs):
        await place.clip(f"clip{number}", uid=f"u{number}")
        await tab.go(address(client, f"/clips/clip{number}"))
    for tab in tabs:
        await tab.until(LIVE)
    for number in range(8):
        await place.move(f"clip{number}", "queued")
    for tab in tabs:
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


async def test_without_scripts_the_page_brings_itself_up_to_date(client, place, browser):
    await place.clip("one", uid="u1")
    tab = await browser.tab(java_script_enabled=False)
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
