from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import aiohttp
import pytest

from orchestrator.local.stream.uploads_tus import CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, CHUNK_STEP_BYTES, chunk_problem

MIB = 1024 * 1024
PATCH = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def _padded(path: Path, size: int) -> bytes:
    """A video grown to *size* by a `free` box, which players skip."""
    body = path.read_bytes()
    room = size - len(body)
    return body + room.to_bytes(4) + b"free" + b"\0" * (room - 8)


def _metadata(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


async def _create(account, length: int, *, direct: bool = True, metadata: str = "") -> tuple[str, str]:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(length), "Upload-Metadata": metadata}
    answer = await account.call("POST", "/stream" + ("?direct_user=true" if direct else ""), headers=headers)
    assert answer.status == 201, answer.body
    assert answer.body is None
    return answer.headers["Location"], answer.headers["stream-media-id"]


async def _patch(account, address: str, offset: int, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    given = {**PATCH, "Upload-Offset": str(offset), **headers}
    async with account.session.patch(address, data=body, headers=given) as answer:
        await answer.read()
        return answer


async def _offset(account, address: str) -> int:
    async with account.session.head(address, headers={"Tus-Resumable": "1.0.0"}) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return int(answer.headers["Upload-Offset"])


@pytest.mark.parametrize(
    ("offset", "chunk", "total", "is_right"),
    [
        (0, 100, 100, True),
        (0, CHUNK_MIN_BYTES, 10 * MIB, True),
        (CHUNK_MIN_BYTES, 3, CHUNK_MIN_BYTES + 3, True),
        (0, CHUNK_MAX_BYTES, 300 * MIB, True),
        (0, CHUNK_MIN_BYTES - CHUNK_STEP_BYTES, 10 * MIB, False),
        (0, CHUNK_MIN_BYTES + 1, 10 * MIB, False),
        (0, CHUNK_MAX_BYTES + CHUNK_STEP_BYTES, 300 * MIB, False),
        (0, CHUNK_MAX_BYTES + 1, CHUNK_MAX_BYTES + 1, False),
        (50, 51, 100, False),
    ],
)
def test_chunk_sizes(offset: int, chunk: int, total: int, is_right: bool) -> None:
    assert (chunk_problem(offset, chunk, total) is None) is is_right


async def test_a_file_in_three_chunks_becomes_a_video(account, media: Path) -> None:
    body = _padded(media / "clip.mp4", 11 * MIB)
    address, uid = await _create(account, len(body), metadata=_metadata(name="big", filetype="video/mp4"))
    assert await _offset(account, address) == 0
    for start in range(0, len(body), CHUNK_MIN_BYTES):
        answer = await _patch(account, address, start, body[start : start + CHUNK_MIN_BYTES])
        assert answer.status == 204
        assert answer.headers["Upload-Offset"] == str(min(len(body), start + CHUNK_MIN_BYTES))
        assert answer.headers["stream-media-id"] == uid
    video = await account.until_state(uid, "ready")
    assert (video["size"], video["meta"]) == (len(body), {"name": "big", "filetype": "video/mp4"})
    assert await _offset(account, address) == len(body)


async def test_chunks_of_the_wrong_size_are_400_and_change_nothing(account) -> None:
    address, _ = await _create(account, 20 * MIB)
    for size in (CHUNK_MIN_BYTES + 1, MIB):
        assert (await _patch(account, address, 0, b"x" * size)).status == 400

    async def unannounced():
        yield b"x" * (CHUNK_MIN_BYTES + 1)

    assert (await _patch(account, address, 0, unannounced())).status == 400
    assert await _offset(account, address) == 0


async def test_a_wrong_offset_is_409_and_says_the_right_one(account) -> None:
    address, _ = await _create(account, 20 * MIB)
    await _patch(account, address, 0, b"x" * CHUNK_MIN_BYTES)
    answer = await _patch(account, address, 0, b"x" * CHUNK_MIN_BYTES)
    assert (answer.status, answer.headers["Upload-Offset"]) == (409, str(CHUNK_MIN_BYTES))
    # The refusal is read even by a client that sends its whole chunk first.
    assert (await _patch(account, address, 0, b"x" * (20 * MIB))).status == 409


async def test_a_broken_chunk_is_kept_in_whole_steps_and_resumed(account, media: Path) -> None:
    body = _padded(media / "clip.mp4", 6 * MIB)
    address, uid = await _create(account, len(body))
    gate = asyncio.Event()

    async def half():
        yield body[: 3 * MIB + 1000]
        await gate.wait()

    headers = {**PATCH, "Upload-Offset": "0", "Content-Length": str(len(body))}
    sending = asyncio.create_task(account.session.patch(address, data=half(), headers=headers).__aenter__())
    folder = account.stream.parts.store.folder(uid)
    while not (folder / "source.part").exists() or (folder / "source.part").stat().st_size < 2 * MIB:
        await asyncio.sleep(0.01)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    while (await _patch(account, address, 0, b"")).status == 423:
        await asyncio.sleep(0.01)
    offset = await _offset(account, address)
    assert offset % CHUNK_STEP_BYTES == 0
    assert 2 * MIB <= offset <= 3 * MIB
    assert (await _patch(account, address, offset, body[offset:])).status == 204
    await account.until_state(uid, "ready")


async def test_an_upload_is_resumed_after_a_restart(open_account, media: Path) -> None:
    body = _padded(media / "clip.mp4", 6 * MIB)
    account = await open_account()
    address, uid = await _create(account, len(body))
    await _patch(account, address, 0, body[:CHUNK_MIN_BYTES])
    await account.stream.stop()
    again = await open_account()
    address = address.replace(account.address.partition("/client")[0], again.stream.base_url)
    assert await _offset(again, address) == CHUNK_MIN_BYTES
    assert (await _patch(again, address, CHUNK_MIN_BYTES, body[CHUNK_MIN_BYTES:])).status == 204
    await again.until_state(uid, "ready")


async def test_an_upload_made_with_the_token_goes_on_with_the_token(account, media: Path) -> None:
    body = (media / "clip.mp4").read_bytes()
    address, uid = await _create(account, len(body), direct=False)
    assert (await _patch(account, address, 0, body)).status == 401
    right = {"Authorization": f"Bearer {account.token}"}
    assert (await _patch(account, address, 0, body, **right)).status == 204
    await account.until_state(uid, "ready")
    assert address.startswith(account.address)


async def test_metadata_becomes_settings_and_the_rest_meta(account) -> None:
    metadata = _metadata(Name="x", maxdurationseconds="600", AllowedOrigins="a.example,b.example", mine="7")
    address, uid = await _create(account, 100, metadata=metadata + ",requiresignedurls")
    video = await account.video(uid)
    assert video["maxDurationSeconds"] == 600
    assert video["allowedOrigins"] == ["a.example", "b.example"]
    assert video["requireSignedURLs"] is True
    assert video["meta"] == {"Name": "x", "mine": "7"}
    assert uid not in address or address.endswith(f"/tus/{uid}?tusv2=true")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Length": "abc"}, 400),
        ({"Upload-Length": "0"}, 400),
        ({"Upload-Length": "30000000001"}, 413),
        ({"Upload-Metadata": "name not-base64!"}, 400),
    ],
)
async def test_creations_that_are_refused(account, changed: dict[str, str], status: int) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10", **changed}
    answer = await account.call("POST", "/stream?direct_user=true", headers=headers)
    assert answer.status == status
    assert answer.code >= 1000
    assert (await account.call("GET", "/stream")).result == []


async def test_a_page_elsewhere_may_use_tus(account) -> None:
    address, _ = await _create(account, 100)
    asked = {
        "Origin": "http://localhost:8080",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "content-type,tus-resumable,upload-offset",
    }
    async with account.session.options(address, headers=asked) as answer:
        assert answer.status == 204
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
        assert answer.headers["Access-Control-Allow-Headers"] == "content-type,tus-resumable,upload-offset"
        assert answer.headers["Tus-Version"] == "1.0.0"
    async with account.session.head(address) as answer:
        exposed = {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert {"location", "upload-offset", "upload-length", "stream-media-id", "tus-resumable"} <= exposed


async def test_patch_wants_its_own_content_type(account) -> None:
    address, _ = await _create(account, 100)
    answer = await _patch(account, address, 0, b"x" * 100, **{"Content-Type": "application/json"})
    assert answer.status == 415


async def test_one_writer_at_a_time(account) -> None:
    address, _ = await _create(account, 6 * MIB)
    gate, began = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield b"x" * MIB
        began.set()
        await gate.wait()
        yield b"x" * (5 * MIB)

    first = asyncio.create_task(_patch(account, address, 0, slowly()))
    await began.wait()
    assert (await _patch(account, address, 0, b"x" * (6 * MIB))).status == 423
    gate.set()
    assert (await first).status == 204


async def test_a_video_deleted_under_its_upload_is_404(account) -> None:
    address, uid = await _create(account, 6 * MIB)
    gate, began = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield b"x" * MIB
        began.set()
        await gate.wait()
        yield b"x" * (5 * MIB)

    sending = asyncio.create_task(_patch(account, address, 0, slowly()))
    await began.wait()
    assert (await account.call("DELETE", f"/stream/{uid}")).status == 200
    gate.set()
    assert (await sending).status == 404
