"""What the object store promises, on two servers that speak S3; and what it says when they do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from orchestrator.drivers import object_store
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.drivers.object_store_errors import ObjectMissingError, UploadLostError, translate
from orchestrator.drivers.part_upload import PresignedAddress
from orchestrator.drivers.patience import Patience
from orchestrator.drivers.stored_objects import (
    ObjectHead,
    ObjectLabels,
    UploadedPart,
    is_multipart_etag,
    may_hold,
    multipart_etag,
)
from orchestrator.local.bucket import BucketOptions, EmbeddedBucket

MIB = 1024 * 1024
PART = 5 * MIB
QUICK = Patience(attempts=3, first_wait_seconds=0.01, longest_wait_seconds=0.02)
BYTES = (os.urandom(PART), os.urandom(PART), os.urandom(1000))
SECRET = "very-secret-access"


@pytest.fixture(scope="module")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="access", aws_secret_access_key=SECRET, region_name="us-east-1"
    ).create_bucket(Bucket="clips")
    yield endpoint
    server.stop()


@pytest.fixture
async def rclone_endpoint(tmp_path) -> AsyncIterator[str]:
    async with EmbeddedBucket(tmp_path / "bucket", BucketOptions("access", SECRET, "clips")) as bucket:
        yield bucket.endpoint_url


def settings_for(endpoint: str) -> ObjectStoreSettings:
    return ObjectStoreSettings(endpoint, "access", SECRET, "clips", "https://media.example.com")


@pytest.fixture(params=["moto", "rclone"])
def settings(request) -> ObjectStoreSettings:
    return settings_for(request.getfixturevalue(f"{request.param}_endpoint"))


@pytest.fixture
def sent(monkeypatch) -> list[Any]:
    """The requests of every client built in the test, as they went out."""
    requests: list[Any] = []
    build = object_store.build_client

    def watched(settings, connections):
        client = build(settings, connections)
        client.meta.events.register("before-send.s3", lambda request, **_: requests.append(request))
        return client

    monkeypatch.setattr(object_store, "build_client", watched)
    return requests


@pytest.fixture
async def store(settings, sent) -> AsyncIterator[ObjectStore]:
    one = ObjectStore(settings, QUICK)
    yield one
    await one.close()


@pytest.fixture
def key() -> str:
    return f"videos/{uuid.uuid4().hex}.mp4"


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def uploaded(store: ObjectStore, key: str, upload_id: str) -> list[UploadedPart]:
    parts = []
    for number, data in enumerate(BYTES, 1):
        address = await store.presign_part(key, upload_id, number)
        etag = await store.put_part(address, pieces(data), len(data), stall_seconds=5)
        parts.append(UploadedPart(number, etag, len(data)))
    return parts


async def test_parts_become_an_object(store, key, sent):
    upload_id = await store.create_multipart(key, ObjectLabels(content_disposition="attachment"))
    parts = await uploaded(store, key, upload_id)
    assert await store.head(key) is None
    assert [part.etag for part in parts] == [hashlib.md5(data).hexdigest() for data in BYTES]  # noqa: S324

    await store.complete(key, upload_id, parts)

    head = await store.head(key)
    assert head is not None
    assert head.size_bytes == sum(map(len, BYTES))
    assert head.content_type == "video/mp4"
    assert may_hold(head, parts)
    assert await store.read_range(key, PART - 2, 4) == BYTES[0][-2:] + BYTES[1][:2]
    assert await store.read_range(key, 2 * PART + 990, 100) == BYTES[2][990:]

    await store.delete(key)
    await store.delete(key)
    assert await store.head(key) is None
    with pytest.raises(ObjectMissingError):
        await store.read_range(key, 0, 4)

    for request in sent:
        headers = {name.lower(): str(value) for name, value in request.headers.items()}
        assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm"} & set(headers)
        assert "chunked" not in headers.get("transfer-encoding", "") + headers.get("content-encoding", "")


async def test_complete_may_be_repeated(store, key):
    upload_id = await store.create_multipart(key, ObjectLabels())
    parts = await uploaded(store, key, upload_id)

    await store.complete(key, upload_id, parts)
    await store.complete(key, upload_id, parts)

    head = await store.head(key)
    assert head is not None
    assert head.size_bytes == sum(map(len, BYTES))


async def test_complete_of_nothing_is_not_done(store, key):
    with pytest.raises(TransientError):
        await store.complete(key, "no-such-upload", [UploadedPart(1, "0" * 32, 10)])


async def test_abort_may_be_repeated(store, key):
    upload_id = await store.create_multipart(key, ObjectLabels())
    await store.abort(key, upload_id)
    await store.abort(key, upload_id)

    assert await store.list_uploads(key) == []


async def test_unfinished_uploads_are_listed_with_their_beginning(store, key):
    upload_id = await store.create_multipart(key, ObjectLabels())
    await store.create_multipart("elsewhere/x.mp4", ObjectLabels())

    (found,) = [one for one in await store.list_uploads("videos/") if one.key == key]

    assert found.upload_id == upload_id
    assert found.started_at.tzinfo is not None
    if found.started_at.year > 2015:  # moto gives every upload the same old date
        assert abs(found.started_at - datetime.now(UTC)) < timedelta(minutes=5)


async def test_proxies_of_the_environment_are_not_asked(store, key, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    upload_id = await store.create_multipart(key, ObjectLabels())
    address = await store.presign_part(key, upload_id, 1)
    assert await store.put_part(address, pieces(b"x"), 1, stall_seconds=5)


async def test_wrong_keys_are_for_a_person_to_mend(rclone_endpoint, key):
    for wrong in ({"access_key_id": "nobody"}, {"secret_access_key": "guessed"}):
        store = ObjectStore(replace(settings_for(rclone_endpoint), **wrong), QUICK)
        with pytest.raises(PermanentError) as caught:
            await store.create_multipart(key, ObjectLabels())
        await store.close()
        assert caught.value.code == "store_refused"


async def test_a_missing_bucket_is_for_a_person_to_mend(rclone_endpoint, key):
    store = ObjectStore(replace(settings_for(rclone_endpoint), bucket="elsewhere"), QUICK)
    with pytest.raises(PermanentError) as caught:
        await store.create_multipart(key, ObjectLabels())
    await store.close()

    assert caught.value.code == "bucket_missing"


async def test_nobody_at_the_endpoint_is_passing(key):
    store = ObjectStore(settings_for("http://127.0.0.1:1"), QUICK)
    with pytest.raises(TransientError) as caught:
        await store.head(key)
    assert caught.value.code == "store_unreachable"

    with pytest.raises(TransientError) as caught:
        await store.put_part(PresignedAddress("http://127.0.0.1:1/?X-Amz-Signature=s"), pieces(b"x"), 1, 5)
    await store.close()
    assert caught.value.code == "store_unreachable"
    assert "Signature" not in f"{caught.value!r}{caught.value.__cause__!r}"


@contextlib.asynccontextmanager
async def raw_server(answer: bytes, reads: int = 65536) -> AsyncIterator[str]:
    """Answers every request with *answer* after reading some of it; with b"" it says nothing."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.read(reads)
            writer.write(answer)
            await writer.drain()
            await (writer.wait_closed() if not answer else reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ANSWERS = {
    "silence": (b"", TransientError, "store_stalled"),
    "refusal": (
        http("403 Forbidden", b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
        PermanentError,
        "store_refused",
    ),
    "no-such-upload": (
        http("404 Not Found", b"<Error><Code>NoSuchUpload</Code></Error>"),
        UploadLostError,
        "upload_unknown",
    ),
    "expired": (
        http("400 Bad Request", b"<Error><Code>ExpiredRequest</Code></Error>"),
        PermanentError,
        "store_refused",
    ),
    "busy": (http("503 Busy", b"<Error><Code>SlowDown</Code></Error>"), TransientError, "store_busy"),
    "plain-502": (http("502 Bad Gateway", b"<html>"), TransientError, "store_failing"),
    "no-etag": (http("200 OK"), TransientError, "store_failing"),
    "redirect": (http("307 Elsewhere", b"", "Location: http://127.0.0.1:1/"), PermanentError, "store_rejected"),
    "not-http": (b"SSH-2.0\r\n\r\n", TransientError, "store_unreachable"),
    "hangs-up": (http("200 OK", b"", "Connection: close")[:9], TransientError, None),
}


@pytest.mark.parametrize(("answer", "kind", "code"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers_to_a_part(answer, kind, code):
    """Large enough not to fit the socket's buffers, so an early answer meets a body still on its way."""
    store = ObjectStore(settings_for("http://127.0.0.1:1"), QUICK)
    async with raw_server(answer) as base:
        with pytest.raises(kind) as caught:
            await store.put_part(
                PresignedAddress(f"{base}/clips/x?X-Amz-Signature=s"), pieces(bytes(20 * MIB)), 20 * MIB, 0.3
            )
    await store.close()

    assert code in (None, caught.value.code)
    assert "Signature=" not in f"{caught.value!r}{caught.value.__cause__!r}"


async def test_a_slow_part_is_not_a_stalled_one():
    """Every piece that moves renews the limit; the whole takes several times as long."""

    async def slowly():
        for _ in range(6):
            await asyncio.sleep(0.1)
            yield b"x"

    store = ObjectStore(settings_for("http://127.0.0.1:1"), QUICK)

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(6)
        writer.write(http("200 OK", b"", 'ETag: "e"'))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    etag = await store.put_part(PresignedAddress(f"http://127.0.0.1:{port}/x"), slowly(), 6, stall_seconds=0.3)
    await store.close()
    server.close()

    assert etag == "e"


TABLE = [
    ("NoSuchUpload", 404, UploadLostError, "upload_unknown"),
    ("InvalidPart", 400, UploadLostError, "parts_refused"),
    ("EntityTooSmall", 400, UploadLostError, "parts_refused"),
    ("EntityTooLarge", 400, UploadLostError, "parts_refused"),
    ("NoSuchBucket", 404, PermanentError, "bucket_missing"),
    ("NoSuchKey", 404, ObjectMissingError, "object_missing"),
    ("", 404, ObjectMissingError, "object_missing"),
    ("InternalError", 500, TransientError, "store_failing"),
    ("ServiceUnavailable", 503, TransientError, "store_failing"),
    ("", 502, TransientError, "store_failing"),
    ("TooManyRequests", 429, TransientError, "store_busy"),
    ("", 429, TransientError, "store_busy"),
    ("SlowDown", 503, TransientError, "store_busy"),
    ("ClientDisconnect", 400, TransientError, "store_failing"),
    ("IncompleteBody", 400, TransientError, "store_failing"),
    ("BadDigest", 400, TransientError, "store_failing"),
    ("Unauthorized", 401, PermanentError, "store_refused"),
    ("AccessDenied", 403, PermanentError, "store_refused"),
    ("SignatureDoesNotMatch", 403, PermanentError, "store_refused"),
    ("NotEntitled", 403, PermanentError, "store_refused"),
    ("ExpiredRequest", 400, PermanentError, "store_refused"),
    ("ObjectLockedByBucketPolicy", 403, PermanentError, "store_refused"),
    ("", 403, PermanentError, "store_refused"),
    ("MetadataTooLarge", 400, PermanentError, "store_rejected"),
    ("InvalidRange", 416, PermanentError, "store_rejected"),
    ("NotImplemented", 501, TransientError, "store_failing"),
    ("SomethingNew", 400, PermanentError, "store_rejected"),
]


@pytest.mark.parametrize(("code", "status", "kind", "ours"), TABLE)
def test_every_code_of_the_store_has_a_meaning(code, status, kind, ours):
    failure = translate(code, status)

    assert type(failure) is kind
    assert failure.code == ours


@pytest.mark.parametrize(
    ("named", "waits"),
    [(None, 1.0), ("0", 0.0), ("7", 7.0), ("Sat, 21 Nov 2026 10:00:00 GMT", 1.0), ("-3", 1.0), ("nan", 1.0)],
)
def test_a_busy_store_is_left_alone_as_long_as_it_says(named, waits):
    failure = translate("TooManyRequests", 429, named)

    assert isinstance(failure, TransientError)
    assert failure.retry_after == waits


def test_the_etag_of_an_object_of_parts():
    """The vector of the provider's own description of multipart ETags, recomputed."""
    parts = [
        UploadedPart(1, "bce6bf66aeb76c7040fdd5f4eccb78e6", PART),
        UploadedPart(2, "8165449fc15bbf43d3b674595cbcc406", 1),
    ]

    assert multipart_etag(parts) == "f77dc0eecdebcd774a2a22cb393ad2ff-2"
    assert is_multipart_etag("f77dc0eecdebcd774a2a22cb393ad2ff-2")
    assert not is_multipart_etag("f77dc0eecdebcd774a2a22cb393ad2ff")

    size = PART + 1
    assert may_hold(ObjectHead(size, "f77dc0eecdebcd774a2a22cb393ad2ff-2", ""), parts)
    assert may_hold(ObjectHead(size, "f77dc0eecdebcd774a2a22cb393ad2ff", ""), parts)
    assert not may_hold(ObjectHead(size, "077dc0eecdebcd774a2a22cb393ad2ff-2", ""), parts)
    assert not may_hold(ObjectHead(size - 1, "f77dc0eecdebcd774a2a22cb393ad2ff-2", ""), parts)
    assert not may_hold(None, parts)


async def test_public_addresses_follow_the_key():
    base = settings_for("http://127.0.0.1:1")
    for public_url in ("https://media.example.com", "https://media.example.com/"):
        store = ObjectStore(replace(base, public_url=public_url))
        assert store.public_url("videos/a-2.mp4") == "https://media.example.com/videos/a-2.mp4"


def test_secrets_do_not_print():
    said = f"{settings_for('http://x')!r}{settings_for('http://x')}{PresignedAddress('https://x?sig=1')!r}"

    assert SECRET not in said
    assert "access_key_id" not in said
    assert "sig=1" not in said


def test_importing_the_driver_does_not_import_boto3():
    code = "import sys, orchestrator.transfer; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
