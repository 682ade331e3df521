from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.local.stream.showing import picture_filter, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("1h12m27s", 4347), ("2m", 120), ("", None), ("soon", None)]
)
def test_times(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_picture_sizes() -> None:
    assert picture_filter(None, None, "crop") == "scale=640:-2"
    assert picture_filter(None, 100, "crop") == "scale=-2:100"
    assert picture_filter(100, 50, "crop").endswith("crop=100:50")


async def _get(account, path: str):
    async with account.session.get(f"{account.stream.base_url}/{path}") as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_hls_and_dash_are_whole(open_account, media: Path) -> None:
    account = await open_account(encode="h264")
    uid = await account.ready(media / "long.mp4")
    status, kind, master = await _get(account, f"{uid}/manifest/video.m3u8")
    assert (status, kind) == (200, "application/vnd.apple.mpegurl")
    lists = [line for line in master.decode().splitlines() if line and not line.startswith("#")]
    assert lists
    _, _, playlist = await _get(account, f"{uid}/manifest/{lists[0]}")
    assert b"#EXT-X-ENDLIST" in playlist
    segments = [line for line in playlist.decode().splitlines() if line and not line.startswith("#")]
    assert len(segments) > 1
    for segment in segments:
        status, kind, body = await _get(account, f"{uid}/manifest/{segment}")
        assert (status, kind) == (200, "video/iso.segment")
        assert body
    status, kind, mpd = await _get(account, f"{uid}/manifest/video.mpd")
    assert (status, kind, b"<MPD" in mpd) == (200, "application/dash+xml", True)


async def test_nothing_but_the_manifest_is_in_its_folder(account, media: Path) -> None:
    uid = await account.ready(media / "clip.mp4")
    for name in ("..%2Fvideo.json", "video.json", "media_9.m3u8"):
        assert (await _get(account, f"{uid}/manifest/{name}"))[0] == 404


async def test_thumbnails_have_the_size_that_was_asked(account, media: Path) -> None:
    uid = await account.ready(media / "clip.mp4")
    pictures = await asyncio.gather(
        *(_get(account, f"{uid}/thumbnails/thumbnail.jpg?time=1s&width=100&height=50") for _ in range(3)),
        _get(account, f"{uid}/thumbnails/thumbnail.jpg?time=1h"),
    )
    assert all(picture[:2] == (200, "image/jpeg") for picture in pictures)
    assert _jpeg_size(pictures[0][2]) == (100, 50)
    assert pictures[0][2] == pictures[1][2]
    assert _jpeg_size(pictures[3][2]) == (640, 360)
    for wrong in ("time=soon", "fit=squeeze", "width=1", "width=99999"):
        assert (await _get(account, f"{uid}/thumbnails/thumbnail.jpg?{wrong}"))[0] == 400


async def test_the_player_plays_what_is_ready(account, media: Path) -> None:
    uid = await account.ready(media / "clip.mp4", meta={"name": "<b>bold</b>"})
    status, kind, page = await _get(account, f"{uid}/iframe?autoplay&muted=true&startTime=1s")
    assert (status, kind) == (200, "text/html")
    assert b'<video src="rendition.mp4#t=1"' in page
    assert b"autoplay muted controls" in page
    assert b"<b>" not in page
    assert (await _get(account, f"{uid}/rendition.mp4"))[2] == (media / "clip.mp4").read_bytes()
    waiting = (await account.announce())["uid"]
    assert b"pendingupload" in (await _get(account, f"{waiting}/watch"))[2]
    assert (await _get(account, f"{waiting}/thumbnails/thumbnail.jpg"))[0] == 404


def _jpeg_size(body: bytes) -> tuple[int, int]:
    at = 2
    while body[at + 1] not in (0xC0, 0xC2):
        at += 2 + int.from_bytes(body[at + 2 : at + 4])
    return int.from_bytes(body[at + 7 : at + 9]), int.from_bytes(body[at + 5 : at + 7])
