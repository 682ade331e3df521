"""Every bad body a delivery host can send: named, never taken for a whole file, and forgotten once the host is well."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace

import pytest

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.transfer import copy_to_bucket
from tests.orchestrator.transfer.conftest import MIB, PART, movie

MP4 = {"Content_Type": "video/mp4"}


async def whole(asked, data, **headers):
    """A 200 with *data*, whatever was asked for; the connection ends with it."""
    await asked.head("200 OK", **{**MP4, "Connection": "close", **headers})
    await asked.send(data)
    return True


def on_parts(answer):
    """Misbehave on parts only; the first look at the file is answered well."""

    async def behave(asked):
        return None if asked.is_probe else await answer(asked)

    return behave


async def cut_part(asked):
    span = f"bytes {asked.span[0]}-{asked.span[1]}/{len(asked.origin.body)}"
    length = asked.span[1] - asked.span[0] + 1
    await asked.head("206 Partial Content", Content_Length=str(length), Content_Range=span, ETag='"v1"', **MP4)
    await asked.send(asked.origin.body[asked.span[0] : asked.span[0] + length // 2])
    return True


def reset_part(at):
    async def behave(asked):
        first, last = asked.span
        span = f"bytes {first}-{last}/{len(asked.origin.body)}"
        length = last - first + 1
        if at == 0:
            asked.reset()
            return True
        await asked.head("206 Partial Content", Content_Length=str(length), Content_Range=span, ETag='"v1"', **MP4)
        await asked.send(asked.origin.body[first : first + (at if at > 0 else length + at)])
        asked.reset()
        return True

    return behave


async def short_part(asked):
    first, last = asked.span[0], asked.span[1] - 1
    span = f"bytes {first}-{last}/{len(asked.origin.body)}"
    await asked.head("206 Partial Content", Content_Length=str(last - first + 1), Content_Range=span, **MP4)
    await asked.send(asked.origin.body[first : last + 1])
    return True


async def long_part(asked):
    first, last = asked.span
    span = f"bytes {first}-{last}/{len(asked.origin.body)}"
    await asked.head("206 Partial Content", Transfer_Encoding="chunked", Content_Range=span, **MP4)
    for piece in (asked.origin.body[first : last + 1], b"more"):
        asked.writer.write(f"{len(piece):x}\r\n".encode())
        await asked.send(piece)
        asked.writer.write(b"\r\n")
    asked.writer.write(b"0\r\n\r\n")
    await asked.writer.drain()
    return True


async def short_chunked_part(asked):
    first, last = asked.span
    span = f"bytes {first}-{last}/{len(asked.origin.body)}"
    await asked.head("206 Partial Content", Transfer_Encoding="chunked", Content_Range=span, **MP4)
    asked.writer.write(b"3e8\r\n")
    await asked.send(asked.origin.body[first : first + 1000])
    asked.writer.write(b"\r\n0\r\n\r\n")
    await asked.writer.drain()
    return True


async def stalled_part(asked):
    first, last = asked.span
    span = f"bytes {first}-{last}/{len(asked.origin.body)}"
    await asked.head("206 Partial Content", Content_Length=str(last - first + 1), Content_Range=span, **MP4)
    await asked.send(asked.origin.body[first : first + 1000])
    await asked.writer.wait_closed()
    return True


async def gzipped(asked):
    return await whole(asked, gzip.compress(asked.origin.body[:MIB], 1), Content_Encoding="gzip")


async def gzipped_part(asked):
    first, last = asked.span
    span = f"bytes {first}-{last}/{len(asked.origin.body)}"
    await asked.head("206 Partial Content", Content_Encoding="gzip", Content_Range=span, **MP4)
    return True


async def html(asked):
    return await whole(asked, b"<html>Not here</html>", Content_Type="text/html; charset=utf-8")


async def html_called_video(asked):
    return await whole(asked, b"<html>Not here</html>", Content_Length="21")


async def empty_with_length(asked):
    return await whole(asked, b"", Content_Length="0")


async def empty_range(asked):
    await asked.head("416 Range Not Satisfiable", Content_Range="bytes */0", Content_Length="0")
    return True


async def half_file_as_if_whole(asked):
    """The host itself holds half a file, and says nothing wrong about it."""
    if asked.number == 1:
        asked.origin.body = asked.origin.body[: len(asked.origin.body) // 2]


async def half_file_without_length(asked):
    return await whole(asked, asked.origin.body[: PART + 100])


async def head_without_media_without_length(asked):
    return await whole(asked, asked.origin.body[: asked.origin.body.index(b"mdat") - 4])


async def open_ended_without_length(asked):
    """The media box names no size and neither does the answer: nothing could tell a cut."""
    start = asked.origin.body.index(b"mdat") - 4
    return await whole(asked, asked.origin.body[:start] + bytes(4) + asked.origin.body[start + 4 : PART + 100])


async def whole_file_cut_short_of_its_length(asked):
    return await whole(asked, asked.origin.body[: PART + 100], Content_Length=str(len(asked.origin.body)))


async def range_without_a_range(asked):
    await asked.head("206 Partial Content", Content_Length="16", **MP4)
    return True


def status(line, **headers):
    async def behave(asked):
        await asked.head(line, Content_Length="0", **headers)
        return True

    return behave


BAD = {
    "part-cut": (on_parts(cut_part), "source_cut"),
    "part-reset-at-byte-0": (on_parts(reset_part(0)), "source_unreachable"),
    "part-reset-at-last-byte": (on_parts(reset_part(-1)), "source_cut"),
    "part-shorter-than-asked": (on_parts(short_part), "source_range_wrong"),
    "part-longer-than-asked": (on_parts(long_part), "source_longer"),
    "part-ends-early-in-good-order": (on_parts(short_chunked_part), "source_cut"),
    "part-stalls": (on_parts(stalled_part), "source_stalled"),
    "part-gzipped": (on_parts(gzipped_part), "source_encoded"),
    "html": (html, "source_not_mp4"),
    "html-called-video": (html_called_video, "source_not_mp4"),
    "empty-with-length": (empty_with_length, "source_empty"),
    "empty-by-416": (empty_range, "source_empty"),
    "half-a-file-as-if-whole": (half_file_as_if_whole, "object_cut"),
    "half-a-file-without-length": (half_file_without_length, "object_cut"),
    "cut-between-boxes-without-length": (head_without_media_without_length, "object_incomplete"),
    "open-ended-without-length": (open_ended_without_length, "object_incomplete"),
    "whole-file-cut-short": (whole_file_cut_short_of_its_length, "source_cut"),
    "range-unnamed": (range_without_a_range, "source_range_wrong"),
    "not-yet-there-404": (status("404 Not Found"), "mp4_not_yet_there"),
    "busy": (status("429 Too Many Requests", Retry_After="300"), "source_failing"),
    "failing": (status("500 Internal Server Error"), "source_failing"),
    "redirect-to-nowhere": (status("302 Found"), "source_redirects"),
    "redirect-off-the-list": (status("302 Found", Location="https://example.com/x"), "source_address_not_allowed"),
    "redirect-without-end": (status("307 Temporary Redirect", Location="/again"), "source_redirects"),
    "forbidden": (status("403 Forbidden"), "source_forbidden"),
}
PERMANENT = {"source_address_not_allowed", "source_redirects", "source_forbidden", "source_refused"}


@pytest.fixture(autouse=True)
def two_parts(origin):
    """Enough to have a part that is not the last."""
    origin.body = movie(PART + 70_000)


@pytest.mark.parametrize(("behave", "code"), BAD.values(), ids=BAD.keys())
async def test_is_never_complete_and_heals(behave, code, origin, source, store, bucket, checkpoints, job, limits):
    good = origin.body
    origin.behave = behave

    with pytest.raises(DriverError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == code
    assert isinstance(caught.value, PermanentError if code in PERMANENT else TransientError)
    assert "secret-token" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert bucket.get(job.key) is None
    assert all(row.finished is None for row in checkpoints.rows.values())

    origin.behave, origin.body = None, good
    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == good
    assert result.size_bytes == len(good)
    assert bucket.uploads(job.key) == []


async def test_waits_as_long_as_the_host_asks(origin, source, store, checkpoints, job, limits):
    origin.behave = status("429 Too Many Requests", Retry_After="300")

    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.retry_after == 300


async def test_an_endless_body_ends_at_the_cap(origin, source, store, bucket, checkpoints, job, limits):
    async def endless(asked):
        await asked.head("200 OK", **MP4, Connection="close")
        await asked.send(origin.body[:MIB])
        while not asked.writer.is_closing():
            await asked.send(bytes(65536))

    origin.behave = endless
    with pytest.raises(PermanentError) as caught:
        await copy_to_bucket(replace(job, max_bytes=7 * MIB), source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "source_too_large"
    assert bucket.uploads(job.key) == []
    assert checkpoints.rows == {}


async def test_a_file_that_names_too_many_bytes_is_not_begun(origin, source, store, r2, checkpoints, job, limits):
    with pytest.raises(PermanentError) as caught:
        await copy_to_bucket(replace(job, max_bytes=MIB), source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "source_too_large"
    assert r2.calls == []


@pytest.mark.parametrize("is_same_size", [True, False], ids=["same-size-new-etag", "other-size"])
async def test_a_file_that_changes_between_parts_is_copied_afresh(
    is_same_size, origin, source, store, bucket, checkpoints, job, limits
):
    old = origin.body
    new = old[:-1000] + bytes(1000) if is_same_size else old + struct.pack(">I4s", 108, b"free") + bytes(100)

    async def change_after_the_first_part(asked):
        if asked.span and asked.span[0] >= PART and origin.body is old:
            origin.body, origin.etag = new, '"v2"' if is_same_size else origin.etag

    origin.behave = change_after_the_first_part
    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == new
    assert result.size_bytes == len(new)
    assert bucket.uploads(job.key) == []


async def test_a_file_that_keeps_changing_is_given_back(origin, source, store, bucket, checkpoints, job, limits):
    async def another_etag_each_time(asked):
        origin.etag = f'"v{asked.number}"'

    origin.behave = another_etag_each_time
    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert caught.value.code == "source_changed"
    assert bucket.get(job.key) is None


async def test_a_file_of_another_duration_is_refused(origin, source, store, bucket, checkpoints, job, limits):
    with pytest.raises(TransientError) as caught:
        await copy_to_bucket(
            replace(job, expected_duration_seconds=60.0), source, store, checkpoints, lambda _: None, limits
        )

    assert caught.value.code == "object_duration_differs"
    assert bucket.get(job.key) is None


async def test_one_bad_answer_is_outlived(origin, source, store, bucket, checkpoints, job, limits):
    seen = []

    async def fails_once_a_part(asked):
        if not asked.is_probe and asked.span not in seen:
            seen.append(asked.span)
            return await cut_part(asked)
        return None

    origin.behave = fails_once_a_part
    result = await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
    assert result.sha256 == hashlib.sha256(origin.body).hexdigest()
    assert len(seen) == 2


async def test_follows_a_redirect_that_stays_on_the_list(origin, source, store, bucket, checkpoints, job, limits):
    async def moved(asked):
        if not asked.path.startswith("/elsewhere"):
            await asked.head("302 Found", Location="/elsewhere/x.mp4", Content_Length="0")
            return True
        return None

    origin.behave = moved
    await copy_to_bucket(job, source, store, checkpoints, lambda _: None, limits)

    assert bucket.get(job.key) == origin.body
