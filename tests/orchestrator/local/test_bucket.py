from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from orchestrator.local import rclone
from orchestrator.local.bucket import BucketOptions, EmbeddedBucket
from orchestrator.local.errors import BucketUnavailable, DirectoryInUse, NotInstalled
from orchestrator.local.rclone import find_rclone

_LIMIT_SECONDS = 20.0
_KEY, _SECRET = "0123456789abcdef", 'se"cret'


def bucket(directory: Path, **settings: Any) -> EmbeddedBucket:
    return EmbeddedBucket(directory / "bucket", BucketOptions(_KEY, _SECRET, "clips", **settings))


def client(running: EmbeddedBucket, secret: str = _SECRET) -> Any:
    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        retries={"max_attempts": 1},
        connect_timeout=5,
        read_timeout=5,
    )
    return boto3.client(
        "s3",
        endpoint_url=running.endpoint_url,
        region_name="auto",
        aws_access_key_id=_KEY,
        aws_secret_access_key=secret,
        config=config,
    )


async def in_thread(call: Callable[..., Any], **arguments: Any) -> Any:
    return await asyncio.to_thread(lambda: call(**arguments))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[EmbeddedBucket]:
    async with bucket(tmp_path) as serving:
        yield serving


async def test_what_is_put_is_an_ordinary_file_and_publicly_readable_in_part(
    running: EmbeddedBucket, tmp_path: Path
) -> None:
    await in_thread(client(running).put_object, Bucket="clips", Key="videos/a b.mp4", Body=b"0123456789")
    assert (tmp_path / "bucket" / "objects" / "clips" / "videos" / "a b.mp4").read_bytes() == b"0123456789"
    async with aiohttp.ClientSession() as session:
        address = f"{running.public_url}/videos/a%20b.mp4"
        async with session.get(address, headers={"Range": "bytes=2-4"}) as answer:
            assert (answer.status, await answer.read(), answer.content_type) == (206, b"234", "video/mp4")


async def test_a_new_version_is_seen_at_once_by_those_who_read(running: EmbeddedBucket) -> None:
    async with aiohttp.ClientSession() as session:
        for body in (b"first", b"second, longer"):
            await in_thread(client(running).put_object, Bucket="clips", Key="a", Body=body)
            async with session.get(f"{running.public_url}/a") as answer:
                assert await answer.read() == body


async def test_a_multipart_upload_ends_in_one_object(running: EmbeddedBucket) -> None:
    s3 = client(running)
    upload = (await in_thread(s3.create_multipart_upload, Bucket="clips", Key="big"))["UploadId"]
    parts = []
    for number, body in ((1, b"x" * 5 * 2**20), (2, b"the end")):
        part = await in_thread(s3.upload_part, Bucket="clips", Key="big", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    await in_thread(
        s3.complete_multipart_upload, Bucket="clips", Key="big", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert (await in_thread(s3.head_object, Bucket="clips", Key="big"))["ContentLength"] == 5 * 2**20 + 7


async def test_nobody_writes_without_the_secret(running: EmbeddedBucket) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        await in_thread(client(running, "wrong").put_object, Bucket="clips", Key="a", Body=b"")
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{running.endpoint_url}/clips/a", data=b"x") as answer:
            assert answer.status in (400, 403)
        async with session.put(f"{running.public_url}/a", data=b"x") as answer:
            assert answer.status == 405


@pytest.mark.on_linux
async def test_the_secret_is_no_argument_that_everybody_sees(
    running: EmbeddedBucket, tmp_path: Path, pids_naming: Callable[[Path], list[int]]
) -> None:
    servers = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids_naming(tmp_path)]
    assert len(servers) == 2
    assert not any(_SECRET.encode() in arguments for arguments in servers)


async def test_objects_stay_from_run_to_run_and_unfinished_uploads_do_not(tmp_path: Path) -> None:
    async with bucket(tmp_path) as serving:
        await in_thread(client(serving).put_object, Bucket="clips", Key="kept", Body=b"kept")
    leftover = tmp_path / "bucket" / "objects" / "clips" / ".rclone_temp_multipart_abc"
    leftover.write_bytes(b"half")
    async with bucket(tmp_path) as serving:
        assert (await in_thread(client(serving).head_object, Bucket="clips", Key="kept"))["ContentLength"] == 4
    assert not leftover.exists()


async def test_it_stops_and_can_be_started_again(tmp_path: Path) -> None:
    serving = bucket(tmp_path)
    for _ in range(2):
        await serving.start()
        assert serving.is_running
        await serving.stop()
        assert not serving.is_running


@pytest.mark.on_linux
async def test_the_end_of_one_of_the_two_servers_is_noticed(
    tmp_path: Path, pids_naming: Callable[[Path], list[int]]
) -> None:
    async with bucket(tmp_path) as serving:
        os.kill(pids_naming(tmp_path)[0], signal.SIGKILL)
        async with asyncio.timeout(_LIMIT_SECONDS):
            while serving.is_running:
                await asyncio.sleep(0.01)


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(BucketUnavailable, match="address already in use"):
            await bucket(tmp_path, public_port=listener.getsockname()[1]).start()
        # And the other of the two is not left behind.
        async with bucket(tmp_path):
            pass


async def test_a_directory_is_served_once(running: EmbeddedBucket, tmp_path: Path) -> None:
    with pytest.raises(DirectoryInUse):
        await bucket(tmp_path).start()
    await in_thread(client(running).put_object, Bucket="clips", Key="a", Body=b"")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((_KEY, _SECRET, "../etc"), "name"),
        ((_KEY, _SECRET, "UPPER"), "name"),
        ((_KEY, "a,b", "clips"), "comma"),
        (("ab", _SECRET, "clips"), "3 characters"),
    ],
)
def test_what_rclone_could_not_serve_is_refused(arguments: tuple[str, str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BucketOptions(*arguments)


@pytest.mark.parametrize(("version", "usable"), [("1.65.0", True), ("2.0.1", True), ("1.60.1", False), ("x", False)])
def test_an_rclone_on_path_is_used_when_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, usable: bool
) -> None:
    monkeypatch.setattr(rclone, "_from_wheel", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "rclone"
    program.write_text(f"#!/bin/sh\necho 'rclone v{version}'\n")
    program.chmod(0o755)
    if usable:
        assert find_rclone() == program
    else:
        with pytest.raises(NotInstalled, match=r"clip-orchestrator\[local\]"):
            find_rclone()
