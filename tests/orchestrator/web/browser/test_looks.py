"""Every page as people see it: fit for a narrow window, readable in both schemes, nothing for axe to find.

With SCREENSHOTS=1 the pages are pictured for the documentation (docs/screenshots).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wire.axe import axe
from wire.browser import Browser, Tab

from orchestrator.drivers.ffmpeg import find_ffmpeg

_ROOT = Path(__file__).parents[4]
_PICTURES = _ROOT / "docs" / "screenshots"
_LONG = "A_very_long_title_without_any_space_" * 5
TOKEN = "a-token-of-sixteen-characters"
_SCHEMES = ("light", "dark")


@dataclass
class Gallery:
    """A process with clips at every kind of status, and the addresses of its pages."""

    pages: dict[str, str]

    async def visit(self, tab: Tab, name: str) -> None:
        await tab.go(self.pages[name])


@pytest.fixture
async def gallery(place: Any, tmp_path: Path) -> Gallery:
    await place.owner.execute("TRUNCATE uploads, artifacts")
    names = ("upload_tmp_dir", "process_work_dir", "output_root")
    client = await place.start(**{name: tmp_path / name for name in names})
    guarded = await place.start(api_tokens=TOKEN)
    await _hang_clips(place)
    at = {name: str(client.make_url(path)) for name, path in _PATHS.items()}
    return Gallery(at | {"sign-in": str(guarded.make_url("/sign-in"))})


_PATHS = {
    "board": "/",
    "retry": "/retry",
    "clip-waiting": "/clips/waiting",
    "clip-running": "/clips/running",
    "clip-playable": "/clips/playable",
    "clip-complete": "/clips/complete",
    "clip-failed": "/clips/failed",
    "clip-cut": "/clips/cut",
    "clip-unknown": "/clips/nope",
    "upload": "/upload",
    "cut": "/cut",
    "problem": "/?cursor=torn",
    "api": "/api/docs",
}
# Those that the documentation shows.
_PICTURED = (
    "board", "retry", "clip-running", "clip-complete", "clip-failed", "upload", "cut", "api", "sign-in", "problem",
)  # fmt: skip


async def _hang_clips(place: Any) -> None:
    await place.owner.execute(
        "UPDATE monitor_lease SET holder = 'monitor-1', epoch = 1, taken_at = now() - interval '3 days',"
        " round_at = now(), expires_at = now() + interval '1 hour'"
    )
    media = "https://media.example.org/videos/harbour.mp4"
    await place.clip("waiting", uid="u1", title="Rehearsal, second take")
    await place.clip("running", uid="u2", title="Interview with the harbour master")
    await place.move("running", "queued")
    await place.move("running", "processing")
    await place.clip("playable", uid="u3", title="مقابلة مع مدير الميناء")
    for status in ("queued", "processing", "stream_ready"):
        await place.move("playable", status)
    await place.clip("complete", uid="u4", title="The harbour in the morning")
    for status in ("queued", "processing", "stream_ready", "waitformp4", "mp4_processing", "mp4downloading"):
        await place.move("complete", status)
    await place.move("complete", "complete", r2_url=media, duration=93.4, file_size=48_211_334, look_at=None)
    await place.clip("failed", uid="u5", title="Old tape, side B")
    await place.move("failed", "queued")
    await place.move(
        "failed", "error", error_message="The provider could not read the file: no video track", look_at=None
    )
    await place.clip("long", uid="u" * 32, title=_LONG)
    await place.move("long", "error", error_message="An_error_without_any_space_" * 10, look_at=None)
    await place.owner.execute("INSERT INTO clips (id, pipeline, title) VALUES ('cut', 'cut', 'Best of the harbour')")


async def test_axe_finds_nothing_on_any_page_light_or_dark(gallery: Gallery, browser: Browser) -> None:
    tab = await browser.tab(reduced_motion="reduce")
    found = {}
    for name in gallery.pages:
        for scheme in _SCHEMES:
            await tab.resize(1280, dark=scheme == "dark")
            if scheme == "light":
                await gallery.visit(tab, name)
            if problems := await axe(tab, contrast_only=scheme == "dark"):
                found[f"{name}, {scheme}"] = problems
    assert not found, json.dumps(found, indent=1)


async def test_every_page_fits_320_pixels(gallery: Gallery, tab: Tab) -> None:
    await tab.resize(320)
    gallery.pages["long"] = gallery.pages["clip-failed"].replace("/failed", "/long")
    wide = {}
    for name in gallery.pages:
        await gallery.visit(tab, name)
        if (width := await tab.run("document.documentElement.scrollWidth")) > 320:
            wide[name] = width
    assert wide == {}


async def test_pages_follow_the_system_and_the_choice_overrules_it(gallery: Gallery, tab: Tab) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(245, 246, 250)", "rgb(18, 20, 28)"
    await gallery.visit(tab, "upload")
    assert await tab.run(ground) == light
    await tab.resize(1280, dark=True)
    assert await tab.run(ground) == dark
    await tab.press("Light")
    await tab.until(f"{ground} === '{light}'")
    await tab.do(tab.page.wait_for_load_state("networkidle"))
    await gallery.visit(tab, "cut")
    assert await tab.run("document.documentElement.dataset.theme") == "light"
    assert await tab.run(ground) == light
    await tab.press("As the system is")
    await tab.until(f"{ground} === '{dark}'")


async def test_the_choice_needs_no_scripts(gallery: Gallery, browser: Browser) -> None:
    tab = await browser.tab(java_script_enabled=False)
    await gallery.visit(tab, "upload")
    await tab.press("Dark")
    await tab.do(tab.page.wait_for_selector("html[data-theme=dark]", state="attached"))
    assert tab.page.url == gallery.pages["upload"]


async def test_nothing_turns_for_those_who_want_it_still(gallery: Gallery, browser: Browser) -> None:
    for wish, moves in (("no-preference", True), ("reduce", False)):
        tab = await browser.tab(reduced_motion=wish)
        for name in ("clip-running", "board"):
            await gallery.visit(tab, name)
            assert await tab.run("document.getAnimations().length > 0") is moves, (wish, name)


async def test_every_page_is_one_to_move_in_by_key_and_by_ear_and_complains_of_nothing(
    gallery: Gallery, tab: Tab
) -> None:
    """A way past the header, one main part, one heading of the page, one place that speaks up."""
    parts = "['main', 'h1', '[aria-live=polite]', 'header', 'nav[aria-label=Main]']"
    for name in gallery.pages:
        await gallery.visit(tab, name)
        await tab.run("document.activeElement.blur()")
        await tab.do(tab.page.keyboard.press("Tab"))
        if name != "sign-in":  # there the form has the focus from the start
            assert await tab.run("document.activeElement.className") == "skip", name
        assert await tab.run(f"{parts}.map((each) => document.querySelectorAll(each).length)") == [1] * 5, name
    # Two answer with a fault, which the browser itself tells of; the videos are at addresses that exist nowhere.
    expected = (gallery.pages["clip-unknown"], gallery.pages["problem"], "videos/harbour.mp4")
    assert [text for text in tab.complaints if not text.endswith(expected)] == []


@pytest.mark.picture
async def test_the_pages_are_pictured(gallery: Gallery, place: Any, browser: Browser, tmp_path: Path) -> None:
    changed = "UPDATE clips SET title = $1, error_message = $2 WHERE id = 'long'"
    await place.owner.execute(changed, "Wind turbines from the air", "The upload address has expired")
    _PICTURES.mkdir(exist_ok=True)
    tab = await browser.tab(reduced_motion="reduce")
    film = await asyncio.to_thread(_film, tmp_path / "harbour.mp4")
    await tab.do(tab.page.route("https://media.example.org/**", lambda route: route.fulfill(path=film)))
    for name in _PICTURED:
        for scheme in _SCHEMES:
            # The board's rows begin where other pages end.
            await tab.resize(960, 1280 if name == "board" else 720, dark=scheme == "dark")
            await gallery.visit(tab, name)
            await tab.until("[...document.querySelectorAll('video[data-file]')].every((film) => film.readyState > 1)")
            taken = tmp_path / "taken.png"
            await tab.picture(taken, whole=False)
            await asyncio.to_thread(_shrink, taken, _PICTURES / f"{name}-{scheme}.png")
    assert all(path.stat().st_size < 80_000 for path in _PICTURES.glob("*.png"))


def _film(path: Path) -> Path:
    """Two seconds of a quiet morning."""
    source = "gradients=size=960x540:rate=5:duration=2:c0=0x24344d:c1=0xd9a066:x0=0:y0=0:x1=0:y1=540:nb_colors=2"
    command = [
        find_ffmpeg(None),
        "-loglevel",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        source,
        "-pix_fmt",
        "yuv420p",
        str(path),
    ]
    subprocess.run(command, check=True, timeout=30)
    return path


def _shrink(source: Path, target: Path) -> None:
    """A page has few colours: a palette of 64 halves its picture."""
    palette = "split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none"
    command = [find_ffmpeg(None), "-loglevel", "error", "-y", "-i", str(source), "-vf", palette, str(target)]
    subprocess.run(command, check=True, timeout=30)
