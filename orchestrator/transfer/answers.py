"""What an answer of the delivery host says of the file, and which answers are not to be believed.

TransientError
├── NotYetThereError     the file is announced but not delivered yet
├── SourceChangedError   it is another file than before; what was copied cannot be continued
└── RangeIgnoredError    asked for a part, the host sends everything
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import ClientResponse

from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.transfer.parts import ByteSpan

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
#: No type at all is let through too: the first box decides.
_TYPES = {"", "application/mp4", "application/octet-stream", "binary/octet-stream"}


class NotYetThereError(TransientError):
    """404 or 424: reported for some seconds after the provider called the file ready."""


class SourceChangedError(TransientError):
    """Size or ETag differ from what was seen before."""


class RangeIgnoredError(TransientError):
    """200 to a ranged read of an unchanged file."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What the host said of the file when it was first asked."""

    #: None when the host hides it.
    size_bytes: int | None
    #: Strong ETags only, quotes included, as If-Range wants them.
    etag: str | None
    last_modified: str | None
    #: Whether parts can be read one by one.
    is_ranged: bool


def refuse_failure(response: ClientResponse) -> None:
    """Raise for a status that brings no bytes, and for bytes that are encoded or of another kind."""
    status = response.status
    if status in (404, 424):
        raise NotYetThereError("mp4_not_yet_there", f"The source answered {status}.", _retry_after(response))
    if status in (401, 403):
        raise PermanentError("source_forbidden", f"The source answered {status}: the address or its token is refused.")
    if status in (408, 425, 429) or status >= 500:
        raise TransientError("source_failing", f"The source answered {status}.", _retry_after(response))
    if status == 416:
        return  # judged by those who know what was asked
    if status not in (200, 206):
        raise PermanentError("source_refused", f"The source answered {status}.")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise TransientError("source_encoded", "The source sent an encoded body though none was accepted.")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES and not kind.startswith("video/"):
        raise TransientError("source_not_mp4", "The source sent another kind of document.")


def facts_of(response: ClientResponse) -> SourceFacts:
    """Size, validators and range support, from the answer to a ranged read of the first bytes."""
    if response.status == 416:
        raise TransientError("source_empty", "The source has no first byte.")
    size_bytes, is_ranged = response.content_length, False
    if response.status == 206:
        start, _, size_bytes = _content_range(response)
        if start != 0:
            raise _wrong_range()
        is_ranged = size_bytes is not None
    if size_bytes == 0:
        raise TransientError("source_empty", "The source is empty.")
    return SourceFacts(size_bytes, strong_etag(response), response.headers.get("Last-Modified"), is_ranged)


def check_first_bytes(head: bytes) -> None:
    """Raise unless *head* is the start of an MP4 file."""
    if not head:
        raise TransientError("source_empty", "The source is empty.")
    if head[4:8] != b"ftyp":
        raise TransientError("source_not_mp4", "The source does not start like an MP4 file.")


def check_span(response: ClientResponse, span: ByteSpan, facts: SourceFacts) -> None:
    """Raise unless the answer is *span* of the file that *facts* are about."""
    if response.status == 416:
        raise SourceChangedError("source_changed", "The source is shorter than before.")
    _check_etag(response, facts)
    if response.status == 200:
        if response.content_length not in (None, facts.size_bytes):
            raise SourceChangedError("source_changed", "The source has another length than before.")
        raise RangeIgnoredError("source_ignores_range", "The source sent the whole file instead of a part.")
    start, last, size_bytes = _content_range(response)
    if size_bytes is not None and size_bytes != facts.size_bytes:
        raise SourceChangedError("source_changed", "The source has another length than before.")
    if (start, last) != (span.start, span.last) or response.content_length not in (None, span.length_bytes):
        raise _wrong_range()


def check_whole(response: ClientResponse, facts: SourceFacts) -> None:
    """Raise unless the answer is the whole of the file that *facts* are about."""
    if response.status != 200:
        raise _wrong_range()
    _check_etag(response, facts)
    if None not in (response.content_length, facts.size_bytes) and response.content_length != facts.size_bytes:
        raise SourceChangedError("source_changed", "The source has another length than before.")


def strong_etag(response: ClientResponse) -> str | None:
    """The ETag with its quotes; None for none, a weak or a malformed one, which cannot vouch for bytes."""
    etag = response.headers.get("ETag", "")
    is_strong = len(etag) > 2 and etag[0] == etag[-1] == '"' and etag.isprintable() and len(etag) <= 256
    return etag if is_strong else None


def _check_etag(response: ClientResponse, facts: SourceFacts) -> None:
    etag = strong_etag(response)
    if None not in (etag, facts.etag) and etag != facts.etag:
        raise SourceChangedError("source_changed", "The source has another ETag than before.")


def _content_range(response: ClientResponse) -> tuple[int, int, int | None]:
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None:
        raise _wrong_range()
    return int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])


def _wrong_range() -> TransientError:
    return TransientError("source_range_wrong", "The source sent another range than the one asked for.")


def _retry_after(response: ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
