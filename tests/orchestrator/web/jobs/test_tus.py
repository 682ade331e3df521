"""Resumable uploads: the offset is what is on disk, and the last byte makes an upload of it."""

from __future__ import annotations

import base64
import hashlib

import pytest

TUS = {"Tus-Resumable": "1.0.0"}
DATA = bytes(range(256)) * 4000


async def begin(client, length: int = len(DATA), upload_id: str = "t1") -> str:
    name, key = (base64.b64encode(text).decode() for text in ("día.mp4".encode(), upload_id.encode()))
    headers = TUS | {"Upload-Length": str(length), "Upload-Metadata": f"filename {name},uploadId {key}"}
    answer = await client.post("/api/videos/tus", headers=headers)
    assert answer.status == 201, await answer.text()
    assert answer.headers["Location"].endswith(f"/api/videos/tus/{upload_id}")
    return f"/api/videos/tus/{upload_id}"


async def send(client, url: str, offset: int, data: bytes):
    headers = TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return await client.patch(url, data=data, headers=headers)


async def offset_of(client, url: str) -> int:
    answer = await client.head(url, headers=TUS)
    assert answer.status == 200
    return int(answer.headers["Upload-Offset"])


async def test_pieces_make_an_upload(client, place, directories):
    url = await begin(client)
    assert await offset_of(client, url) == 0
    answer = await send(client, url, 0, DATA[:300_000])
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "300000")
    assert await place.owner.fetchval("SELECT count(*) FROM uploads") == 0
    assert (await send(client, url, 300_000, DATA[300_000:])).status == 204
    assert await offset_of(client, url) == len(DATA)
    row = await place.owner.fetchrow("SELECT * FROM uploads")
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert (row["id"], row["filename"], row["sha256"]) == ("t1", "día.mp4", sha256)
    assert [path.name for path in directories["upload_tmp_dir"].iterdir()] == [f"t1.{sha256[:16]}"]


async def test_a_wrong_offset_is_told_the_right_one(client):
    url = await begin(client)
    await send(client, url, 0, DATA[:1000])
    answer = await send(client, url, 0, DATA[:1000])
    assert (answer.status, answer.headers["Upload-Offset"]) == (409, "1000")
    assert await offset_of(client, url) == 1000


async def test_what_arrived_before_the_line_broke_stays(client):
    url = await begin(client)

    async def broken():
        yield DATA[:50_000]
        raise ConnectionResetError

    headers = TUS | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the client makes of it
        await client.patch(url, data=broken(), headers=headers)
    while True:
        offset = await offset_of(client, url)
        answer = await send(client, url, offset, DATA[offset:])
        if answer.status == 204:
            break
        assert answer.status in (409, 423), await answer.text()
    assert await offset_of(client, url) == len(DATA)


async def test_more_than_was_announced_is_refused(client):
    url = await begin(client, length=1000)
    assert (await send(client, url, 0, DATA[:5000])).status == 413
    assert await offset_of(client, url) == 0


async def test_beginning_again_goes_on_with_what_is_there(client):
    url = await begin(client)
    await send(client, url, 0, DATA[:1000])
    assert await begin(client) == url
    assert await offset_of(client, url) == 1000
    headers = TUS | {"Upload-Length": "5", "Upload-Metadata": f"uploadId {base64.b64encode(b't1').decode()}"}
    assert (await client.post("/api/videos/tus", headers=headers)).status == 409


async def test_an_upload_can_be_given_up(client, directories):
    url = await begin(client)
    assert (await client.delete(url, headers=TUS)).status == 204
    assert (await client.head(url, headers=TUS)).status == 404
    assert list(directories["upload_tmp_dir"].iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "5"}, 412),
        (TUS, 422),
        (TUS | {"Upload-Length": "-5"}, 422),
        (TUS | {"Upload-Length": "0"}, 422),
        (TUS | {"Upload-Length": "9" * 16}, 422),
        (TUS | {"Upload-Length": "99999999999999"}, 413),
        (TUS | {"Upload-Length": "5", "Upload-Metadata": f"uploadId {base64.b64encode(b'../x').decode()}"}, 422),
    ],
)
async def test_a_bad_beginning_is_refused(client, headers, status):
    assert (await client.post("/api/videos/tus", headers=headers)).status == status


async def test_it_says_what_it_can_do(client):
    answer = await client.options("/api/videos/tus")
    assert answer.status == 204
    assert (answer.headers["Tus-Version"], answer.headers["Tus-Extension"]) == ("1.0.0", "creation,termination")
