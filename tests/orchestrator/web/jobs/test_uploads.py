"""Files sent to be cut: on disk before the answer, the same id is the same upload, nothing is left of a refused one."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from aiohttp import FormData

from orchestrator.storage import upload_files


def form(data: bytes, name: str = "file", filename: str = "día.mp4") -> FormData:
    made = FormData(quote_fields=False)
    made.add_field("other", "first")
    made.add_field(name, data, filename=filename, content_type="video/mp4")
    return made


def files(directories: dict[str, Path]) -> list[str]:
    return sorted(path.name for path in directories["upload_tmp_dir"].iterdir())


async def test_a_file_is_stored_and_told_as_documented(client, directories, place):
    data = b"x" * 3_000_000
    answer = await client.post("/api/videos/upload?uploadId=day-1", data=form(data))
    said = await answer.json()
    sha256 = hashlib.sha256(data).hexdigest()
    assert answer.status == 200, said
    assert (said["success"], said["uploadId"], said["filename"], said["size"]) == (True, "day-1", "día.mp4", len(data))
    assert Path(said["temp_path"]).read_bytes() == data
    row = await place.owner.fetchrow("SELECT * FROM uploads")
    assert (row["id"], row["filename"], row["size_bytes"], row["sha256"]) == ("day-1", "día.mp4", len(data), sha256)


async def test_an_id_is_made_where_none_is_given(client):
    said = await (await client.post("/api/videos/upload", data=form(b"abc"))).json()
    assert said["uploadId"].startswith("up_")


async def test_the_same_id_with_the_same_bytes_is_the_same_upload(client, directories):
    for _ in range(2):
        assert (await client.post("/api/videos/upload?uploadId=a", data=form(b"same"))).status == 200
    assert len(files(directories)) == 1


async def test_other_bytes_under_a_known_id_are_a_conflict_and_leave_the_first(client, directories):
    first = await (await client.post("/api/videos/upload?uploadId=a", data=form(b"first"))).json()
    answer = await client.post("/api/videos/upload?uploadId=a", data=form(b"second"))
    assert (answer.status, (await answer.json())["code"]) == (409, "upload-differs")
    assert Path(first["temp_path"]).read_bytes() == b"first"
    assert len(files(directories)) == 1


async def test_two_at_once_under_one_id_end_as_one_of_them(client, directories, place):
    sent = [client.post("/api/videos/upload?uploadId=a", data=form(bytes([n]) * 500_000)) for n in range(4)]
    answers = await asyncio.gather(*sent)
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    sha256 = await place.owner.fetchval("SELECT sha256 FROM uploads")
    assert files(directories) == [f"a.{sha256[:16]}"]
    assert hashlib.sha256((directories["upload_tmp_dir"] / files(directories)[0]).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("wanted", ["../x", "a b", "x" * 65, "ä"])
async def test_an_id_that_could_be_a_path_is_refused(client, wanted):
    answer = await client.post("/api/videos/upload", params={"uploadId": wanted}, data=form(b"a"))
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, "uploadId")


async def test_a_form_without_the_file_is_refused_by_name(client):
    answer = await client.post("/api/videos/upload", data=form(b"a", name="video"))
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, "file")
    answer = await client.post("/api/videos/upload", json={"file": "a"})
    assert answer.status == 415


async def test_a_file_that_is_too_large_is_refused_whether_it_says_so_or_not(cutting, directories):
    client = await cutting(upload_max_bytes=100_000)
    answer = await client.post("/api/videos/upload?uploadId=a", data=form(b"x" * 300_000))
    assert (answer.status, (await answer.json())["code"]) == (413, "too-large")

    async def drip():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 10_000
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await client.post("/api/videos/upload?uploadId=a", data=drip(), headers=headers)
    assert answer.status == 413
    assert files(directories) == []


async def test_a_full_disk_is_a_refusal_of_its_own_before_the_bytes_come(client, directories, monkeypatch):
    monkeypatch.setattr(upload_files, "RESERVE_BYTES", 2**62)
    answer = await client.post("/api/videos/upload?uploadId=a", data=form(b"abc"))
    assert (answer.status, (await answer.json())["code"]) == (507, "no-space")
    assert files(directories) == []


@pytest.mark.as_root
async def test_a_disk_that_fills_up_on_the_way_leaves_nothing(cutting, tmp_path, directories, monkeypatch):
    """A real disk of two megabytes."""
    small = directories["upload_tmp_dir"]
    small.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small))
    if await mount.wait() != 0:
        pytest.skip("nothing can be mounted here")
    try:
        monkeypatch.setattr(upload_files, "RESERVE_BYTES", -(2**40))
        client = await cutting()
        answer = await client.post("/api/videos/upload?uploadId=a", data=form(b"x" * 4_000_000))
        assert (answer.status, (await answer.json())["code"]) == (507, "no-space")
        assert files(directories) == []
        assert (await client.post("/api/videos/upload?uploadId=a", data=form(b"x" * 1_000_000))).status == 200
    finally:
        await (await asyncio.create_subprocess_exec("umount", str(small))).wait()


async def test_a_line_that_breaks_leaves_nothing(client, directories):
    async def broken():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield b"x" * 100_000
        raise ConnectionResetError

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the client makes of it
        await client.post(
            "/api/videos/upload?uploadId=a",
            data=broken(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    for _ in range(500):
        if directories["upload_tmp_dir"].exists() and not files(directories):
            break
        await asyncio.sleep(0.01)
    assert files(directories) == []


async def test_where_cutting_is_off_it_says_what_to_set(place):
    client = await place.start()
    problem = await (await client.post("/api/videos/upload", data=form(b"a"))).json()
    assert (problem["status"], problem["code"]) == (404, "cutting-is-off")
    assert "OUTPUT_ROOT" in problem["hint"]
