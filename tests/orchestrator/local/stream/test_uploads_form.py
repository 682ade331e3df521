from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from orchestrator.local.stream import Dwell


def _form(path: Path, part: str = "file") -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field(part, path.read_bytes(), filename=path.name, content_type="video/mp4")
    return form


async def test_a_basic_upload_answers_the_queued_video(account, media: Path) -> None:
    answer = await account.call("POST", "/stream", data=_form(media / "clip.mp4"))
    assert answer.result["status"]["state"] == "queued"
    assert answer.result["meta"]["name"] == "clip.mp4"
    await account.until_state(answer.result["uid"], "ready")


async def test_a_basic_upload_refuses_what_is_no_video_at_once(account, media: Path) -> None:
    answer = await account.call("POST", "/stream", data=_form(media / "text.mp4"))
    assert (answer.status, answer.code) == (400, 10059)
    assert (await account.call("GET", "/stream")).result == []


async def test_a_form_without_the_file_part_is_refused(account, media: Path) -> None:
    answer = await account.call("POST", "/stream", data=_form(media / "clip.mp4", part="other"))
    assert (answer.status, answer.code) == (400, 10005)


async def test_a_form_above_the_limit_is_413_announced_or_not(open_account, media: Path) -> None:
    account = await open_account(form_limit_bytes=1000)
    announced = await account.announce()
    big = media / "long.mp4"
    assert await account.send(announced["uploadURL"], big) == 413

    async def unannounced():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        yield big.read_bytes()
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with account.session.post(announced["uploadURL"], data=unannounced(), headers=headers) as answer:
        assert answer.status == 413
    # Nothing was accepted: the address still takes a file that fits.
    assert (await account.video(announced["uid"]))["status"]["state"] == "pendingupload"


async def test_a_one_time_address_takes_one_upload(account, media: Path) -> None:
    announced = await account.announce(meta={"name": "mine", "id": "c1"}, creator="me")
    assert await account.send(announced["uploadURL"], media / "clip.mp4") == 200
    assert await account.send(announced["uploadURL"], media / "clip.mp4") == 409
    video = await account.until_state(announced["uid"], "ready")
    assert (video["meta"]["name"], video["meta"]["id"], video["creator"]) == ("mine", "c1", "me")


async def test_a_one_time_address_expires(account, media: Path) -> None:
    expiry = datetime.now(UTC) + timedelta(milliseconds=50)
    announced = await account.announce(expiry=expiry.isoformat())
    await asyncio.sleep(0.06)
    assert await account.send(announced["uploadURL"], media / "clip.mp4") == 410
    video = await account.video(announced["uid"])
    assert video["status"]["state"] == "pendingupload"
    assert datetime.fromisoformat(video["uploadExpiry"]) == expiry


async def test_an_upload_that_breaks_off_may_be_sent_again(account, media: Path) -> None:
    announced = await account.announce()

    async def half():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + b"x" * 100_000
        raise ConnectionError("the browser was closed")

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        async with account.session.post(announced["uploadURL"], data=half(), headers=headers):
            pass
    except (aiohttp.ClientError, ConnectionError):
        pass
    assert await account.send(announced["uploadURL"], media / "clip.mp4") in (200, 409)
    while (await account.video(announced["uid"]))["status"]["state"] != "ready":
        await account.send(announced["uploadURL"], media / "clip.mp4")


async def test_a_direct_upload_needs_a_longest_duration_within_bounds(account) -> None:
    for body in ({}, {"maxDurationSeconds": 0}, {"maxDurationSeconds": 36_001}):
        answer = await account.call("POST", "/stream/direct_upload", json=body)
        assert (answer.status, answer.code) == (400, 10005)
        assert "maxDurationSeconds" in answer.body["errors"][0]["message"]


async def test_a_page_elsewhere_may_upload(account, media: Path) -> None:
    announced = await account.announce()
    asked = {"Origin": "http://localhost:8080", "Access-Control-Request-Method": "POST"}
    async with account.session.options(announced["uploadURL"], headers=asked) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]


async def test_a_stalled_upload_is_408(open_account) -> None:
    account = await open_account(stall_timeout_seconds=0.1)
    announced = await account.announce()
    forever = asyncio.Event()

    async def stalls():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + b"x" * 10
        await forever.wait()

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with account.session.post(announced["uploadURL"], data=stalls(), headers=headers) as answer:
        assert answer.status == 408


async def test_too_many_in_flight_is_429_for_every_way_in(open_account, media: Path) -> None:
    account = await open_account(max_in_flight=1, dwell=Dwell(60, 60, 60, 60, 60, 60))
    await account.upload(media / "clip.mp4")
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    tries = [
        await account.call("POST", "/stream/direct_upload", json={"maxDurationSeconds": 10}),
        await account.call("POST", "/stream/copy", json={"input": "http://127.0.0.1:1/a.mp4"}),
        await account.call("POST", "/stream", headers=tus),
        await account.call("POST", "/stream", data=_form(media / "clip.mp4")),
    ]
    assert [answer.status for answer in tries] == [429] * 4
    # Unlike the rate limit this is not over after a known time.
    assert all("Retry-After" not in answer.headers for answer in tries)


async def test_storage_minutes_are_reserved_and_run_out(open_account, media: Path) -> None:
    account = await open_account(storage_minutes_limit=10)
    await account.announce(maxDurationSeconds=540)
    answer = await account.call("POST", "/stream/direct_upload", json={"maxDurationSeconds": 120})
    assert answer.status == 413
    uid = await account.upload(media / "clip.mp4", maxDurationSeconds=60, creator="me")
    await account.until_state(uid, "ready")
    usage = (await account.call("GET", "/stream/storage-usage?creator=me")).result
    assert usage == {"creator": "me", "totalStorageMinutes": 0.03, "totalStorageMinutesLimit": 10, "videoCount": 1}
