"""The words of the object store: parts, objects, unfinished uploads, and the ETag of an object made of parts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_MULTIPART_ETAG = re.compile(r"[0-9a-f]{32}-[0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part that is durable in the store; *etag* is the MD5 of its bytes, in hex."""

    number: int
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What the store says of a finished object."""

    size_bytes: int
    etag: str
    content_type: str


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ObjectLabels:
    """What the store tells a browser about an object; said outright, since multipart objects are not sniffed."""

    content_type: str = "video/mp4"
    # A key is never written with other bytes, so a copy may be kept for ever; a year is the usual way to say so.
    cache_control: str = "public, max-age=31536000, immutable"
    content_disposition: str | None = None


def multipart_etag(parts: Sequence[UploadedPart]) -> str:
    """The ETag that S3 and R2 give an object of *parts* in order: MD5 of their binary MD5s, a dash, their number."""
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def is_multipart_etag(etag: str) -> bool:
    """Whether *etag* has that form; some stores (rclone) answer HEAD with an ETag of another kind."""
    return _MULTIPART_ETAG.match(etag) is not None


def may_hold(head: ObjectHead | None, parts: Sequence[UploadedPart]) -> bool:
    """Whether the object can be the one made of *parts*: same size, and an ETag that does not say otherwise."""
    if head is None or head.size_bytes != sum(part.size_bytes for part in parts):
        return False
    return head.etag == multipart_etag(parts) or not is_multipart_etag(head.etag)
