"""Every body that a delivery host may send in place of the right one: the catalogue that the bodies lane goes through.

Each entry answers one request by a `Wire`; *code* is the reason that a clip ends with when the host never does better.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from simulation.delivery import Wire

_HTML = "text/html; charset=utf-8"
_PAGE = b"<!DOCTYPE html><title>Not here</title>"
Write = Callable[[Wire], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Body:
    """One bad answer; *code* None where the file is read well all the same."""

    write: Write
    code: str | None
    #: No later try of the same attempt may heal it.
    is_final: bool = False


def _asked(wire: Wire) -> bytes:
    """The bytes that were asked for."""
    return wire.data if wire.span is None else wire.data[wire.span[0] : wire.span[1] + 1]


async def _head(wire: Wire, **headers: object) -> None:
    await (wire.whole_head if wire.span is None else wire.part_head)(**headers)


def cut_after(count: int) -> Write:
    """The right head, *count* bytes (from the end when negative), and the connection is closed."""

    async def write(wire: Wire) -> None:
        await _head(wire)
        await wire.send(_asked(wire)[:count])
        wire.close()

    return write


def reset_after(count: int) -> Write:
    """The same, with a reset instead of a close."""

    async def write(wire: Wire) -> None:
        await _head(wire)
        await wire.send(_asked(wire)[:count])
        await wire.reset()

    return write


async def reset_at_once(wire: Wire) -> None:
    await wire.reset()


async def closed_at_once(wire: Wire) -> None:
    wire.close()


async def half_a_head(wire: Wire) -> None:
    await wire.begin(b"HTTP/1.1 206 Partial Con")
    await wire.reset()


async def stalled(wire: Wire) -> None:
    await _head(wire)
    await wire.send(_asked(wire)[:7])
    await wire.stall()


async def silent(wire: Wire) -> None:
    await wire.stall()


async def longer(wire: Wire) -> None:
    """More than was announced, in chunks, so that nothing but counting tells."""
    await _head(wire, Content_Length=None, Transfer_Encoding="chunked")
    for piece in (_asked(wire), b"more", b""):
        await wire.chunk(piece)


async def longer_than_its_length(wire: Wire) -> None:
    """More bytes than Content-Length says: what comes behind cannot be an answer; the connection is no good."""
    await _head(wire)
    await wire.send(_asked(wire) + b"and more")


async def shorter_in_good_order(wire: Wire) -> None:
    await _head(wire, Content_Length=None, Transfer_Encoding="chunked")
    await wire.chunk(_asked(wire)[:-1])
    await wire.chunk(b"")


async def chunks_cut(wire: Wire) -> None:
    await _head(wire, Content_Length=None, Transfer_Encoding="chunked")
    await wire.chunk(_asked(wire)[:-1])
    wire.close()


async def chunk_cut_inside(wire: Wire) -> None:
    await _head(wire, Content_Length=None, Transfer_Encoding="chunked")
    await wire.begin(b"fffff\r\n" + _asked(wire)[:9])
    wire.close()


async def without_length(wire: Wire) -> None:
    """All bytes, their end told by the end of the connection alone."""
    await _head(wire, Content_Length=None, Connection="close")
    await wire.send(_asked(wire))
    wire.close()


async def without_length_cut(wire: Wire) -> None:
    await _head(wire, Content_Length=None, Connection="close")
    await wire.send(_asked(wire)[:-1])
    wire.close()


async def gzipped(wire: Wire) -> None:
    packed = gzip.compress(_asked(wire))
    await _head(wire, Content_Encoding="gzip", Content_Length=len(packed))
    await wire.send(packed)


async def page(wire: Wire) -> None:
    await wire.head("200 OK", Content_Type=_HTML, Content_Length=len(_PAGE))
    await wire.send(_PAGE)


async def page_called_video(wire: Wire) -> None:
    await wire.head("200 OK", Content_Type="video/mp4", Content_Length=len(_PAGE))
    await wire.send(_PAGE)


async def empty(wire: Wire) -> None:
    await wire.head("200 OK", Content_Type="video/mp4", Content_Length=0)


async def empty_without_length(wire: Wire) -> None:
    await wire.head("200 OK", Content_Type="video/mp4", Connection="close")
    wire.close()


async def ranges_in_parts(wire: Wire) -> None:
    await wire.head("206 Partial Content", Content_Type="multipart/byteranges; boundary=x", Content_Length=0)


async def range_unnamed(wire: Wire) -> None:
    await wire.part_head(Content_Range=None)
    await wire.send(_asked(wire))


async def range_shifted(wire: Wire) -> None:
    assert wire.span is not None
    first, last = wire.span
    await wire.part_head(Content_Range=f"bytes {first + 1}-{last + 1}/{len(wire.data)}")
    await wire.send(wire.data[first + 1 : last + 2])


async def range_shorter(wire: Wire) -> None:
    assert wire.span is not None
    first, last = wire.span
    await wire.part_head(Content_Range=f"bytes {first}-{last - 1}/{len(wire.data)}", Content_Length=last - first)
    await wire.send(wire.data[first:last])


async def range_of_another_size(wire: Wire) -> None:
    assert wire.span is not None
    first, last = wire.span
    await wire.part_head(Content_Range=f"bytes {first}-{last}/{len(wire.data) + 1}")
    await wire.send(_asked(wire))


async def range_in_words(wire: Wire) -> None:
    await wire.part_head(Content_Range="bytes first-last/all")
    await wire.send(_asked(wire))


async def range_ignored(wire: Wire) -> None:
    await wire.whole_head()
    await wire.send(wire.data)


async def another_etag(wire: Wire) -> None:
    await _head(wire, ETag='"another"')
    await wire.send(_asked(wire))


async def weak_etag(wire: Wire) -> None:
    await _head(wire, ETag='W/"weak"')
    await wire.send(_asked(wire))


async def no_etag(wire: Wire) -> None:
    await _head(wire, ETag=None)
    await wire.send(_asked(wire))


def status(line: str, **headers: object) -> Write:
    """An answer that is no more than its status."""

    async def write(wire: Wire) -> None:
        await wire.head(line, Content_Length=0, **headers)

    return write


#: Answers that any read may meet.
ANYWHERE: dict[str, Body] = {
    "reset-at-byte-0": Body(reset_at_once, "source_unreachable"),
    "closed-at-once": Body(closed_at_once, "source_unreachable"),
    "half-a-head": Body(half_a_head, "source_unreachable"),
    "silent": Body(silent, "source_stalled"),
    "gzip": Body(gzipped, "source_encoded"),
    "page": Body(page, "source_not_mp4"),
    "404": Body(status("404 Not Found"), "mp4_not_yet_there"),
    "424": Body(status("424 Failed Dependency"), "mp4_not_yet_there"),
    "429": Body(status("429 Too Many Requests", Retry_After="40"), "source_failing"),
    "500": Body(status("500 Internal Server Error"), "source_failing"),
    "503": Body(status("503 Service Unavailable"), "source_failing"),
    "410": Body(status("410 Gone"), "source_refused", is_final=True),
    "204": Body(status("204 No Content"), "source_refused", is_final=True),
    "redirect-nowhere": Body(status("302 Found"), "source_redirects"),
    "redirect-off-the-list": Body(
        status("302 Found", Location="https://evil.example.com/x.mp4"), "source_address_not_allowed", is_final=True
    ),
    "redirect-inside": Body(
        status("301 Moved Permanently", Location="http://169.254.169.254/"), "source_address_not_allowed", is_final=True
    ),
}

#: What the first look at a file may meet, sixteen bytes long or not.
AT_THE_PROBE: dict[str, Body] = {
    "page-called-video": Body(page_called_video, "source_not_mp4"),
    "empty": Body(empty, "source_empty"),
    "empty-without-length": Body(empty_without_length, "source_empty"),
    "416": Body(status("416 Range Not Satisfiable", Content_Range="bytes */0"), "source_empty"),
    "ranges-in-parts": Body(ranges_in_parts, "source_not_mp4"),
    "range-unnamed": Body(range_unnamed, "source_range_wrong"),
    "range-shifted": Body(range_shifted, "source_range_wrong"),
    "range-in-words": Body(range_in_words, "source_range_wrong"),
}

#: What the read of one part may meet.
AT_A_PART: dict[str, Body] = {
    "cut-at-byte-0": Body(cut_after(0), "source_cut"),
    "cut-in-the-middle": Body(cut_after(300), "source_cut"),
    "cut-at-byte-n-1": Body(cut_after(-1), "source_cut"),
    "reset-at-byte-1": Body(reset_after(1), "source_cut"),
    "reset-at-byte-n-1": Body(reset_after(-1), "source_cut"),
    "stalls": Body(stalled, "source_stalled"),
    "longer": Body(longer, "source_longer"),
    "longer-than-its-length": Body(longer_than_its_length, "source_unreachable"),
    "shorter-in-good-order": Body(shorter_in_good_order, "source_cut"),
    "chunks-cut": Body(chunks_cut, "source_cut"),
    "chunk-cut-inside": Body(chunk_cut_inside, "source_cut"),
    "without-length": Body(without_length, None),
    "without-length-cut": Body(without_length_cut, "source_cut"),
    "416": Body(status("416 Range Not Satisfiable"), "source_changed"),
    "ranges-in-parts": Body(ranges_in_parts, "source_not_mp4"),
    "range-unnamed": Body(range_unnamed, "source_range_wrong"),
    "range-shifted": Body(range_shifted, "source_range_wrong"),
    "range-shorter": Body(range_shorter, "source_range_wrong"),
    "range-in-words": Body(range_in_words, "source_range_wrong"),
    "range-of-another-size": Body(range_of_another_size, "source_changed"),
    "range-ignored": Body(range_ignored, None),
    "another-etag": Body(another_etag, "source_changed"),
    "weak-etag": Body(weak_etag, None),
    "no-etag": Body(no_etag, None),
}

#: What the read of a whole file may meet, where the host knows no ranges.
AT_THE_WHOLE: dict[str, Body] = {
    "cut-at-byte-0": Body(cut_after(0), "source_cut"),
    "cut-in-the-middle": Body(cut_after(1_700), "source_cut"),
    "cut-at-byte-n-1": Body(cut_after(-1), "source_cut"),
    "reset-at-byte-1": Body(reset_after(1), "source_cut"),
    "reset-at-byte-n-1": Body(reset_after(-1), "source_cut"),
    "stalls": Body(stalled, "source_stalled"),
    "longer": Body(longer, "source_longer"),
    "longer-than-its-length": Body(longer_than_its_length, "source_unreachable"),
    "shorter-in-good-order": Body(shorter_in_good_order, "source_cut"),
    "chunks-cut": Body(chunks_cut, "source_cut"),
    "chunk-cut-inside": Body(chunk_cut_inside, "source_cut"),
    "without-length": Body(without_length, None),
    "without-length-cut": Body(without_length_cut, "source_cut"),
    "another-etag": Body(another_etag, "source_changed"),
    "no-etag": Body(no_etag, None),
    "empty": Body(empty, "source_changed"),
}
