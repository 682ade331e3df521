"""The simulated bucket keeps R2's rules, also those that other stores do not."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from orchestrator.drivers import object_store
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from simulation.boto import boto_through
from simulation.bucket import BucketOptions, SimulatedBucket, refused
from simulation.faults import Answer, Broken, ReplyLost, Scripted

AUTHORIZED = {"Authorization": "AWS4-HMAC-SHA256 Credential=simulatedkey01/x", "Content-Length": "3"}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faults() -> Scripted:
    return Scripted()


@pytest.fixture
def bucket(clock: Clock, faults: Scripted) -> SimulatedBucket:
    return SimulatedBucket(clock, Random(1), faults, BucketOptions(part_least_bytes=3))  # noqa: S311 - chance to be repeated, no secret


def call(bucket: SimulatedBucket, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    return bucket.handle(method, f"http://bucket/clips/{path}", AUTHORIZED, body)


def begin(bucket: SimulatedBucket, key: str, *parts: bytes) -> str:
    call(bucket, "POST", f"{key}?uploads")
    upload_id = list(bucket.uploads)[-1]
    for number, part in enumerate(parts, 1):
        assert call(bucket, "PUT", f"{key}?partNumber={number}&uploadId={upload_id}", part)[0] == 200
    return upload_id


def complete(bucket: SimulatedBucket, key: str, upload_id: str, *parts: bytes) -> tuple[int, bytes]:
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{hashlib.md5(part).hexdigest()}&quot;</ETag></Part>"  # noqa: S324
        for number, part in enumerate(parts, 1)
    )
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    status, _, answer = call(bucket, "POST", f"{key}?uploadId={upload_id}", body)
    return status, answer


def test_an_object_is_its_parts_and_its_etag_tells(bucket):
    upload_id = begin(bucket, "a%20b.mp4", b"abc", b"def", b"g")

    assert complete(bucket, "a%20b.mp4", upload_id, b"abc", b"def", b"g")[0] == 200

    assert call(bucket, "GET", "a%20b.mp4")[2] == bucket.get("a b.mp4") == b"abcdefg"
    digests = b"".join(hashlib.md5(part).digest() for part in (b"abc", b"def", b"g"))  # noqa: S324
    assert bucket.objects["a b.mp4"].etag == f"{hashlib.md5(digests).hexdigest()}-3"  # noqa: S324
    assert bucket.unfinished() == []


@pytest.mark.parametrize(
    ("parts", "code"),
    [((b"abc", b"defg"), b"InvalidPart"), ((b"abc", b"de", b"f"), b"InvalidPart"), ((b"ab", b"c"), b"EntityTooSmall")],
)
def test_parts_of_unequal_sizes_are_refused_at_the_end(bucket, parts, code):
    upload_id = begin(bucket, "k", *parts)

    status, answer = complete(bucket, "k", upload_id, *parts)

    assert (status, code in answer) == (400, True)
    assert bucket.get("k") is None


def test_an_upload_ends_once(bucket):
    upload_id = begin(bucket, "k", b"abc")
    complete(bucket, "k", upload_id, b"abc")

    status, answer = complete(bucket, "k", upload_id, b"abc")

    assert (status, b"NoSuchUpload" in answer) == (404, True)


def test_a_key_is_written_once_a_second_and_the_last_wins(bucket, clock):
    first, second = begin(bucket, "k", b"abc"), begin(bucket, "k", b"xyz")
    assert complete(bucket, "k", first, b"abc")[0] == 200

    assert complete(bucket, "k", second, b"xyz")[0] == 429
    clock.now += timedelta(seconds=1)
    assert complete(bucket, "k", second, b"xyz")[0] == 200

    assert [stored.body for stored in bucket.history["k"]] == [b"abc", b"xyz"]


def test_an_upload_is_forgotten_after_a_week(bucket, clock):
    upload_id = begin(bucket, "k", b"abc")
    clock.now += timedelta(days=7, seconds=1)

    assert complete(bucket, "k", upload_id, b"abc")[0] == 404


def test_an_answer_is_lost_after_the_thing_was_done(bucket, faults):
    upload_id = begin(bucket, "k", b"abc")
    faults.once("complete", Broken(applied=True))

    with pytest.raises(ReplyLost):
        complete(bucket, "k", upload_id, b"abc")

    assert bucket.get("k") == b"abc"


def test_boto_sees_what_the_bucket_says(bucket, faults):
    settings = ObjectStoreSettings("http://bucket:80", "simulatedkey01", "secret", "clips", "https://media.example.com")
    began = [begin(bucket, f"videos/{number:04}", b"abc") for number in range(1_001)]
    took: list[float] = []
    with boto_through(bucket, took.append):
        client = object_store.build_client(settings, 4)
        pages = list(client.get_paginator("list_multipart_uploads").paginate(Bucket="clips", Prefix="videos/"))
        faults.once("head", Answer(refused(503, "SlowDown")))
        with pytest.raises(client.exceptions.ClientError, match="503"):
            client.head_object(Bucket="clips", Key="videos/0001")

    assert [len(page["Uploads"]) for page in pages] == [1_000, 1]
    assert {one["UploadId"] for page in pages for one in page["Uploads"]} == set(began)
    assert took == [0.01] * 3
