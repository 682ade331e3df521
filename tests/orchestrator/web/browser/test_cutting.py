"""Marking ranges on a video in a real browser, sending it, and watching the clips come."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.drivers.ffmpeg import find_ffmpeg


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds in a form that every browser plays."""
    path = tmp_path_factory.mktemp("video") / "día.webm"
    source = ["-f", "lavfi", "-i", "testsrc=size=160x90:rate=25:duration=5"]
    command = [find_ffmpeg(None), "-loglevel", "error", *source, "-c:v", "libvpx", "-deadline", "realtime", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture
async def client(place: Any, tmp_path: Path) -> Any:
    await place.owner.execute("TRUNCATE uploads, artifacts")
    names = ("upload_tmp_dir", "process_work_dir", "output_root")
    return await place.start(**{name: tmp_path / name for name in names})


def address(client: Any, path: str) -> str:
    return str(client.make_url(path))


async def _seek(tab: Any, seconds: float) -> None:
    await tab.run(
        "new Promise((done) => { const video = document.querySelector('[data-preview]');"
        f" video.addEventListener('seeked', done, {{ once: true }}); video.currentTime = {seconds}; }})"
    )


async def test_ranges_are_marked_by_key_and_by_button_and_become_a_job(client, place, tab, video):
    await tab.go(address(client, "/cut"))
    await tab.choose_file("input[type=file]", video)
    await tab.until("document.querySelector('[data-preview]').readyState >= 1")
    await _seek(tab, 1)
    await tab.call("Input.dispatchKeyEvent", type="keyDown", key="i")
    await _seek(tab, 2.5)
    await tab.call("Input.dispatchKeyEvent", type="keyDown", key="o")
    await tab.until("document.querySelector('[data-ranges]').rows.length === 1")
    await _seek(tab, 3)
    await tab.run("document.querySelector('[data-mark=start]').click()")
    await _seek(tab, 4.2)
    await tab.run("document.querySelector('[data-mark=end]').click()")
    await tab.until("document.querySelector('[data-ranges]').rows.length === 2")
    assert await tab.run("document.querySelector('[data-ranges]').rows[1].cells[3].textContent") == "1.2 s"
    await tab.run("document.querySelector('button.primary').click()")
    await tab.until("location.pathname.startsWith('/clips/job_')")
    row = await place.owner.fetchrow("SELECT * FROM clips")
    details = json.loads(row["processing_details"])
    assert (row["pipeline"], row["title"], details["mode"]) == ("cut", "día.webm", "manual")
    assert [(clip["start"], clip["end"]) for clip in details["clips"]] == [(1, 2.5), (3, 4.2)]
    assert await place.owner.fetchval("SELECT size_bytes FROM uploads") == video.stat().st_size
    assert tab.complaints == []


async def test_what_is_missing_is_said_before_anything_is_sent(client, place, tab, video):
    await tab.go(address(client, "/cut"))
    await tab.choose_file("input[type=file]", video)
    await tab.until("document.querySelector('[data-ranges]').rows.length === 1")
    start, end = (f"document.querySelector('[data-ranges]').rows[0].querySelectorAll('input')[{n}]" for n in (0, 1))
    for values, says in (((3, 2), "an end behind it"), ((1, 99), "ends behind the video")):
        await tab.run(f"{start}.value = {values[0]}; {end}.value = {values[1]}")
        await tab.run("document.querySelector('button.primary').click()")
        await tab.until(f"document.querySelector('[data-fault]').textContent.includes('{says}')")
    assert await place.owner.fetchval("SELECT count(*) FROM uploads") == 0
    await tab.run("document.querySelector('[value=automatic]').click()")
    await tab.run("document.querySelector('[name=clip_seconds]').value = 2")
    await tab.run("document.querySelector('button.primary').click()")
    await tab.until("location.pathname.startsWith('/clips/job_')")
    details = json.loads(await place.owner.fetchval("SELECT processing_details FROM clips"))
    assert (details["mode"], details["clip_duration"]) == ("automatic", 2)


async def test_each_clip_appears_on_the_page_as_it_is_cut(client, place, tab):
    await place.owner.execute("INSERT INTO clips (id, pipeline, title) VALUES ('job', 'cut', '<b>a day</b>')")
    await tab.go(address(client, "/clips/job"))
    await tab.until("document.querySelector('[data-connection]').textContent === 'live'")
    for number, status in enumerate(("clipping", "exporting"), 1):
        await place.monitor.execute(
            "INSERT INTO artifacts (clip_id, number, name, start_seconds, end_seconds, duration_seconds, size_bytes,"
            " width, height, has_sound) VALUES ('job', $1, $2, 0, 1, 1, 999, 160, 90, true)",
            number,
            f"clip_00{number}.mp4",
        )
        progress = {"clipping": 50, "exporting": 90}[status]
        await place.monitor.execute("UPDATE clips SET status = $1, progress = $2", status, progress)
        await place.monitor.execute("SELECT pg_notify('orchestrator_changed', 'job')")
        await tab.until(f"document.querySelectorAll('.outputs li').length === {number}")
    assert await tab.run("document.querySelectorAll('.outputs video').length") == 0
    await place.monitor.execute("UPDATE clips SET status = 'complete', progress = 100, look_at = NULL")
    await place.monitor.execute("SELECT pg_notify('orchestrator_changed', 'job')")
    await tab.until("document.querySelectorAll('.outputs video').length === 2")
    assert await tab.run("document.querySelector('h1').textContent") == "<b>a day</b>"


@pytest.mark.parametrize("width", [320, 1280])
async def test_the_page_fits(client, tab, width):
    await tab.resize(width)
    await tab.go(address(client, "/cut"))
    await tab.run("document.querySelector('[data-add]').click()")
    too_wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth"
    too_wide += " && !e.closest('.scroll')).map((e) => e.outerHTML.slice(0, 60)).join()"
    assert await tab.run(too_wide) == ""
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
    unlabelled = "[...document.querySelectorAll('main input, main button')].filter((e) => !e.labels?.length"
    unlabelled += " && !e.textContent.trim() && !e.getAttribute('aria-label')).length"
    assert await tab.run(unlabelled) == 0


async def test_where_cutting_is_off_the_page_says_so(place, tab):
    client = await place.start()
    await tab.go(address(client, "/cut"))
    assert "OUTPUT_ROOT" in await tab.run("document.querySelector('main').textContent")


async def test_without_the_bundle_the_video_goes_in_one_go(place, browser, video, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.web.assets.read_assets.__defaults__", (tmp_path / "nothing made",))
    await place.owner.execute("TRUNCATE uploads, artifacts")
    names = ("upload_tmp_dir", "process_work_dir", "output_root")
    client = await place.start(**{name: tmp_path / name for name in names})
    tab = await browser.tab()
    await tab.go(address(client, "/cut"))
    await tab.choose_file("input[type=file]", video)
    await tab.run("document.querySelector('[value=automatic]').click()")
    await tab.press("Cut")
    await tab.until("location.pathname.startsWith('/clips/job_')")
    assert await place.owner.fetchval("SELECT size_bytes FROM uploads") == video.stat().st_size
    assert tab.complaints == []
