from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.local.stream import Dwell
from orchestrator.local.stream.delivery import Span, parse_range


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, (0, 100)),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=5-2", None),
        ("bytes=0-1,5-6", (0, 100)),
        ("lines=1-2", (0, 100)),
    ],
)
def test_ranges(header: str | None, span: tuple[int, int] | None) -> None:
    found = parse_range(header, 100)
    assert (found and (found.start, found.end)) == span


def test_a_range_that_covers_everything_is_still_a_part() -> None:
    assert parse_range("bytes=0-", 100) == Span(0, 100, 100, is_part=True)
    assert parse_range(None, 100) == Span(0, 100, 100, is_part=False)


async def test_a_reader_that_leaves_is_counted_for_what_it_got(account, media: Path) -> None:
    size = (media / "clip.mp4").stat().st_size
    uid, address = await account.mp4(media / "clip.mp4")
    account.stream.faults.set(mp4_slow={"bytes_per_second": size})
    async with account.session.get(address) as answer:
        await answer.content.readexactly(10)
        answer.close()
    assert 0 < account.stream.traffic.of(uid).bytes_sent < size


async def _get(account, address: str, **headers: str):
    async with account.session.get(address, headers=headers) as answer:
        return answer, await answer.read()


async def test_downloads_wait_until_the_video_plays(account, media: Path) -> None:
    uid = (await account.announce())["uid"]
    answer = await account.call("POST", f"/stream/{uid}/downloads")
    assert (answer.status, answer.code) == (400, 10005)
    assert (await account.call("GET", f"/stream/{uid}/downloads")).result == {}


async def test_an_mp4_is_made_once_asked_for(open_account, media: Path) -> None:
    account = await open_account(dwell=Dwell(0, 0, 0, 0, 0, 0.3))
    uid = await account.ready(media / "clip.mp4")
    first = (await account.call("POST", f"/stream/{uid}/downloads")).result["default"]
    assert first["status"] == "inprogress"
    assert isinstance(first["percentComplete"], float)
    assert (await _get(account, first["url"]))[0].status == 404
    seen = []
    while not seen or seen[-1]["status"] == "inprogress":
        seen.append((await account.call("GET", f"/stream/{uid}/downloads")).result["default"])
    percents = [download["percentComplete"] for download in seen]
    assert percents == sorted(percents)
    assert len(set(percents)) > 3
    assert seen[-1] == {"status": "ready", "url": first["url"], "percentComplete": 100.0}
    # Asking again begins nothing anew.
    assert (await account.call("POST", f"/stream/{uid}/downloads")).result["default"]["status"] == "ready"
    assert (await _get(account, first["url"]))[1] == (media / "clip.mp4").read_bytes()


async def test_a_removed_download_is_gone_and_can_be_made_again(account, media: Path) -> None:
    uid, address = await account.mp4(media / "clip.mp4")
    assert (await account.call("DELETE", f"/stream/{uid}/downloads")).result == ""
    assert (await _get(account, address))[0].status == 404
    assert (await account.call("DELETE", f"/stream/{uid}/downloads")).code == 10003
    assert (await account.call("POST", f"/stream/{uid}/downloads/default")).status == 200
    await account.until_mp4(uid, "ready")


async def test_the_sound_alone_is_an_m4a_where_there_is_sound(account, media: Path) -> None:
    uid = await account.ready(media / "clip.mp4")
    silent = await account.ready(media / "silent.mp4")
    for each in (uid, silent):
        assert (await account.call("POST", f"/stream/{each}/downloads/audio")).status == 200
    assert (await account.call("POST", f"/stream/{uid}/downloads/subtitles")).code == 10005

    async def audio(of: str) -> dict:
        while (found := (await account.call("GET", f"/stream/{of}/downloads")).result["audio"])[
            "status"
        ] == "inprogress":
            pass
        return found

    made = await audio(uid)
    answer, body = await _get(account, made["url"])
    assert (answer.status, answer.content_type, body[4:8]) == (200, "audio/mp4", b"ftyp")
    assert (await audio(silent))["status"] == "error"
    assert "default" not in (await account.call("GET", f"/stream/{uid}/downloads")).result


async def test_an_mp4_comes_in_ranges(account, media: Path) -> None:
    body = (media / "clip.mp4").read_bytes()
    _, address = await account.mp4(media / "clip.mp4")
    whole, got = await _get(account, address)
    assert (whole.status, got, whole.headers["Accept-Ranges"]) == (200, body, "bytes")
    assert whole.headers["Content-Length"] == str(len(body))
    assert whole.headers["Content-Type"] == "video/mp4"
    part, got = await _get(account, address, Range="bytes=1000-1999")
    assert (part.status, got) == (206, body[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(body)}"
    beyond, _ = await _get(account, address, Range=f"bytes={len(body)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(body)}")
    etag = whole.headers["ETag"]
    same, got = await _get(account, address, **{"Range": "bytes=5-", "If-Range": etag})
    assert (same.status, got) == (206, body[5:])
    other, got = await _get(account, address, **{"Range": "bytes=5-", "If-Range": '"other"'})
    assert (other.status, got) == (200, body)
    async with account.session.head(address) as head:
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(body)))


async def test_what_left_is_counted(account, media: Path) -> None:
    size = (media / "clip.mp4").stat().st_size
    uid, address = await account.mp4(media / "clip.mp4")
    await _get(account, address)
    await _get(account, address, Range="bytes=0-99")
    async with account.session.get(f"{account.stream.base_url}/stand-in/traffic") as answer:
        counted = (await answer.json())[uid]
    assert counted == {"bytes_sent": size + 100, "requests": 2, "ranged_requests": 1, "ranges": ["bytes=0-99"]}
    assert account.stream.traffic.of(uid).bytes_sent == size + 100


async def test_a_name_for_the_file(account, media: Path) -> None:
    _, address = await account.mp4(media / "clip.mp4")
    answer, _ = await _get(account, f"{address}?filename=my-clip_1")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="my-clip_1.mp4"'
    for wrong in ("x" * 121, "a.b", "a/b"):
        assert (await _get(account, f"{address}?filename={wrong}"))[0].status == 400


async def test_a_signed_video_is_had_by_token_only(account, media: Path) -> None:
    uid, address = await account.mp4(media / "clip.mp4", requireSignedURLs=True)
    assert (await _get(account, address))[0].status == 401

    async def status(**body: object) -> int:
        token = (await account.call("POST", f"/stream/{uid}/token", json=body)).result["token"]
        return (await _get(account, address.replace(uid, token)))[0].status

    now = int(time.time())
    assert await status(downloadable=True) == 200
    assert await status() == 403
    assert await status(downloadable=True, exp=now - 10) == 401
    assert await status(downloadable=True, nbf=now + 100) == 401
    assert (
        await status(downloadable=True, accessRules=[{"type": "ip.src", "action": "block", "ip": ["127.0.0.0/8"]}])
        == 401
    )
    assert await status(downloadable=True, accessRules=[{"type": "any", "action": "allow"}]) == 200
    token = (await account.call("POST", f"/stream/{uid}/token", json={"downloadable": True})).result["token"]
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    assert (await _get(account, address.replace(uid, forged)))[0].status == 401
    # Inside a manifest addresses are relative: the token stays in front of every segment.
    manifest = f"{account.stream.base_url}/{token}/manifest/video.m3u8"
    assert (await _get(account, manifest))[0].status == 200


async def test_every_asset_of_a_failed_video_is_424(account, media: Path) -> None:
    uid = await account.upload(media / "text.mp4")
    await account.until_state(uid, "error")
    for asset in ("downloads/default.mp4", "manifest/video.m3u8", "thumbnails/thumbnail.jpg", "iframe"):
        assert (await _get(account, f"{account.stream.base_url}/{uid}/{asset}"))[0].status == 424


async def test_allowed_origins_bind_browsers(account, media: Path) -> None:
    _, address = await account.mp4(media / "clip.mp4", allowedOrigins=["*.example.org", "localhost:8080"])
    assert (await _get(account, address, Origin="https://www.example.org"))[0].status == 200
    assert (await _get(account, address, Origin="http://localhost:8080"))[0].status == 200
    assert (await _get(account, address, Origin="https://evil.example"))[0].status == 403
    assert (await _get(account, address))[0].status == 200


async def test_a_page_elsewhere_may_read(account, media: Path) -> None:
    _, address = await account.mp4(media / "clip.mp4")
    answer, _ = await _get(account, address, Origin="http://localhost:8080", Range="bytes=0-1")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]
