"""An R2 bucket in memory: multipart uploads, strong consistency, and the rules that other S3 servers do not keep.

`SimulatedBucket.handle` is one call, synchronous and pure of sockets; `application()` puts it behind HTTP for the
parts that aiohttp sends, and `boto_through(bucket)` under boto3 for everything else.

The last completed writer wins. Parts are of one size but the last, which is checked at Complete; an ETag is the MD5
of a part, of an object the MD5 of its parts' MD5s and their number; one write a second to one key, else 429.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from aiohttp import web

from simulation.doors import answer_through
from simulation.faults import Call, Fault, Faults, NoFaults, Reply, Slow, meet

#: Unfinished uploads are aborted by the store's default rule.
ABORTED_AFTER = timedelta(days=7)
#: What the store takes at least for a part that is not the last.
PART_LEAST_BYTES = 5 * 1024 * 1024
_XML = {"Content-Type": "application/xml"}
_PART = re.compile(r"<PartNumber>(\d+)</PartNumber>")
_ETAG = re.compile(r"<ETag>(?:&quot;|&#34;|\")?([0-9a-f]+)(?:&quot;|&#34;|\")?</ETag>")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
_KEPT_HEADERS = ("content-type", "cache-control", "content-disposition")
_PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """Which bucket, for whom, and how strict."""

    name: str = "clips"
    access_key_id: str = "simulatedkey01"
    part_least_bytes: int = PART_LEAST_BYTES
    write_pause_seconds: float = 1.0


@dataclass(slots=True)
class Upload:
    """One unfinished multipart upload."""

    key: str
    upload_id: str
    started_at: datetime
    headers: Mapping[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """One finished object."""

    body: bytes
    etag: str
    at: datetime
    headers: Mapping[str, str]
    upload_id: str = ""


@dataclass(frozen=True, slots=True)
class Handled:
    """One call as it was met."""

    at: datetime
    name: str
    key: str
    part: int
    fault: str


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.reply = refused(status, code)


def refused(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    """The store's "no", as XML."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    return Reply(status, {**_XML, **(headers or {})}, body.encode())


@dataclass(frozen=True, slots=True)
class _Asked:
    name: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def part(self) -> int:
        return int(self.query.get("partNumber", "0"))


class SimulatedBucket:
    """The bucket, and everything that was ever done to it."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        rng: random.Random,
        faults: Faults | None = None,
        options: BucketOptions | None = None,
    ) -> None:
        self.now = clock
        self.options = options or BucketOptions()
        self.faults: Faults = faults or NoFaults()
        self.objects: dict[str, Stored] = {}
        #: Every object a key ever held, in order.
        self.history: dict[str, list[Stored]] = {}
        self.uploads: dict[str, Upload] = {}
        self.calls: list[Handled] = []
        #: Seconds that a control call takes, asked for at each.
        self.latency: Callable[[], float] = lambda: 0.01
        #: What the caller of `handle` should let pass before it takes the answer in.
        self.owed_seconds = 0.0
        self._rng = rng
        self._numbers: Counter[str] = Counter()
        self._written_at: dict[str, datetime] = {}

    def get(self, key: str) -> bytes | None:
        """The bytes at *key*, for oracles."""
        found = self.objects.get(key)
        return found.body if found else None

    def unfinished(self) -> list[Upload]:
        """The uploads that were neither completed nor aborted."""
        self._forget_old()
        return list(self.uploads.values())

    def overwrite(self, key: str, body: bytes, etag: str | None = None) -> None:
        """Let something else stand at *key*, its ETag that of a single write unless another one is given."""
        self._write(key, Stored(body, etag or _md5(body), self.now(), {}))

    def forget_uploads(self) -> None:
        """Drop every unfinished upload, as the rule of seven days does."""
        self.uploads.clear()

    def handle(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """One call: status, headers and body of its answer; what is slow only adds to `owed_seconds`.

        Raises:
            ReplyLost, NoReply: as the script has it.
        """
        asked, fault = self.receive(method, url, headers, body)
        if isinstance(fault, Slow):
            self.owed_seconds += fault.before_seconds + fault.after_seconds
        reply = meet(fault, lambda: self.perform(asked))
        return reply.status, dict(reply.headers), b"" if method == "HEAD" else reply.body

    def application(self) -> web.Application:
        """The same over HTTP."""

        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            url = f"http://{request.host}{request.raw_path}"
            asked, fault = self.receive(request.method, url, request.headers, body)
            return await answer_through(request, fault, lambda: self.perform(asked))

        app = web.Application(client_max_size=2**31)
        app.router.add_route("*", "/{path:.*}", serve)
        return app

    # --- One call -------------------------------------------------------------------------------------

    def receive(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[_Asked, Fault | None]:
        """The call as the store understands it, and what befalls it."""
        address = urlsplit(url)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        name = _operation(method, query) if bucket == self.options.name else "elsewhere"
        asked = _Asked(name, key, query, {k.lower(): v for k, v in headers.items()}, body)
        about = key or query.get("prefix", "")
        self._numbers[name] += 1
        fault = self.faults.next(Call("bucket", name, about, self._numbers[name], asked.part))
        self.calls.append(Handled(self.now(), name, about, asked.part, type(fault).__name__ if fault else ""))
        return asked, fault

    def perform(self, asked: _Asked) -> Reply:
        """Do it."""
        self._forget_old()
        try:
            self._check(asked)
            return _OPERATIONS[asked.name](self, asked)
        except _Refused as no:
            return no.reply if asked.name != "head" else Reply(no.reply.status)

    def _check(self, asked: _Asked) -> None:
        who = asked.headers.get("authorization", "") + asked.query.get("X-Amz-Credential", "")
        if self.options.access_key_id not in who:
            raise _Refused(401, "Unauthorized")
        if asked.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            raise _Refused(501, "NotImplemented")
        if asked.name == "elsewhere":
            raise _Refused(404, "NoSuchBucket")
        if asked.name in ("part", "put") and "content-length" not in asked.headers:
            raise _Refused(411, "MissingContentLength")

    def _upload(self, asked: _Asked) -> Upload:
        upload = self.uploads.get(asked.query["uploadId"])
        if upload is None or upload.key != asked.key:
            raise _Refused(404, "NoSuchUpload")
        return upload

    def _object(self, asked: _Asked) -> Stored:
        found = self.objects.get(asked.key)
        if found is None:
            raise _Refused(404, "NoSuchKey")
        return found

    def _write(self, key: str, stored: Stored) -> None:
        self._written_at[key] = stored.at
        self.objects[key] = stored
        self.history.setdefault(key, []).append(stored)

    def _check_pause(self, key: str) -> None:
        last = self._written_at.get(key)
        if last is not None and (self.now() - last).total_seconds() < self.options.write_pause_seconds:
            raise _Refused(429, "TooManyRequests")

    def _forget_old(self) -> None:
        if self.uploads:
            oldest = self.now() - ABORTED_AFTER
            self.uploads = {name: one for name, one in self.uploads.items() if one.started_at >= oldest}

    def create(self, asked: _Asked) -> Reply:
        upload_id = f"{self._rng.getrandbits(160):040x}"
        kept = {name: asked.headers[name] for name in _KEPT_HEADERS if name in asked.headers}
        self.uploads[upload_id] = Upload(asked.key, upload_id, self.now(), kept)
        return _xml(
            "InitiateMultipartUploadResult",
            f"<Bucket>{self.options.name}</Bucket><Key>{escape(asked.key)}</Key><UploadId>{upload_id}</UploadId>",
        )

    def put_part(self, asked: _Asked) -> Reply:
        upload = self._upload(asked)
        if not 1 <= asked.part <= 10_000:
            raise _Refused(400, "InvalidArgument")
        upload.parts[asked.part] = asked.body
        return Reply(200, {"ETag": f'"{_md5(asked.body)}"'})

    def complete(self, asked: _Asked) -> Reply:
        upload = self._upload(asked)
        said = asked.body.decode()
        listed = sorted(zip(map(int, _PART.findall(said)), _ETAG.findall(said), strict=True))
        parts = [upload.parts.get(number) for number, _ in listed]
        if not parts or any(part is None or _md5(part) != etag for part, (_, etag) in zip(parts, listed, strict=True)):
            raise _Refused(400, "InvalidPart")
        bodies = [part for part in parts if part is not None]
        *others, last = [len(part) for part in bodies]
        if others and (len(set(others)) > 1 or last > others[0]):
            raise _Refused(400, "InvalidPart")
        if others and others[0] < self.options.part_least_bytes:
            raise _Refused(400, "EntityTooSmall")
        self._check_pause(upload.key)
        digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in bodies)
        etag = f"{_md5(digests)}-{len(bodies)}"
        self._write(upload.key, Stored(b"".join(bodies), etag, self.now(), upload.headers, upload.upload_id))
        del self.uploads[upload.upload_id]
        return _xml(
            "CompleteMultipartUploadResult",
            f"<Bucket>{self.options.name}</Bucket><Key>{escape(upload.key)}</Key><ETag>&quot;{etag}&quot;</ETag>",
        )

    def abort(self, asked: _Asked) -> Reply:
        del self.uploads[self._upload(asked).upload_id]
        return Reply(204)

    def put(self, asked: _Asked) -> Reply:
        self._check_pause(asked.key)
        kept = {name: asked.headers[name] for name in _KEPT_HEADERS if name in asked.headers}
        stored = Stored(asked.body, _md5(asked.body), self.now(), kept)
        self._write(asked.key, stored)
        return Reply(200, {"ETag": f'"{stored.etag}"'})

    def head(self, asked: _Asked) -> Reply:
        found = self._object(asked)
        return Reply(200, {**self._object_headers(found), "Content-Length": str(len(found.body))})

    def read(self, asked: _Asked) -> Reply:
        found = self._object(asked)
        span = _RANGE.match(asked.headers.get("range", ""))
        if span is None:
            return Reply(200, self._object_headers(found), found.body)
        start, size = int(span[1]), len(found.body)
        last = min(int(span[2]) if span[2] else size - 1, size - 1)
        if start > last:
            raise _Refused(416, "InvalidRange")
        headers = {**self._object_headers(found), "Content-Range": f"bytes {start}-{last}/{size}"}
        return Reply(206, headers, found.body[start : last + 1])

    def delete(self, asked: _Asked) -> Reply:
        self.objects.pop(asked.key, None)
        return Reply(204)

    def list_uploads(self, asked: _Asked) -> Reply:
        query = asked.query
        most = min(int(query.get("max-uploads") or _PAGE_MAX), _PAGE_MAX)
        after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        found = sorted(
            (one for one in self.uploads.values() if one.key.startswith(query.get("prefix", ""))),
            key=lambda one: (one.key, one.upload_id),
        )
        found = [one for one in found if (one.key, one.upload_id) > after]
        page = found[:most]
        rows = "".join(
            f"<Upload><Key>{escape(one.key)}</Key><UploadId>{one.upload_id}</UploadId>"
            f"<Initiated>{one.started_at:%Y-%m-%dT%H:%M:%S}.000Z</Initiated></Upload>"
            for one in page
        )
        is_cut = len(found) > len(page)
        last = page[-1] if page else None
        markers = (
            f"<NextKeyMarker>{escape(last.key)}</NextKeyMarker>"
            f"<NextUploadIdMarker>{last.upload_id}</NextUploadIdMarker>"
            if is_cut and last
            else ""
        )
        truncated = f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>"
        return _xml("ListMultipartUploadsResult", f"<Bucket>{self.options.name}</Bucket>{markers}{truncated}{rows}")

    def elsewhere(self, asked: _Asked) -> Reply:
        raise _Refused(404, "NoSuchBucket")

    def _object_headers(self, found: Stored) -> dict[str, str]:
        return {**found.headers, "ETag": f'"{found.etag}"'}


_OPERATIONS: Mapping[str, Callable[[SimulatedBucket, _Asked], Reply]] = {
    "create": SimulatedBucket.create,
    "part": SimulatedBucket.put_part,
    "complete": SimulatedBucket.complete,
    "abort": SimulatedBucket.abort,
    "put": SimulatedBucket.put,
    "head": SimulatedBucket.head,
    "read": SimulatedBucket.read,
    "delete": SimulatedBucket.delete,
    "list": SimulatedBucket.list_uploads,
    "elsewhere": SimulatedBucket.elsewhere,
}
#: Every call that a script may befall.
BUCKET_CALLS = tuple(name for name in _OPERATIONS if name not in ("elsewhere", "put"))


def _operation(method: str, query: Mapping[str, str]) -> str:
    if "uploads" in query:
        return "create" if method == "POST" else "list"
    if "uploadId" in query:
        return {"PUT": "part", "POST": "complete", "DELETE": "abort"}.get(method, "elsewhere")
    return {"HEAD": "head", "GET": "read", "DELETE": "delete", "PUT": "put"}.get(method, "elsewhere")


def _xml(name: str, inside: str) -> Reply:
    document = f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</{name}>'
    return Reply(200, _XML, document.encode())


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# Below, because it needs the class; here, because this is where people look for it.
from simulation.boto import boto_through  # noqa: E402

__all__ = ["BUCKET_CALLS", "BucketOptions", "SimulatedBucket", "Stored", "Upload", "boto_through", "refused"]
