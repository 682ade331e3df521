"""Ended anywhere, a copy goes on where it stood: nothing is read twice but the part that was on its way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import replace

import pytest

from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.drivers.stored_objects import ObjectLabels, UploadedPart
from orchestrator.transfer import abandon, copy_to_bucket
from orchestrator.transfer.checkpoints import Checkpoint
from tests.orchestrator.transfer.conftest import MIB, PART, Drop, First, Refuse, Then, movie

PROBE = 16


class Crash(BaseException):
    """Ends a run the way a kill does: nothing of the code under test may handle it."""


class CrashingCheckpoints:
    """Checkpoints that end the run before or after their nth write."""

    def __init__(self, inner, at, is_after):
        self._inner, self._left, self._is_after = inner, at, is_after

    def __getattr__(self, name):
        call = getattr(self._inner, name)

        async def counted(*arguments):
            self._left -= 1
            if self._left == 0 and not self._is_after:
                raise Crash
            result = await call(*arguments)
            if self._left == 0:
                raise Crash
            return result

        return counted


async def crash_at_request(copy, r2, number, is_after):
    """Run *copy* and cancel it for good at the bucket's request *number*, before or after its effect."""
    task = asyncio.ensure_future(copy())
    seen = 0

    def count(_operation):
        nonlocal seen
        seen += 1
        return (Then(task.cancel) if is_after else First(task.cancel)) if seen == number else None

    r2.script = count
    with contextlib.suppress(asyncio.CancelledError):
        await task
    r2.script = None
    return seen >= number


@pytest.mark.parametrize("is_after", [False, True], ids=["before-effect", "after-effect"])
@pytest.mark.parametrize("number", range(1, 9))
async def test_a_crash_at_any_request_to_the_bucket(
    number, is_after, origin, source, store, r2, bucket, checkpoints, job, limits
):
    async def copy():
        return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    # create, three parts, complete, head, and the reads of the structure
    crashed = await crash_at_request(copy, r2, number, is_after)
    await copy()

    assert crashed or number > 7
    assert bucket.get(job.key) == origin.body
    assert origin.sent_bytes <= len(origin.body) + PART + 2 * PROBE


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 8))
async def test_a_crash_at_any_checkpoint(number, is_after, origin, source, store, bucket, checkpoints, job, limits):
    # unfinished, load, begin, three parts, finish
    with pytest.raises(Crash):
        await copy_to_bucket(
            job, source, store, CrashingCheckpoints(checkpoints, number, is_after), lambda _: None, limits
        )
    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert result.size_bytes == len(origin.body)
    assert origin.sent_bytes <= len(origin.body) + PART + 2 * PROBE


@pytest.mark.parametrize("at_byte", [0, 1, PART // 2, PART - 1])
async def test_a_cancel_inside_a_part_keeps_what_is_durable(
    at_byte, origin, source, store, r2, bucket, checkpoints, job, limits
):
    reached = asyncio.Event()

    async def stop_in_the_second_part(asked):
        if asked.span and asked.span[0] == PART:
            span = f"bytes {asked.span[0]}-{asked.span[1]}/{len(origin.body)}"
            await asked.head(
                "206 Partial Content", Content_Length=str(PART), Content_Range=span, Content_Type="video/mp4"
            )
            await asked.send(origin.body[PART : PART + at_byte])
            reached.set()
            await asked.writer.wait_closed()
            return True
        return None

    origin.behave = stop_in_the_second_part
    task = asyncio.ensure_future(copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert "abort" not in r2.calls
    assert [part.number for part in checkpoints.rows["clip-1", 1].parts] == [1]

    origin.behave = None
    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert result.sha256 is None
    assert r2.calls.count("create") == 1
    assert origin.sent_bytes == len(origin.body) + at_byte + 2 * PROBE


async def test_tells_at_once_what_the_bucket_holds_already(origin, source, store, r2, checkpoints, job, limits):
    r2.faults["part"] = [None, *[Refuse(503)] * 4]
    with pytest.raises(TransientError):
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    reports = []
    await copy_to_bucket(job, source, store, checkpoints, reports.append, limits)

    assert reports[0].bytes_done == PART
    assert [one.is_first_part_durable for one in reports].count(True) == 1
    assert reports[0].is_first_part_durable


async def test_a_finished_copy_is_not_read_again(origin, source, store, r2, bucket, checkpoints, job, limits):
    first = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    asked, calls = len(origin.asked), len(r2.calls)

    second = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert replace(second, sha256=first.sha256) == first
    assert len(origin.asked) == asked
    assert r2.calls[calls:] == ["head"]


@pytest.mark.parametrize("what", ["gone", "replaced"])
async def test_a_finished_copy_that_is_not_there_any_more_is_made_again(
    what, origin, source, store, bucket, checkpoints, job, limits
):
    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    bucket.delete(job.key) if what == "gone" else bucket.put(job.key, b"other")

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body


async def test_whole_but_unfinished_needs_no_source(origin, source, store, r2, bucket, checkpoints, job, limits):
    """All parts are durable, Complete was never heard of: the provider may have deleted the file meanwhile."""
    r2.always["complete"] = Refuse(503)
    with pytest.raises(TransientError):
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    r2.always.clear()
    asked = len(origin.asked)

    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert len(origin.asked) == asked


async def begun(copy, r2):
    """Leave a copy with one durable part."""
    r2.faults["part"] = [None, *[Drop()] * 4]
    with pytest.raises(TransientError):
        await copy()


@pytest.mark.parametrize("difference", ["etag", "size", "date-without-etag"])
async def test_another_file_is_begun_afresh(difference, origin, source, store, r2, bucket, checkpoints, job, limits):
    async def dated(asked):
        if difference == "date-without-etag" and asked.is_probe:
            span = f"bytes 0-15/{len(origin.body)}"
            date = f"Sat, 2{len(origin.asked) % 9} Nov 2026 10:00:00 GMT"
            await asked.head("206 OK", Content_Length="16", Content_Range=span, Last_Modified=date)
            await asked.send(origin.body[:16])
            return True
        return None

    if difference == "date-without-etag":
        origin.etag = None
    origin.behave = dated

    async def copy():
        return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    await begun(copy, r2)
    origin.body = movie(2 * PART + (70_000 if difference != "size" else 60_000))
    origin.etag = '"v2"' if difference == "etag" else origin.etag

    await copy()

    assert bucket.get(job.key) == origin.body
    assert bucket.uploads(job.key) == []


async def test_an_upload_that_expired_meanwhile_is_begun_afresh(
    origin, source, store, r2, bucket, checkpoints, job, limits
):
    async def copy():
        return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    await begun(copy, r2)
    r2.forget_uploads()

    await copy()

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("create") == 2


async def test_a_new_attempt_gives_up_the_old_one(origin, source, store, r2, bucket, checkpoints, job, limits):
    async def copy(attempt=1):
        return await copy_to_bucket(replace(job, attempt=attempt), source, store, checkpoints, lambda _: None, limits)

    await begun(copy, r2)

    result = await copy(attempt=2)

    assert result.key == f"videos/{job.uid}-2.mp4"
    assert bucket.get(result.key) == origin.body
    assert bucket.uploads(job.key) == []
    assert set(checkpoints.rows) == {("clip-1", 2)}


async def test_a_late_old_attempt_does_nothing(origin, source, store, r2, bucket, checkpoints, job, limits):
    second = replace(job, attempt=2)
    await copy_to_bucket(second, source, store, checkpoints, lambda _: None, limits)

    with pytest.raises(PermanentError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "attempt_superseded"
    assert bucket.get(job.key) is None
    assert bucket.uploads(job.key) == []
    assert checkpoints.rows["clip-1", 2].finished is not None


@pytest.mark.parametrize(("place", "parts_sent"), [("part", 2), ("head", 3)], ids=["while-copying", "at-the-end"])
async def test_a_writer_that_was_replaced_stops(
    place, parts_sent, origin, source, store, r2, bucket, checkpoints, job, limits
):
    def somebody_else_begins():
        row = checkpoints.rows["clip-1", 1]
        checkpoints.rows["clip-1", 1] = replace(row, upload_id="theirs", parts=())

    r2.faults[place] = [*([None] if place == "part" else []), First(somebody_else_begins)]
    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "transfer_superseded"
    assert r2.calls.count("part") == parts_sent
    assert checkpoints.rows["clip-1", 1].upload_id == "theirs"
    assert checkpoints.rows["clip-1", 1].finished is None


async def test_an_abandoned_clip_leaves_no_upload(origin, source, store, r2, bucket, checkpoints, job, limits):
    async def copy():
        return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    await begun(copy, r2)

    await abandon(store, checkpoints, "clip-1", 1)
    await abandon(store, checkpoints, "clip-1", 1)

    assert bucket.uploads(job.key) == []
    assert checkpoints.rows == {}


async def test_a_refused_token_keeps_what_is_there(origin, source, store, r2, bucket, checkpoints, job, limits):
    """The token in the address ran out half-way; with a fresh one the copy goes on."""

    async def run_out(asked):
        if asked.span and asked.span[0] == PART:
            await asked.head("401 Unauthorized", Content_Length="0")
            return True
        return None

    origin.behave = run_out
    with pytest.raises(PermanentError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
    assert caught.value.code == "source_forbidden"

    origin.behave = None
    fresh = replace(job, source_url=origin.url.replace("secret-token", "fresh-token"))
    await copy_to_bucket(fresh, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("create") == 1


async def test_the_deadline_leaves_a_checkpoint(origin, source, store, r2, bucket, checkpoints, job, limits):
    async def slow(asked):
        if asked.span and asked.span[0] == PART:
            await asked.writer.wait_closed()
        return None

    origin.behave = slow
    source_is_patient = replace(limits, deadline_seconds=0.2 + 0.0)
    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, source_is_patient)

    assert caught.value.code == "transfer_deadline"
    assert "abort" not in r2.calls


class TestWithoutRanges:
    """The host sends only whole files: everything is read again, nothing is sent again."""

    @pytest.fixture(autouse=True)
    def without_ranges(self, origin):
        origin.has_ranges = False

    @pytest.fixture(params=["with-length", "chunked", "until-closed"])
    def framing(self, request, origin):
        async def chunked(asked):
            await asked.head("200 OK", Content_Type="video/mp4", Transfer_Encoding="chunked")
            for start in range(0, len(origin.body), MIB):
                piece = origin.body[start : start + MIB]
                asked.writer.write(f"{len(piece):x}\r\n".encode())
                await asked.send(piece)
                asked.writer.write(b"\r\n")
            asked.writer.write(b"0\r\n\r\n")
            await asked.writer.drain()
            return True

        async def until_closed(asked):
            await asked.head("200 OK", Content_Type="video/mp4", Connection="close")
            await asked.send(origin.body)
            return True

        origin.behave = {"with-length": None, "chunked": chunked, "until-closed": until_closed}[request.param]
        return request.param

    async def test_copies_every_byte(self, framing, origin, source, store, bucket, checkpoints, job, limits):
        reports = []
        result = await copy_to_bucket(job, source, store, checkpoints, reports.append, limits)

        assert bucket.get(job.key) == origin.body
        assert result.sha256 is not None
        assert reports[-1].bytes_done == len(origin.body)
        assert reports[-1].bytes_total == (len(origin.body) if framing == "with-length" else None)

    @pytest.mark.parametrize("mdat_bytes", [1000, PART - 1000, 2 * PART - 156, 2 * PART])
    async def test_copies_files_of_every_length(
        self, framing, mdat_bytes, origin, source, store, bucket, checkpoints, job, limits
    ):
        origin.body = movie(mdat_bytes)
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

        assert bucket.get(job.key) == origin.body

    async def test_resumes_by_comparing(self, framing, origin, source, store, r2, bucket, checkpoints, job, limits):
        async def copy():
            return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

        await begun(copy, r2)
        sent = r2.calls.count("part")
        await copy()

        assert bucket.get(job.key) == origin.body
        assert r2.calls.count("part") - sent == 2

    async def test_notices_another_file_by_its_bytes(
        self, framing, origin, source, store, r2, bucket, checkpoints, job, limits
    ):
        async def copy():
            return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

        await begun(copy, r2)
        origin.body = movie(2 * PART + 70_000)  # same length, same ETag, other bytes
        await copy()

        assert bucket.get(job.key) == origin.body

    async def test_notices_a_shorter_file(self, framing, origin, source, store, r2, bucket, checkpoints, job, limits):
        async def copy():
            return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

        await begun(copy, r2)
        origin.body = movie(1000)
        await copy()

        assert bucket.get(job.key) == origin.body

    async def test_is_not_misled_by_another_object_at_its_place(
        self, framing, origin, source, store, r2, bucket, checkpoints, job, limits
    ):
        async def copy():
            return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

        await begun(copy, r2)
        other = await store.create_multipart(job.key, ObjectLabels())
        bucket.put_part(job.key, other, 1, b"left behind by somebody")
        bucket.complete(job.key, other, [UploadedPart(1, hashlib.md5(b"left behind by somebody").hexdigest(), 23)])  # noqa: S324
        await copy()

        assert bucket.get(job.key) == origin.body

    async def test_notices_a_file_that_ends_where_a_part_ends(
        self, origin, source, store, r2, bucket, checkpoints, job, limits
    ):
        async def until_closed(asked):
            await asked.head("200 OK", Content_Type="video/mp4", Connection="close")
            await asked.send(origin.body)
            return True

        origin.behave = until_closed
        r2.faults["part"] = [None, None, *[Drop()] * 4]
        with pytest.raises(TransientError):
            await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
        assert len(checkpoints.rows["clip-1", 1].parts) == 2

        whole, origin.body = origin.body, origin.body[:PART]
        with pytest.raises(TransientError) as caught:
            await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
        assert caught.value.code == "object_cut"
        assert r2.calls.count("create") == 2

        origin.body = whole
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)
        assert bucket.get(job.key) == whole

    @pytest.mark.parametrize("number", [5, 6, 7])
    async def test_a_crash_around_complete(
        self, number, framing, origin, source, store, r2, bucket, checkpoints, job, limits
    ):
        async def copy():
            return await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

        await crash_at_request(copy, r2, number, is_after=True)
        await copy()

        assert bucket.get(job.key) == origin.body
        assert r2.calls.count("part") == 3


async def test_ranges_that_stop_working_half_way(origin, source, store, r2, bucket, checkpoints, job, limits):
    async def lose_ranges(asked):
        if asked.span and asked.span[0] == PART:
            origin.has_ranges = False

    origin.behave = lose_ranges
    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert r2.calls.count("part") == 3
    assert result.sha256 is not None


def test_a_checkpoint_keeps_its_parts_in_order():
    checkpoint = Checkpoint("c", 1, "k", "u", PART, 3 * PART, None, None)
    for number in (2, 1, 3, 2):
        checkpoint = checkpoint.with_part(UploadedPart(number, "0" * 32, PART))

    assert [part.number for part in checkpoint.parts] == [1, 2, 3]
    assert checkpoint.is_whole
