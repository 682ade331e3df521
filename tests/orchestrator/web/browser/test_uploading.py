"""Sending files in a real browser: in pieces that break and go on, several at once, refused before the first byte."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from wire.axe import axe

from orchestrator.drivers.cloudflare_models import DirectUpload

MIB = 1024 * 1024
ON_ITS_PAGE = "location.pathname.startsWith('/clips/') && document.querySelector('h1')"


@dataclass
class UploadHost:
    """Where the browser sends its bytes: takes a form, or speaks tus, and fails where it is told to."""

    fail_patches: list[int] = field(default_factory=list)
    # Files of these sizes never get through.
    fail_lengths: set[int] = field(default_factory=set)
    received: dict[str, bytearray] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    origin: str = ""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_route("*", "/{name}", self.answer)
        return app

    def whole(self) -> bytes:
        """What came, where one file was sent."""
        (only,) = self.received.values()
        return bytes(only)

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append(request.method)
        name = request.match_info["name"]
        received = self.received.setdefault(name, bytearray())
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "*",
            "Access-Control-Allow-Headers": "*",
            "Access-Control-Expose-Headers": "Upload-Offset, Upload-Length",
        }
        if request.method == "POST":
            part = (await request.post())["file"]
            received += part.file.read()  # type: ignore[union-attr]
        elif request.method == "PATCH":
            count = self.calls.count("PATCH")
            body = await request.read()
            if int(request.headers["Upload-Offset"]) != len(received):
                return web.Response(status=409, headers=headers)
            if self.lengths[name] in self.fail_lengths:
                return web.Response(status=500, headers=headers)
            if count in self.fail_patches:
                received += body[:MIB]  # part of it came through
                return web.Response(status=500, headers=headers)
            received += body
        if request.method in ("HEAD", "PATCH"):
            headers |= {"Upload-Offset": str(len(received)), "Upload-Length": str(self.lengths.get(name, 0))}
        return web.Response(status=200 if request.method != "PATCH" else 204, headers=headers)


@pytest.fixture
async def host(place: Any) -> Any:
    """The upload host, and a provider that sends browsers there."""
    found = UploadHost()
    server = TestServer(found.app())
    await server.start_server()

    async def reserve_form(*arguments: Any) -> DirectUpload:
        return reserve(0, arguments[-1])

    async def reserve_tus(size_bytes: int, *arguments: Any) -> DirectUpload:
        return reserve(size_bytes, arguments[-1])

    def reserve(size_bytes: int, expiry: Any) -> DirectUpload:
        name = f"u{len(found.lengths) + 1}"
        found.lengths[name] = size_bytes
        return DirectUpload(name, str(server.make_url(f"/{name}")), expiry)

    place.stream.create_direct_upload, place.stream.create_tus_upload = reserve_form, reserve_tus
    found.origin = str(server.make_url("")).rstrip("/")
    place.clock.at = place.clock.at.replace(year=2100)  # addresses that the browser's own clock still finds good
    yield found
    await server.close()


@pytest.fixture
async def client(place: Any, host: UploadHost) -> Any:
    return await place.start(cloudflare_api_url=f"{host.origin}/client/v4")


@pytest.fixture
def video(tmp_path: Any) -> Any:
    """A file of some size, as far as anybody looks into it here."""

    def make(size: int, name: str = "clip.mp4") -> Any:
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return path

    return make


def state(name: str) -> str:
    return f"document.querySelector('[data-transfers] [data-state={name}]')"


async def test_a_file_is_sent_in_growing_pieces_and_leads_to_its_page(client, host, tab, address, video):
    path = video(23 * MIB + 12345)
    asked: list[str] = []
    await tab.hear("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await tab.see("clip.mp4")
    assert "upload.js" in asked
    assert "tus.js" not in asked, "loaded when it is needed"
    await tab.press("Upload")
    await tab.until(ON_ITS_PAGE)
    assert "tus.js" in asked
    assert await tab.run("document.querySelector('h1').textContent") == "clip.mp4"
    assert host.whole() == path.read_bytes()
    assert host.calls.count("PATCH") == 3, "5, 10 and the rest of 23 MiB"
    assert tab.complaints == []
    assert await tab.run("Object.keys(localStorage).length") == 0


async def test_it_is_taken_up_where_it_broke(client, host, tab, address, video):
    path = video(23 * MIB)
    host.fail_patches = [2, 3]
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await tab.press("Upload")
    await tab.until(ON_ITS_PAGE)
    assert host.whole() == path.read_bytes()
    assert host.calls.count("HEAD") == 3, "asked how far it is: at the start, and after each failure"


async def test_it_goes_on_after_the_page_was_loaded_again(client, place, host, tab, address, video):
    path = video(8 * MIB)
    host.fail_patches = list(range(2, 50))
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await tab.press("Upload")
    await tab.until(state("retrying"))
    await tab.see("the upload address answered 500; trying again")
    host.fail_patches = []
    await tab.go(address(client, "/upload"))
    await tab.see("Begun before")
    await tab.choose_file("input[type=file]", path)
    await tab.see("Part of it was sent before")
    already = len(host.whole())
    assert 0 < already < 8 * MIB
    await tab.press("Upload")
    await tab.until(ON_ITS_PAGE)
    assert host.whole() == path.read_bytes()
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_it_is_begun_anew_on_request_and_what_was_begun_can_be_forgotten(
    client, place, host, tab, address, video
):
    path = video(8 * MIB)
    host.fail_patches = [2, 3, 4, 5, 6, 7, 8]
    for _ in range(2):
        await tab.go(address(client, "/upload"))
        await tab.choose_file("input[type=file]", path)
        if await tab.run("!document.querySelector('[data-transfers] [data-anew]').hidden"):
            await tab.do(tab.page.get_by_label("Tick to send it from the start").check())
        await tab.press("Upload")
        await tab.until(state("retrying"))
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 2
    await tab.go(address(client, "/upload"))
    await tab.press("Forget it")
    await tab.until("document.querySelector('[data-unfinished]').hidden")
    assert await tab.run("Object.keys(localStorage).length") == 0


async def test_it_pauses_goes_on_and_is_given_up(client, place, host, tab, address, video):
    path = video(8 * MIB)
    host.fail_patches = list(range(2, 50))
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", path)
    await tab.press("Upload")
    await tab.until(state("retrying"))
    await tab.press("Pause")
    await tab.until(state("paused"))
    await tab.see("Paused at")
    assert await tab.run("document.getElementById('announcer').textContent") == "clip.mp4: paused"
    await tab.press("Go on")
    await tab.until(state("retrying"))
    await tab.press("Cancel")
    await tab.until(state("cancelled"))
    (clip_id,) = [row["id"] for row in await place.owner.fetch("SELECT id FROM clips")]
    async with asyncio.timeout(10):
        while not (asked := await place.signals(clip_id)):
            await asyncio.sleep(0.02)
    assert [row["requested_status"] for row in asked] == ["error"]
    assert await tab.run("Object.keys(localStorage).length") == 0


async def test_two_windows_do_not_send_the_same_file(client, place, host, browser, address, video):
    path = video(1000)
    host.fail_lengths = {1000}
    first, second = await browser.tabs(2)
    await first.go(address(client, "/upload"))
    await first.choose_file("input[type=file]", path)
    await first.press("Upload")
    await first.until(state("retrying"))
    await second.go(address(client, "/upload"))
    assert await second.run("document.querySelector('[data-unfinished]').hidden"), (
        "it is on its way, nobody need resume it"
    )
    await second.choose_file("input[type=file]", path)
    await second.press("Upload")
    await second.see("another window of this browser is sending this file")
    # Giving it up here is no word on what is sent there.
    await second.press("Cancel")
    await second.until(state("cancelled"))
    host.fail_lengths = set()
    await first.until(ON_ITS_PAGE)
    assert host.whole() == path.read_bytes()
    (clip_id,) = [row["id"] for row in await place.owner.fetch("SELECT id FROM clips")]
    assert await place.signals(clip_id) == []


async def test_several_files_go_at_once_and_each_leads_to_its_clip(client, place, host, tab, address, video):
    paths = [video(MIB + number, f"clip {number}.mp4") for number in range(5)]
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", *paths)
    await tab.press("Upload 5 files")
    await tab.until("document.querySelectorAll('[data-transfers] [data-state=sent]').length === 5")
    assert sorted(map(bytes, host.received.values())) == sorted(path.read_bytes() for path in paths)
    links = await tab.run("[...document.querySelectorAll('[data-transfers] [data-page]')].map((a) => a.pathname)")
    rows = await place.owner.fetch("SELECT id, title FROM clips")
    assert sorted(links) == sorted(f"/clips/{row['id']}" for row in rows)
    assert sorted(row["title"] for row in rows) == sorted(path.name for path in paths)


async def test_no_more_than_three_are_on_their_way(client, host, tab, address, video):
    host.fail_patches = list(range(1, 200))
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", *(video(1000, f"{number}.mp4") for number in range(5)))
    await tab.press("Upload 5 files")
    await tab.until("document.querySelectorAll('[data-transfers] [data-state=retrying]').length === 3")
    assert await tab.run("document.querySelectorAll('[data-transfers] [data-state=queued]').length") == 2
    await tab.press("Cancel 0.mp4")
    await tab.until("document.querySelectorAll('[data-transfers] [data-state=queued]').length === 1")


async def test_what_cannot_be_a_video_is_refused_before_anything_is_made(client, place, host, tab, address, video):
    await tab.go(address(client, "/upload"))
    for path, says in (
        (video(0, "empty.mp4"), "The file is empty."),
        (video(9, "notes.txt"), "does not look like a video"),
    ):
        await tab.choose_file("input[type=file]", path)
        await tab.see(says)
    await tab.run("document.querySelector('form[data-upload]').dataset.uploadMax = 5")
    await tab.press("Upload")
    await tab.see("Choose a file first.")
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 0
    assert host.calls == []


async def test_files_are_dropped_and_the_keyboard_does_everything(client, host, tab, address, video):
    await tab.go(address(client, "/upload"))
    await tab.run("""(() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["abc"], "día.mp4", { type: "video/mp4" }));
        const how = { dataTransfer, bubbles: true, cancelable: true };
        document.querySelector("[data-drop]").dispatchEvent(new DragEvent("drop", how));
    })()""")
    await tab.see("día.mp4")
    await tab.do(tab.page.get_by_label("Title").first.press("Enter"))
    await tab.until(ON_ITS_PAGE)
    assert host.whole() == b"abc"


async def test_files_in_every_state_are_readable_in_a_narrow_window(client, host, tab, address, video):
    host.fail_lengths = {1000, 1002, 1003, 1004}
    await tab.resize(320, 1400, dark=True)
    await tab.go(address(client, "/upload"))
    names = ("A_name_without_any_space_" * 4 + ".mp4", "مقابلة.mp4", "c.mp4", "d.mp4", "e.mp4")
    await tab.choose_file("input[type=file]", *(video(1000 + place, name) for place, name in enumerate(names)))
    await tab.press("Upload 5 files")
    await tab.until(state("sent"))
    await tab.until(state("retrying"))
    await tab.press("Pause c.mp4")
    await tab.until(state("paused"))
    await tab.press("Cancel d.mp4")
    await tab.until(state("cancelled"))
    await tab.choose_file("input[type=file]", video(7, "f.mp4"))
    assert await tab.run("document.documentElement.scrollWidth") <= 320
    assert await axe(tab) == []


async def test_a_refusal_stands_beside_the_file_and_can_be_tried_again(client, place, host, tab, address, video):
    await tab.go(address(client, "/upload"))
    await tab.choose_file("input[type=file]", video(1000))
    reserve, place.stream.create_tus_upload = place.stream.create_tus_upload, None
    await tab.press("Upload")
    await tab.until(state("failed"))
    assert await tab.run("document.querySelector('[data-transfers] [role=alert]').textContent") != ""
    place.stream.create_tus_upload = reserve
    await tab.press("Try again")
    await tab.until(ON_ITS_PAGE)


async def test_without_the_bundle_a_file_goes_in_one_go_and_the_page_says_so(
    place, host, browser, address, video, tmp_path, monkeypatch
):
    monkeypatch.setattr("orchestrator.web.assets.read_assets.__defaults__", (tmp_path / "nothing made",))
    client = await place.start(cloudflare_api_url=f"{host.origin}/client/v4")
    tab = await browser.tab()
    path = video(MIB)
    await tab.go(address(client, "/upload"))
    await tab.see("Up to 200 MB each, in one go")
    await tab.choose_file("input[type=file]", path)
    await tab.press("Upload")
    await tab.until(ON_ITS_PAGE)
    assert host.whole() == path.read_bytes()
    assert "PATCH" not in host.calls
    assert tab.complaints == []
