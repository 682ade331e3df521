"""The board in a real browser: rows that change in place, newcomers that wait, a busy system, a lost database."""

from __future__ import annotations

import asyncio

import pytest
from wire.axe import axe
from wire.browser import Tab

from orchestrator.web.events import FEED
from signals import CHANGED_CHANNEL

LIVE = "document.querySelector('[data-connection]').textContent === 'live'"
ROWS = "[...document.querySelectorAll('[data-clip]')].map((row) => row.dataset.clip).join()"


@pytest.fixture
def quick(monkeypatch):
    """Figures as old as a moment."""
    monkeypatch.setattr("orchestrator.web.board._FRESH_SECONDS", 0.1)


async def live(client, tab: Tab, url: str) -> None:
    await tab.go(url)
    await tab.until(LIVE)
    feed = client.app[FEED]
    async with asyncio.timeout(10):
        while not feed.client_count:
            await asyncio.sleep(0.02)


async def test_rows_change_where_they_stand_and_counts_follow(client, place, tab, address, quick):
    for name in ("one", "two", "three"):
        await place.clip(name, uid=f"u-{name}", title=f"Title {name}")
    await live(client, tab, address(client, "/"))
    await tab.run("window.first = document.querySelector('[data-clip=one]')")
    await place.move("one", "processing")
    await tab.until("document.querySelector('[data-clip=one] .badge.running')")
    assert await tab.run("document.querySelector('[data-clip=one]') === window.first")
    await place.move("one", "error", error_message="The file is corrupt")
    await tab.until("document.querySelector('[data-clip=one] .badge.failed')")
    assert "Failed: The file is corrupt" in await tab.run("document.querySelector('[data-clip=one]').innerText")
    await tab.until("document.querySelector('.place.failed .number').textContent === '1'")
    assert await tab.run(ROWS) == "three,two,one"
    assert tab.complaints == []


async def test_newcomers_come_at_once_and_wait_where_somebody_reads(client, place, tab, address):
    for number in range(10):
        await place.clip(f"c{number}", uid=f"u{number}")
    await live(client, tab, address(client, "/?limit=10"))
    await place.clip("new1", uid="n1")
    await place.move("new1", "queued")
    await tab.until("document.querySelector('[data-rows] [data-clip]').dataset.clip === 'new1'")
    assert await tab.run("document.querySelectorAll('[data-clip]').length") == 10
    await tab.run("document.querySelector('[data-clip=c5] a').focus()")
    before = await tab.run(ROWS)
    await place.clip("new2", uid="n2")
    await place.move("new2", "queued")
    await tab.until("!document.querySelector('[data-newcomers]').hidden")
    assert await tab.run(ROWS) == before
    assert await tab.run("document.activeElement.closest('[data-clip]').dataset.clip") == "c5"
    await tab.press("Show 1 other clip")
    await tab.until("document.activeElement.closest('[data-clip]')?.dataset.clip === 'new2'")
    assert await tab.run("document.querySelector('[data-newcomers]').hidden")


async def test_a_filter_stays_through_changes_and_a_reload(client, place, tab, address):
    await place.clip("one", uid="u1", title="Harbour")
    await place.clip("two", uid="u2", title="Hills")
    await live(client, tab, address(client, "/?search=Harbour&status=uploading"))
    assert await tab.run(ROWS) == "one"
    await place.move("two", "queued")
    await place.move("one", "queued")
    await tab.see("No clip fits")
    await tab.do(tab.page.reload())
    assert await tab.run("location.search") == "?search=Harbour&status=uploading"
    assert await tab.run("document.querySelector('input[name=search]').value") == "Harbour"
    await tab.see("Show all clips")


async def test_a_busy_system_draws_each_row_once_a_frame(client, place, tab, address):
    for number in range(20):
        await place.clip(f"c{number}", uid=f"u{number}")
    await live(client, tab, address(client, "/?limit=5"))
    await tab.run(
        "window.changes = 0; window.fetches = 0; const real = fetch;"
        " window.fetch = (...all) => { window.fetches += 1; return real(...all); };"
        " new MutationObserver((all) => { window.changes += 1; })"
        ".observe(document.querySelector('[data-rows]'), { subtree: true, childList: true, attributes: true })"
    )
    await place.owner.execute("UPDATE clips SET status = 'processing', progress = 50")
    for _ in range(100):
        await place.owner.execute("UPDATE clips SET progress = least(progress + 0.05, 60)")
        await place.owner.execute("SELECT pg_notify($1, string_agg(id, ',')) FROM clips", CHANGED_CHANNEL)
    await tab.until("document.querySelector('[data-clip=c19] [data-progress]').value > 54")
    assert await tab.run("document.querySelectorAll('[data-clip]').length") == 5
    assert await tab.run("window.fetches") <= 6
    assert await tab.run("window.changes") <= 400


async def test_a_database_that_goes_away_leaves_the_picture_and_says_how_old_it_is(client, place, tab, address):
    await place.clip("one", uid="u1", title="Harbour")
    await live(client, tab, address(client, "/"))
    await place.services.pool.close()
    await tab.run("document.dispatchEvent(new Event('visibilitychange'))")
    await tab.see("connection lost, trying again; updated")
    assert await tab.run(ROWS) == "one"


async def test_many_are_retried_in_batches_without_a_further_press(client, place, tab, address, monkeypatch):
    monkeypatch.setattr("orchestrator.web.pages.retry_page.BATCH", 2)
    for number in range(5):
        await place.clip(f"c{number}", uid=f"u{number}")
        await place.move(f"c{number}", "error")
    await tab.go(address(client, "/?status=error"))
    await tab.press("Try all of these again…", role="link")
    await tab.press("Try 5 clips again")
    await tab.see("a new attempt was asked for 5 clips")
    assert await place.owner.fetchval("SELECT count(*) FROM clip_signals WHERE attempt = 2") == 5
    assert tab.complaints == []


async def test_without_scripts_everything_is_there_and_goes_by_forms(client, place, browser, address):
    await place.clip("one", uid="u1", title="Harbour")
    await place.move("one", "error", error_message="The file is corrupt")
    tab = await browser.tab(java_script_enabled=False)
    await tab.go(address(client, "/"))
    text = await tab.do(tab.page.inner_text("main"))
    for said in ("Harbour", "The file is corrupt", "none leads", "Needs attention", "Completed in the last hour"):
        assert said in text
    await tab.press("Needs attention", role="link")
    await tab.press("Try all of these again…", role="link")
    await tab.press("Try 1 clip again")
    assert "a new attempt was asked for 1 clip" in await tab.do(tab.page.inner_text("main"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_on_the_boards_other_faces_and_they_fit_320_pixels(client, place, tab, address, dark):
    await place.clip("failed", uid="u" * 32, title="A_very_long_title_without_any_space_" * 5, error_code="no_space")
    await place.move("failed", "error", error_message="An_error_without_any_space_" * 10, look_at=None)
    await place.clip("late", uid="u2", title="مقابلة مع مدير الميناء")
    await place.owner.execute("UPDATE clips SET look_at = now() - interval '5 min' WHERE id = 'late'")
    for number in range(6):
        await place.clip(f"done{number}")
        for status in ("queued", "processing", "stream_ready", "complete"):
            await place.move(f"done{number}", status, look_at=None if status == "complete" else place.clock())
    await place.owner.execute("UPDATE clips SET completed_at = clock_timestamp() WHERE status = 'complete'")
    await tab.resize(320, dark=dark)
    for path in ("/", "/?view=attention", "/?view=stuck&limit=1", "/?status=error&error_code=no_space", "/retry"):
        await tab.go(address(client, path))
        await tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert await tab.run("document.documentElement.scrollWidth") <= 320, path
        assert await axe(tab, contrast_only=dark) == [], path
