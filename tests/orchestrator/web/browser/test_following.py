"""Pages that follow their clips in a real browser: by events, by polling, through breaks; nothing foreign runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp.test_utils import TestServer

from orchestrator.web.app import SERVER_OPTIONS, create_app
from orchestrator.web.events import FEED

TOKEN = "a-token-of-sixteen-characters"
CONNECTION = "document.querySelector('[data-connection]').textContent"
LIVE = f"{CONNECTION} === 'live'"
ANNOUNCED = "document.getElementById('announcer').textContent"


def stands_at(status: str) -> str:
    """Whether the page says that its clip is at *status*."""
    return f"document.querySelector('[aria-current=step] code')?.textContent === '{status}'"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


async def paths_of(tab: Any) -> list[str]:
    """What the page asks of its server from now on."""
    asked: list[str] = []
    await tab.hear("request", lambda request: asked.append("/" + request.url.split("/", 3)[3]))
    return asked


async def test_a_clip_page_follows_its_clip_to_the_end_without_being_loaded_again(client, place, tab, address):
    await place.clip("one", uid="u1", title="A day")
    await tab.go(address(client, "/clips/one"))
    await tab.run("window.sameDocument = true")
    await tab.until(LIVE)
    for stage in ("queued", "processing", "stream_ready"):
        await place.move("one", stage)
        await tab.until(stands_at(stage))
        assert await tab.run(LIVE)
    assert await tab.run("document.querySelector('[data-progress]').value") == 60
    assert await tab.run("document.title.startsWith('60 % A day')")
    assert "60 percent" in await tab.run(ANNOUNCED)
    await place.move("one", "complete", r2_url="https://media.example.org/videos/u1.mp4", look_at=None)
    await tab.until("document.querySelector('.badge.done')")
    await tab.until(f"{ANNOUNCED} === 'Complete'")
    assert await tab.run("window.sameDocument")
    # At its end nothing is followed any more.
    await until(lambda: not client.app[FEED].client_count)


async def test_without_a_stream_the_page_polls_and_what_has_not_changed_costs_nothing(
    client, place, tab, address, monkeypatch
):
    monkeypatch.setattr("orchestrator.web.events.STREAMS_MAX", 0)
    await place.clip("one", uid="u1")
    answers = []
    await tab.hear("response", lambda answer: answers.append((answer.url.split("/", 3)[3], answer.status)))
    await tab.do(tab.page.clock.install())
    await tab.go(address(client, "/clips/one"))
    await tab.until(f"{CONNECTION}.includes('every few seconds')")
    # The page's clock is moved on, by three seconds and the chance that is added to them.
    await tab.do(tab.page.clock.fast_forward(3600))
    await until(lambda: ("api/clips/one", 304) in answers)
    await place.move("one", "processing")
    await tab.do(tab.page.clock.fast_forward(3600))
    await tab.until(stands_at("processing"))
    await place.move("one", "error", error_message="No picture in it", look_at=None)
    await tab.do(tab.page.clock.fast_forward(3600))
    await tab.until("document.querySelector('.badge.failed')")
    await tab.until(f"{CONNECTION} === ''")


async def test_a_lost_service_is_told_with_the_age_of_the_picture_and_found_again(client, place, tab, address):
    """The process ends in the middle, and another one takes its place."""
    await place.clip("one", uid="u1")
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    port = client.port
    await client.server.close()
    await tab.until(f"/^connection lost, trying again; updated [2-9] s ago$/.test({CONNECTION})")
    assert await tab.run(ANNOUNCED) == "Connection lost"
    server = TestServer(create_app(place.services), port=port)
    await server.start_server(**SERVER_OPTIONS)
    try:
        await tab.until(LIVE)
        await place.move("one", "queued")
        await tab.until(stands_at("queued"))
    finally:
        await server.close()


async def test_eight_tabs_share_one_stream(client, place, browser, address):
    tabs = await browser.tabs(8)
    for number, tab in enumerate(tabs):
        await place.clip(f"clip{number}", uid=f"u{number}")
        await tab.go(address(client, f"/clips/clip{number}"))
    for tab in tabs:
        await tab.until(LIVE)
    for number in range(8):
        await place.move(f"clip{number}", "queued")
    for tab in tabs:
        await tab.until(stands_at("queued"))
    # A stream that was given up is noticed within two seconds.
    await until(lambda: client.app[FEED].client_count == 1)


async def test_a_page_loaded_again_in_the_middle_goes_on(client, place, tab, address):
    await place.clip("one", uid="u1")
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    await place.move("one", "queued")
    await tab.until(stands_at("queued"))
    await tab.do(tab.page.reload())
    assert await tab.run(stands_at("queued")), "right in the first paint"
    await tab.until(LIVE)
    await place.move("one", "processing")
    await tab.until(stands_at("processing"))
    await until(lambda: client.app[FEED].client_count == 1)


async def test_a_hidden_page_asks_for_nothing_and_is_brought_up_to_date_when_it_is_seen_again(
    client, place, tab, address
):
    await tab.do(
        tab.page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.away ?? false })")
    )
    await place.clip("one", uid="u1")
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    turn = "document.dispatchEvent(new Event('visibilitychange'))"
    await tab.run(f"(window.away = true, {turn})")
    await until(lambda: not client.app[FEED].client_count)
    await place.move("one", "queued")
    await place.move("one", "processing")
    assert not await tab.run(stands_at("processing"))
    await tab.run(f"(window.away = false, {turn})")
    await tab.until(stands_at("processing"))
    await tab.until(LIVE)


async def test_a_stream_that_falls_silent_is_opened_anew(place, tab, address):
    """Without a shared worker, so that the page's own clock can be moved: the stream is the same."""
    client = await place.start(heartbeat_seconds=1000)
    await place.clip("one", uid="u1")
    await tab.do(tab.page.add_init_script("delete self.SharedWorker"))
    await tab.do(tab.page.clock.install())
    asked = await paths_of(tab)
    await tab.go(address(client, "/clips/one"))
    await tab.until(LIVE)
    await tab.do(tab.page.clock.fast_forward(46_000))
    streams = [path for path in asked if path.startswith("/api/events")]
    await until(lambda: len([path for path in asked if path.startswith("/api/events")]) == 2)
    await tab.until(LIVE)
    assert streams[0] == "/api/events?beats=1&clip=one"


async def test_the_list_moves_with_its_clips(client, place, tab, address):
    await place.clip("one", uid="u1", title="First")
    await place.clip("two", uid="u2", title="Second")
    await tab.go(address(client, "/"))
    await until(lambda: client.app[FEED].client_count == 1)
    await place.move("two", "processing")
    await tab.until("document.querySelector('[data-clip=two] .badge.running')")
    await place.move("one", "error", error_message="The file is corrupt")
    await tab.until("document.querySelector('[data-clip=one] .badge.failed')")
    await tab.until(f"{ANNOUNCED} === 'First: Failed: The file is corrupt'")


async def test_a_new_clip_appears_on_an_empty_list(client, place, tab, address):
    await tab.go(address(client, "/"))
    await tab.see("No clips yet")
    await until(lambda: client.app[FEED].client_count == 1)
    await place.clip("one", uid="u1", title="First")
    await place.move("one", "queued")
    await tab.until("document.querySelector('[data-clip=one] .badge.running')")


async def test_without_scripts_the_page_brings_itself_up_to_date(client, place, browser, address):
    await place.clip("one", uid="u1")
    tab = await browser.tab(java_script_enabled=False)
    await tab.go(address(client, "/clips/one"))
    await place.move("one", "processing")
    await tab.until(stands_at("processing"))


async def test_a_failed_clip_says_why_and_is_tried_again(client, place, tab, address):
    await place.clip("one", uid="u1", title="A day")
    for status in ("queued", "processing", "stream_ready"):
        await place.move("one", status)
    await place.move("one", "error", error_message="The bucket is full", look_at=None)
    await tab.go(address(client, "/clips/one"))
    await tab.see("The bucket is full")
    await tab.press("Try again")
    await tab.see("Requested")
    assert len(await place.signals("one")) == 1


async def test_a_query_that_fails_is_told_as_such_and_can_be_asked_again(client, place, tab, address):
    await place.clip("one", uid="u1", title="A day")
    await place.owner.execute("ALTER TABLE clips RENAME TO clips_away")
    try:
        for path in ("/", "/clips/one"):
            await tab.go(address(client, path))
            assert await tab.run("document.querySelector('h1, [role=alert]') !== null")
            assert "No clips yet" not in await tab.run("document.body.innerText")
            await tab.see("Try again")
    finally:
        await place.owner.execute("ALTER TABLE clips_away RENAME TO clips")
    await tab.press("Try again", role="link")
    await tab.see("A day")


async def test_foreign_texts_run_nowhere(client, place, tab, address):
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


async def test_a_person_signs_in_deletes_a_clip_and_signs_out(place, tab, address):
    client = await place.start(api_tokens=TOKEN)
    await place.clip("one", uid="u1", title="A day")
    await tab.go(address(client, "/clips/one"))
    await tab.do(tab.page.get_by_label("Token").fill(TOKEN))
    await tab.press("Sign in")
    await tab.until("location.pathname === '/clips/one' && document.querySelector('h1').textContent === 'A day'")
    assert await tab.run("document.cookie") == ""
    await tab.until(LIVE)
    await tab.run("document.querySelector('.confirm summary').click()")
    await tab.press("Delete this clip")
    await tab.see("Requested: Failed")
    assert [signal["insists"] for signal in await place.signals("one")] == [True]
    await tab.press("Sign out")
    await tab.until("location.pathname === '/sign-in'")


async def test_a_link_from_another_site_finds_those_who_are_signed_in_so(place, tab, address):
    client = await place.start(api_tokens=TOKEN)
    await place.clip("one", uid="u1", title="A day")
    own, other = address(client, "/clips/one"), f"http://localhost:{client.port}/api/docs"
    for is_signed_in in (False, True):
        await tab.go(other)
        await tab.run(f"location.assign('{own}')")
        if not is_signed_in:
            await tab.do(tab.page.get_by_label("Token").fill(TOKEN))
            await tab.press("Sign in")
        await tab.until("location.pathname === '/clips/one' && document.querySelector('h1').textContent === 'A day'")
