"""The copy as a whole: bytes in, bytes out, resumed after every kind of end."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from orchestrator.drivers.stored_objects import ObjectLabels
from orchestrator.transfer import TransferJob, TransferLimits, copy_to_bucket, object_key
from tests.orchestrator.transfer.conftest import MIB


async def test_copies_every_byte_and_says_so(origin, source, store, bucket, checkpoints, job, limits):
    reports = []

    result = await copy_to_bucket(job, source, store, checkpoints, reports.append, limits)

    assert bucket.get(job.key) == origin.body
    assert result.key == f"videos/{job.uid}.mp4"
    assert result.public_url == f"https://media.example.com/videos/{job.uid}.mp4"
    assert result.size_bytes == len(origin.body)
    assert result.sha256 == hashlib.sha256(origin.body).hexdigest()
    assert result.etag.endswith("-3")
    assert origin.sent_bytes == len(origin.body) + 16
    assert [one.bytes_done for one in reports] == sorted(one.bytes_done for one in reports)
    assert reports[-1].bytes_done == reports[-1].bytes_total == len(origin.body)
    assert sum(one.is_first_part_durable for one in reports) == 1


async def test_asks_for_parts_of_the_same_file_and_for_plain_bytes(origin, source, store, checkpoints, job, limits):
    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    probe, *parts = origin.asked
    assert "if-range" not in probe.headers
    assert {one.headers["if-range"] for one in parts} == {'"v1"'}
    assert {one.headers["accept-encoding"] for one in origin.asked} == {"identity"}


@pytest.mark.parametrize("etag", ['W/"weak"', "unquoted", None])
async def test_trusts_only_strong_etags(etag, origin, source, store, bucket, checkpoints, job, limits):
    origin.etag = etag
    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert not any("if-range" in one.headers for one in origin.asked)


async def test_labels_the_object_for_browsers(origin, source, store, bucket, checkpoints, job, limits):
    named = replace(job, labels=ObjectLabels(content_disposition="attachment; filename=clip.mp4"))
    await copy_to_bucket(named, source, store, checkpoints, lambda _: None, limits)

    head = bucket.head(job.key)
    assert head["ContentType"] == "video/mp4"
    assert head["CacheControl"] == "public, max-age=31536000, immutable"
    assert head["ContentDisposition"] == "attachment; filename=clip.mp4"


@pytest.mark.parametrize("uid", ["", "../x", "a/b", "a.b", "a b", "a\nb", "é", "x" * 65])
def test_a_uid_that_could_leave_its_place_is_refused(uid):
    with pytest.raises(ValueError, match="uid"):
        TransferJob("clip-1", uid, 1, "https://videodelivery.net/x")


def test_each_attempt_has_a_place_of_its_own():
    assert object_key("abc", 1) == "videos/abc.mp4"
    assert object_key("abc", 2) == "videos/abc-2.mp4"
    with pytest.raises(ValueError, match="attempts"):
        object_key("abc", 0)


def test_the_address_of_the_source_does_not_print():
    job = TransferJob("clip-1", "abc", 1, "https://videodelivery.net/secret-token/x")

    assert "secret" not in f"{job!r}{job}"


def test_parts_below_the_stores_minimum_are_refused():
    with pytest.raises(ValueError, match="5 MiB"):
        TransferLimits(part_floor_bytes=5 * MIB - 1)
