"""Faults of the object store over real connections: outlived when they pass, given back when they stay.

One of each sort; the lane *bucket* lets every call meet every one of them.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.drivers.stored_objects import UploadedPart
from orchestrator.transfer import copy_to_bucket, sweep_orphans
from orchestrator.transfer.checkpoints import StoredObject
from tests.orchestrator.transfer.conftest import PART, Drop, First, Hang, Refuse, Rewrite, Then, movie

PASSING = {
    "503": Refuse(503, "ServiceUnavailable"),
    "429": Refuse(429, "TooManyRequests", {"Retry-After": "0"}),
    "connection-lost-before": Drop(),
    "connection-lost-after": Drop(after=True),
}
PLACES = {
    "create": ("create", []),
    "first-part": ("part", []),
    "last-part": ("part", [None, None]),
    "complete": ("complete", []),
    "head": ("head", []),
}


@pytest.mark.parametrize("code", ["ClientDisconnect", "IncompleteBody", "BadDigest", "RequestTimeout"])
async def test_a_part_that_broke_on_the_wire_is_sent_again(
    code, origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.faults["part"] = [Refuse(400, code)]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
@pytest.mark.parametrize(("operation", "good_before"), PLACES.values(), ids=PLACES.keys())
async def test_a_passing_fault_is_outlived(
    fault, operation, good_before, origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.faults[operation] = [*good_before, fault]

    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert result.size_bytes == len(origin.body)
    await sweep_orphans(store, checkpoints, timedelta(0))
    assert bucket.uploads(job.key) == []


@pytest.mark.parametrize(
    "fault", [Refuse(503, "ServiceUnavailable"), Drop(), Drop(after=True)], ids=["503", "lost", "lost-after"]
)
@pytest.mark.parametrize("operation", ["create", "part", "complete", "head", "get"])
async def test_a_lasting_fault_is_given_back_and_heals(
    fault, operation, origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.always[operation] = fault

    if (operation, fault) == ("complete", Drop(after=True)):
        # The object is there although no answer ever said so.
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    else:
        with pytest.raises(TransientError):
            await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
        assert all(row.finished is None for row in checkpoints.rows.values())

    r2.always.clear()
    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert checkpoints.rows["clip-1", 1].finished is not None


async def test_a_busy_key_is_left_alone_for_a_second(origin, source, store, r2, bucket, checkpoints, job, limits):
    loop = asyncio.get_running_loop()
    at = []
    r2.faults["complete"] = [Refuse(429, "TooManyRequests"), First(lambda: at.append(loop.time()))]
    r2.faults["part"] = [None, None, First(lambda: at.append(loop.time()))]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert at[1] - at[0] >= 1.0


ANSWERED_WITH_AN_ERROR = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>again</Message></Error>'


@pytest.mark.parametrize(
    "fault",
    [Drop(after=True), Rewrite(body=ANSWERED_WITH_AN_ERROR), Refuse(200, "InternalError")],
    ids=["answer-lost", "done-but-200-with-error", "not-done-and-200-with-error"],
)
async def test_completes_once_whatever_the_answer_to_complete(
    fault, origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.faults["complete"] = [fault]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("part") == 3
    assert "abort" not in r2.calls


@pytest.mark.parametrize("place", ["part", "complete"])
async def test_an_upload_that_the_store_dropped_is_begun_again(
    place, origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.faults[place] = [First(r2.forget_uploads)] if place == "complete" else [None, First(r2.forget_uploads)]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("create") == 2


async def test_parts_refused_as_a_set_are_sent_afresh(origin, source, store, r2, bucket, checkpoints, job, limits):
    r2.faults["complete"] = [Refuse(400, "InvalidPart")]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("create") == 2


async def test_a_part_that_arrived_as_other_bytes_is_sent_again(
    origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.faults["part"] = [None, Rewrite(etag='"0123456789abcdef0123456789abcdef"')]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("part") == 4


async def test_parts_that_never_arrive_as_sent_are_given_back(
    origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.always["part"] = Rewrite(etag='"0123456789abcdef0123456789abcdef"')

    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "part_differs"
    assert checkpoints.recorded == []


async def test_an_object_of_other_bytes_is_removed(origin, source, store, r2, bucket, checkpoints, job, limits):
    r2.always["head"] = Rewrite(etag='"0123456789abcdef0123456789abcdef-3"')

    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "object_etag_differs"
    assert bucket.get(job.key) is None
    assert checkpoints.rows == {}


async def test_a_store_with_etags_of_its_own_is_read_back(origin, source, store, r2, bucket, checkpoints, job, limits):
    """rclone, for one, answers HEAD with the MD5 of the whole object, which says nothing of parts."""
    r2.always["head"] = Rewrite(etag='"0123456789abcdef0123456789abcdef"')
    r2.faults["complete"] = [Then(lambda: bucket.put(job.key, origin.body[:-1] + b"x"))]
    origin.body = origin.body[:-1] + b"y"

    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    assert caught.value.code == "object_etag_differs"
    assert bucket.get(job.key) is None

    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    assert bucket.get(job.key) == origin.body
    assert result.etag == "0123456789abcdef0123456789abcdef"

    assert replace(
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits), sha256=None
    ) == replace(result, sha256=None)


async def test_an_object_that_another_finished_is_not_removed(
    origin, source, store, r2, bucket, checkpoints, job, limits
):
    """A late writer finds something else at the key: it is the result of whoever took over."""
    others = movie(1000)

    def somebody_else_finishes():
        row = checkpoints.rows["clip-1", 1]
        bucket.put(job.key, others)
        checkpoints.rows["clip-1", 1] = replace(row, upload_id="theirs", finished=StoredObject(len(others), "x"))

    r2.faults["head"] = [First(somebody_else_finishes)]
    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "object_size_differs"
    assert bucket.get(job.key) == others
    assert checkpoints.rows["clip-1", 1].upload_id == "theirs"


async def test_a_store_that_takes_a_part_and_says_nothing(origin, source, store, r2, bucket, checkpoints, job, limits):
    r2.faults["part"] = [Hang()]

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, replace(limits, stall_seconds=0.5))

    assert bucket.get(job.key) == origin.body


REFUSALS = {
    "create-wrong-key": ("create", Refuse(403, "SignatureDoesNotMatch")),
    "create-without-rights": ("create", Refuse(401, "Unauthorized")),
    "part-expired": ("part", Refuse(400, "ExpiredRequest")),
    "part-key-withdrawn": ("part", Refuse(403, "AccessDenied")),
    "complete-key-withdrawn": ("complete", Refuse(403, "AccessDenied")),
    "head-key-withdrawn": ("head", Refuse(403)),
}


@pytest.mark.parametrize(("operation", "refusal"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_refused_keys_are_for_a_person_to_mend(
    operation, refusal, origin, source, store, r2, bucket, checkpoints, job, limits
):
    r2.faults[operation] = [refusal]

    with pytest.raises(PermanentError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "store_refused"
    assert bucket.uploads(job.key) == []
    assert checkpoints.rows == {}


async def test_two_copies_of_one_clip_at_once_end_as_one(origin, source, store, r2, bucket, checkpoints, job, limits):
    async def copy():
        return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    async def copy_as_the_engine_does():
        try:
            return await copy()
        except TransientError as problem:
            if problem.code != "transfer_superseded":
                raise
            # The other one had finished before this one could note a part: the next try finds what that has made.
            return await copy()

    first, second = await asyncio.gather(copy_as_the_engine_does(), copy_as_the_engine_does())

    assert (first.key, first.etag, first.size_bytes) == (second.key, second.etag, second.size_bytes)
    assert bucket.get(job.key) == origin.body
    assert bucket.uploads(job.key) == []


@pytest.mark.parametrize("place", ["part", "complete"])
@pytest.mark.parametrize("has_length", [True, False], ids=["length-known", "length-hidden"])
async def test_a_copy_that_another_completes_first_is_taken_over(
    place, has_length, origin, source, store, r2, bucket, checkpoints, job, limits
):
    """The upload is lost to the slower of two because the faster one has completed but not recorded it yet."""

    async def without_length(asked):
        await asked.head("200 OK", Content_Type="video/mp4", Connection="close")
        await asked.send(origin.body)
        return True

    def complete_elsewhere():
        row = checkpoints.rows["clip-1", 1]
        for number, start in enumerate(range(0, len(origin.body), PART), 1):
            data = origin.body[start : start + PART]
            bucket.put_part(job.key, row.upload_id, number, data)
            row = row.with_part(UploadedPart(number, hashlib.md5(data).hexdigest(), len(data)))  # noqa: S324
        bucket.complete(job.key, row.upload_id, row.parts)
        checkpoints.rows["clip-1", 1] = row
        r2.forget_uploads()

    if not has_length:
        origin.behave = without_length
    r2.faults[place] = [*([None] if place == "part" else []), First(complete_elsewhere)]

    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert result.size_bytes == len(origin.body)
    assert r2.calls.count("create") == 1
    assert checkpoints.rows["clip-1", 1].finished is not None


async def test_no_address_of_a_part_leaves_the_driver(
    origin, source, store, r2, checkpoints, job, limits, caplog, capsys
):
    r2.always["part"] = Drop()
    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    said = f"{caught.value!r}{caught.value.__cause__!r}{caplog.text}{capsys.readouterr()}"
    assert "X-Amz-Signature" not in said.replace("werkzeug", "")
    assert "secret-token" not in said
