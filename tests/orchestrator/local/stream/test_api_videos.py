from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.local.stream import Dwell

FAR = (datetime.now(UTC) + timedelta(days=40)).isoformat()


async def _names(account, query: str) -> list[str]:
    return [video["meta"]["name"] for video in (await account.call("GET", f"/stream?{query}")).result]


@pytest.fixture
async def library(account, media: Path) -> dict[str, str]:
    """Four videos, oldest first: a is ready, b failed, c and d wait for bytes; by name."""
    uids = {
        "a": await account.ready(media / "clip.mp4", meta={"name": "a"}, creator="ann"),
        "b": await account.upload(media / "text.mp4", meta={"name": "b"}, creator="ben"),
    }
    await account.until_state(uids["b"], "error")
    for name in ("c", "d"):
        uids[name] = (await account.announce(meta={"name": name}))["uid"]
    return uids


async def test_lists_filter_by_state_uid_creator_and_name(account, library: dict[str, str]) -> None:
    assert await _names(account, "") == ["d", "c", "b", "a"]
    assert await _names(account, "asc=true") == ["a", "b", "c", "d"]
    assert await _names(account, "status=ready,error") == ["b", "a"]
    assert await _names(account, f"id={library['c']},{library['a']},{'0' * 32}") == ["c", "a"]
    assert await _names(account, f"id={library['c']},{library['a']}&status=ready") == ["a"]
    assert await _names(account, "creator=ann") == ["a"]
    assert await _names(account, "video_name=b") == ["b"]
    assert await _names(account, "search=B") == ["b"]
    assert await _names(account, "type=live") == []
    assert await _names(account, "limit=2") == ["d", "c"]


async def test_pages_by_time_meet_without_gap_or_overlap(account, library: dict[str, str]) -> None:
    rows = (await account.call("GET", "/stream?limit=2&include_counts=true")).body
    assert (rows["total"], rows["range"]) == (4, 4)
    last = rows["result"][-1]["created"]
    rest = (await account.call("GET", "/stream", params={"before": last, "include_counts": "true"})).body
    assert [video["meta"]["name"] for video in rest["result"]] == ["b", "a"]
    assert (rest["total"], rest["range"]) == (4, 2)
    assert await _names(account, f"end={last}&asc=true") == ["a", "b"]
    assert await _names(account, f"start={last}") == ["d", "c"]
    assert await _names(account, f"after={last}") == ["d", "c"]
    assert "total" not in (await account.call("GET", "/stream")).body


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "status=cooking", "before=yesterday"])
async def test_wrong_list_parameters_are_named(account, query: str) -> None:
    answer = await account.call("GET", f"/stream?{query}")
    assert (answer.status, answer.code) == (400, 10005)
    assert query.partition("=")[0] in answer.body["errors"][0]["message"]


async def test_edit_replaces_what_is_given_and_empties_what_is_null(account) -> None:
    uid = (await account.announce(meta={"name": "x", "old": 1}, creator="me"))["uid"]
    edited = await account.call("POST", f"/stream/{uid}", json={"meta": {"name": "y"}, "scheduledDeletion": FAR})
    assert (edited.result["meta"], edited.result["creator"]) == ({"name": "y"}, "me")
    assert datetime.fromisoformat(edited.result["scheduledDeletion"]) == datetime.fromisoformat(FAR)
    edited = await account.call("POST", f"/stream/{uid}", json={"scheduledDeletion": None, "creator": None})
    assert (edited.result["scheduledDeletion"], edited.result["creator"]) == (None, None)
    answer = await account.call("POST", f"/stream/{uid}", json={"creator": "x" * 65, "thumbnailTimestampPct": 2})
    assert (answer.status, answer.code) == (400, 10005)
    assert "creator" in answer.body["errors"][0]["message"]
    assert "thumbnailTimestampPct" in answer.body["errors"][0]["message"]


async def test_a_json_body_counts_whatever_its_content_type(account) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await account.call("POST", "/stream/direct_upload", data='{"maxDurationSeconds": 5}', headers=headers)
    assert answer.status == 200
    assert (await account.call("POST", "/stream/direct_upload", data="{oops")).code == 10005


async def test_a_deleted_video_is_gone_with_its_work_and_bytes(open_account, media: Path) -> None:
    account = await open_account(encode="h264", dwell=Dwell(0, 0, 60, 0, 0, 0))
    uid = await account.upload(media / "clip.mp4")
    await account.until_state(uid, "inprogress")
    answer = await account.call("DELETE", f"/stream/{uid}")
    assert (answer.status, answer.body) == (200, None)
    assert not account.stream.parts.store.folder(uid).exists()
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ""), ("GET", "/downloads"), ("POST", "/downloads")):
        answer = await account.call(method, f"/stream/{uid}{path}")
        assert (answer.status, answer.code) == (404, 10003)


async def test_copy_fetches_the_address(account, media: Path, serve) -> None:
    app = web.Application()
    app.router.add_static("/", media)
    origin = await serve(app)
    made = (
        await account.call("POST", "/stream/copy", json={"input": f"{origin}/clip.mp4", "meta": {"id": "7"}})
    ).result
    assert made["status"]["state"] == "downloading"
    assert "pctComplete" not in made["status"]
    assert made["meta"] == {"name": "clip.mp4", "id": "7", "downloaded-from": f"{origin}/clip.mp4"}
    video = await account.until_state(made["uid"], "ready")
    assert video["size"] == (media / "clip.mp4").stat().st_size


async def test_copy_resumes_a_source_that_breaks_off(account, media: Path, serve) -> None:
    body = (media / "clip.mp4").read_bytes()
    ranges: list[str | None] = []

    async def flaky(request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range")
        start = int(asked[6:-1]) if asked else 0
        answer = web.StreamResponse(status=206 if asked else 200, headers={"Content-Length": str(len(body) - start)})
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        ranges.append(asked)
        await answer.write(body[start:] if asked else body[:20_000])
        if not asked:
            request.transport.close()
        return answer

    app = web.Application()
    app.router.add_get("/a.mp4", flaky)
    origin = await serve(app)
    made = (await account.call("POST", "/stream/copy", json={"url": f"{origin}/a.mp4"})).result
    assert (await account.until_state(made["uid"], "ready"))["size"] == len(body)
    assert ranges == [None, "bytes=20000-"]


async def test_copy_fails_where_head_is_refused_as_for_a_presigned_get(account, media: Path, serve) -> None:
    async def get_only(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403) if request.method == "HEAD" else web.FileResponse(media / "clip.mp4")

    app = web.Application()
    app.router.add_get("/a.mp4", get_only)
    made = (await account.call("POST", "/stream/copy", json={"input": f"{await serve(app)}/a.mp4"})).result
    video = await account.until_state(made["uid"], "error")
    assert video["status"]["errorReasonCode"] == "ERR_FETCH_ORIGIN_ERROR"


async def test_copy_refuses_what_is_no_web_address(account) -> None:
    for url in ("ftp://host/a.mp4", "file:///etc/passwd", "nonsense"):
        answer = await account.call("POST", "/stream/copy", json={"input": url})
        assert (answer.status, answer.code) == (400, 10010)
    assert (await account.call("POST", "/stream/copy", json={})).code == 10005


@pytest.mark.parametrize("encode", ["h264", "copy"])
async def test_a_clip_is_a_video_of_its_own(open_account, media: Path, encode: str) -> None:
    account = await open_account(encode=encode)
    source = await account.ready(media / "long.mp4")
    body = {"clippedFromVideoUID": source, "startTimeSeconds": 2, "endTimeSeconds": 5, "meta": {"name": "cut"}}
    made = (await account.call("POST", "/stream/clip", json=body)).result
    assert (made["status"]["state"], made["clippedFrom"]) == ("queued", source)
    video = await account.until_state(made["uid"], "ready")
    assert video["duration"] == 3
    assert video["meta"] == {"name": "cut"}


async def test_clips_that_cannot_be(account, media: Path) -> None:
    source = await account.ready(media / "clip.mp4")
    waiting = (await account.announce())["uid"]

    async def code(uid: str, start: float, end: float) -> int:
        body = {"clippedFromVideoUID": uid, "startTimeSeconds": start, "endTimeSeconds": end}
        return (await account.call("POST", "/stream/clip", json=body)).code

    assert await code(source, 1, 1) == 10005
    assert await code(source, 0, 60) == 10005
    assert await code(source, 0.5, 1) == 10005
    assert await code(waiting, 0, 1) == 10005
    assert await code("0" * 32, 0, 1) == 10003


async def test_a_wrong_token_account_or_path_is_told_apart(account) -> None:
    account.token = "wrong"
    answer = await account.call("GET", "/stream")
    assert (answer.status, answer.code) == (401, 10000)
    account.token = account.stream.api_token
    assert (await account.call("GET", "/nonsense")).code == 7003
    account.address = f"{account.stream.url}/accounts/{'f' * 32}"
    answer = await account.call("GET", "/stream")
    assert (answer.status, answer.code) == (404, 7003)


async def test_the_token_can_be_verified(account) -> None:
    assert (await account.call("GET", "/tokens/verify")).result["status"] == "active"
    account.address = account.stream.url
    assert (await account.call("GET", "/user/tokens/verify")).result["status"] == "active"


async def test_videos_and_the_webhook_survive_a_restart(open_account, media: Path) -> None:
    account = await open_account()
    uid = await account.ready(media / "clip.mp4", meta={"name": "kept"})
    set_up = (await account.call("PUT", "/stream/webhook", json={"notificationUrl": "http://127.0.0.1:9/h"})).result
    before = await account.video(uid)
    await account.stream.stop()
    again = await open_account()
    after = await again.video(uid)
    for name in ("status", "meta", "duration", "input", "created", "size"):
        assert after[name] == before[name]
    assert (await again.call("GET", "/stream/webhook")).result == set_up


async def test_one_data_directory_serves_one_stand_in(open_account, tmp_path: Path) -> None:
    await open_account()
    with pytest.raises(RuntimeError, match="another stand-in"):
        await open_account()


async def test_two_made_at_once_differ_in_created(account) -> None:
    videos = await asyncio.gather(*(account.announce() for _ in range(20)))
    created = [(await account.video(video["uid"]))["created"] for video in videos]
    assert len(set(created)) == 20


async def test_one_list_call_asks_for_hundreds_of_uids(account) -> None:
    uids = [(await account.announce())["uid"] for _ in range(3)]
    wanted = ",".join([*(f"{n:032x}" for n in range(900)), *uids])
    assert len((await account.call("GET", f"/stream?id={wanted}")).result) == 3


async def test_what_breaks_inside_is_an_envelope_too(account, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(account.stream.parts.admission), "usage", breaks)
    answer = await account.call("GET", "/stream/storage-usage")
    assert (answer.status, answer.code) == (500, 1000)


async def test_secrets_on_disk_are_for_this_user_alone(account, tmp_path: Path) -> None:
    await account.call("PUT", "/stream/webhook", json={"notificationUrl": "http://127.0.0.1:9/h"})
    for name in ("webhook.json", "token-secret"):
        assert (tmp_path / "stream" / name).stat().st_mode & 0o077 == 0
