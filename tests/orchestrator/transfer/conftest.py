"""A delivery host that can be told to misbehave, an MP4 to deliver, a bucket, and checkpoints in memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from botocore.config import Config
from moto.server import ThreadedMotoServer
from multidict import CIMultiDict
from simulation.memory import MemoryCheckpoints
from yarl import URL

from orchestrator.drivers import object_store
from orchestrator.drivers.egress import EgressPolicy
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.drivers.patience import Patience
from orchestrator.drivers.stored_objects import UploadedPart
from orchestrator.transfer import HttpSource, SourceLimits, TransferJob, TransferLimits

MIB = 1024 * 1024
PART = 5 * MIB
QUICK = Patience(attempts=4, first_wait_seconds=0.01, longest_wait_seconds=0.05)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def movie(mdat_bytes: int, seconds: float = 30.0) -> bytes:
    """A file of the right shape: ftyp, moov with mvhd, and random bytes as its media."""
    mvhd = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, int(seconds * 1000)) + bytes(80))
    head = box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + box(b"moov", mvhd)
    return head + struct.pack(">I4s", 8 + mdat_bytes, b"mdat") + os.urandom(mdat_bytes)


@dataclass
class Asked:
    """One request as the host saw it, and a way to answer it byte by byte."""

    path: str
    headers: dict[str, str]
    number: int
    origin: Origin
    writer: asyncio.StreamWriter

    @property
    def span(self) -> tuple[int, int] | None:
        found = re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("range", ""))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def is_probe(self) -> bool:
        return self.span == (0, 15)

    async def send(self, data: bytes) -> None:
        """Send body bytes, counted as they leave."""
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            self.writer.write(piece)
            await self.writer.drain()
            self.origin.sent_bytes += len(piece)

    async def head(self, status: str, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Origin:
    """An HTTP server for one file. *behave* may answer a request itself by returning True."""

    body: Any = b""
    etag: str | None = '"v1"'
    has_ranges: bool = True
    port: int = 0
    sent_bytes: int = 0
    asked: list[Asked] = field(default_factory=list)
    behave: Callable[[Asked], Awaitable[bool | None]] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.base}/secret-token/downloads/default.mp4"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                asked = Asked(lines[0].split()[1], headers, len(self.asked) + 1, self, writer)
                self.asked.append(asked)
                if self.behave is not None and await self.behave(asked):
                    break
                await self.answer(asked)
        writer.close()

    async def answer(self, asked: Asked) -> None:
        common = {"Content_Type": "video/mp4", **({"ETag": self.etag} if self.etag else {})}
        current = asked.headers.get("if-range") in (None, self.etag)
        if self.has_ranges and asked.span and current:
            start, last = asked.span[0], min(asked.span[1], len(self.body) - 1)
            part = self.body[start : last + 1]
            span = f"bytes {start}-{last}/{len(self.body)}"
            await asked.head("206 Partial Content", Content_Length=str(len(part)), Content_Range=span, **common)
            await asked.send(part)
        else:
            await asked.head("200 OK", Content_Length=str(len(self.body)), **common)
            for start in range(0, len(self.body), MIB):
                await asked.send(self.body[start : start + MIB])


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """A delivery host on loopback with a file of two and a bit parts."""
    one = Origin(body=movie(2 * PART + 70_000))
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    yield one
    server.close()


@pytest.fixture
async def source(origin: Origin) -> AsyncIterator[HttpSource]:
    """The source under test, with a short patience for silence."""
    reader = HttpSource(EgressPolicy.allowing([origin.base]), SourceLimits(connect_seconds=2, stall_seconds=0.3))
    yield reader
    await reader.close()


@pytest.fixture
def job(origin: Origin) -> TransferJob:
    """A clip whose uid no other test uses, so that tests may share a bucket."""
    return TransferJob("clip-1", uuid.uuid4().hex, 1, origin.url, expected_duration_seconds=30.0)


@pytest.fixture
def limits() -> TransferLimits:
    return TransferLimits(part_floor_bytes=PART, deadline_seconds=30, stall_seconds=2, patience=QUICK)


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    """The bucket as another client sees it."""

    name = "clips"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="localkey0001",
            aws_secret_access_key="localsecret0001",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def create(self) -> None:
        with contextlib.suppress(self._s3.exceptions.BucketAlreadyOwnedByYou):
            self._s3.create_bucket(Bucket=self.name)

    def get(self, key: str) -> bytes | None:
        try:
            return bytes(self._s3.get_object(Bucket=self.name, Key=key)["Body"].read())
        except self._s3.exceptions.NoSuchKey:
            return None

    def put(self, key: str, body: bytes) -> None:
        self._s3.put_object(Bucket=self.name, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.name, Key=key)

    def head(self, key: str) -> dict[str, object]:
        return dict(self._s3.head_object(Bucket=self.name, Key=key))

    def uploads(self, key: str) -> list[str]:
        found = self._s3.list_multipart_uploads(Bucket=self.name, Prefix=key).get("Uploads", [])
        return [one["UploadId"] for one in found]

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> None:
        self._s3.upload_part(Bucket=self.name, Key=key, UploadId=upload_id, PartNumber=number, Body=body)

    def complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        listed = {"Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]}
        self._s3.complete_multipart_upload(Bucket=self.name, Key=key, UploadId=upload_id, MultipartUpload=listed)


@pytest.fixture(scope="session")
def bucket(moto_endpoint: str) -> Bucket:
    one = Bucket(moto_endpoint)
    one.create()
    return one


def store_settings(endpoint: str) -> ObjectStoreSettings:
    return ObjectStoreSettings(endpoint, "localkey0001", "localsecret0001", Bucket.name, "https://media.example.com/")


def refuse_trailers(request: Any, **_: object) -> None:
    """Fail on what R2 refuses and local servers let pass: checksums as trailers, signed streams."""
    headers = {
        name.lower(): value if isinstance(value, str) else value.decode() for name, value in request.headers.items()
    }
    assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm"} & set(headers), headers
    assert "aws-chunked" not in headers.get("content-encoding", "")
    assert not headers.get("x-amz-content-sha256", "").startswith("STREAMING-")


@functools.cache
def _shared_loader(_paths: str | None = None) -> Any:
    return botocore.loaders.create_loader()


@pytest.fixture
def r2_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client built in the test refuses to send what R2 would not take."""
    build = object_store.build_client

    def guarded(settings: ObjectStoreSettings, connections: int) -> Any:
        client = build(settings, connections)
        client.meta.events.register("before-send.s3", refuse_trailers)
        return client

    monkeypatch.setattr(object_store, "build_client", guarded)
    # The description of S3 is read from disk once instead of once a client, which is most of a client's cost.
    monkeypatch.setattr(botocore.session, "create_loader", _shared_loader)


@dataclass(frozen=True)
class Refuse:
    """Answer with this error and do nothing."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def answer(self) -> web.Response:
        text = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>" if self.code else ""
        return web.Response(status=self.status, text=text, content_type="application/xml", headers=self.headers)


@dataclass(frozen=True)
class Drop:
    """Close the connection; with *after*, once the thing has been done."""

    after: bool = False


@dataclass(frozen=True)
class Hang:
    """Take the request and never answer."""


@dataclass(frozen=True)
class Rewrite:
    """Do it, and answer with these changes."""

    etag: str | None = None
    body: bytes | None = None


@dataclass(frozen=True)
class First:
    """Let something else happen, then do it."""

    what: Callable[[], None]


@dataclass(frozen=True)
class Then:
    """Do it, and let something else happen before the answer goes out."""

    what: Callable[[], None]


Fault = Refuse | Drop | Hang | Rewrite | First | Then | None


class FaultyR2:
    """Stands before the S3 server: fails on command, and enforces R2's rules about parts, which no local server does.

    `faults["part"] = [None, Refuse(503)]` lets the first part through and refuses the second.
    """

    def __init__(self, endpoint: str, http: ClientSession) -> None:
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.script: Callable[[str], Fault] | None = None
        self.calls: list[str] = []
        self.endpoint = ""
        self.ended = asyncio.Event()
        self._endpoint = endpoint
        self._http = http
        self._sizes: dict[str, dict[int, int]] = {}

    def forget_uploads(self) -> None:
        """Drop every unfinished upload, as the seven-day rule does."""
        self._sizes.clear()

    @staticmethod
    def operation(request: web.Request) -> str:
        if "uploads" in request.query:
            return "create" if request.method == "POST" else "list"
        if "uploadId" in request.query:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort"}[request.method]
        return {"HEAD": "head", "GET": "get", "DELETE": "delete"}[request.method]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        operation = self.operation(request)
        self.calls.append(operation)
        waiting = self.faults.get(operation, [])
        fault = waiting.pop(0) if waiting else self.always.get(operation)
        if self.script is not None:
            fault = self.script(operation)
        if isinstance(fault, Refuse):
            return fault.answer()
        if isinstance(fault, Hang):
            await self.ended.wait()
        if isinstance(fault, Drop) and not fault.after:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(fault, First):
            fault.what()
        refusal = self._against_r2_rules(operation, request)
        answer = refusal or await self._forward(operation, request, fault)
        if isinstance(fault, Then):
            fault.what()
        if isinstance(fault, Drop):
            assert request.transport is not None
            request.transport.abort()
        return answer

    def _against_r2_rules(self, operation: str, request: web.Request) -> web.Response | None:
        upload_id = request.query.get("uploadId", "")
        if operation in ("part", "complete", "abort") and upload_id not in self._sizes:
            return Refuse(404, "NoSuchUpload").answer()
        if operation == "part":
            if request.content_length is None:
                return Refuse(411, "MissingContentLength").answer()
            self._sizes[upload_id][int(request.query["partNumber"])] = request.content_length
        if operation == "complete":
            *others, last = [size for _, size in sorted(self._sizes[upload_id].items())]
            if others and (len(set(others)) > 1 or others[0] < 5 * MIB or last > others[0]):
                return Refuse(400, "InvalidPart").answer()
        return None

    def _remember(self, operation: str, request: web.Request, answer: bytes) -> None:
        if operation == "create" and (found := re.search(rb"<UploadId>(.+?)</UploadId>", answer)):
            self._sizes[found[1].decode()] = {}
        if operation in ("complete", "abort"):
            self._sizes.pop(request.query["uploadId"], None)

    async def _forward(self, operation: str, request: web.Request, fault: Fault) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "expect")}
        url = URL(self._endpoint + request.raw_path, encoded=True)
        async with self._http.request(request.method, url, data=body, headers=headers) as found:
            answer = await found.read()
            if found.status < 300:
                self._remember(operation, request, answer)
            dropped = {"content-length", "transfer-encoding", "connection", "date", "server"}
            passed = CIMultiDict((name, value) for name, value in found.headers.items() if name.lower() not in dropped)
            if isinstance(fault, Rewrite):
                answer = fault.body if fault.body is not None else answer
                if fault.etag is not None:
                    passed["ETag"] = fault.etag
            if request.method == "HEAD":
                passed["Content-Length"] = found.headers.get("Content-Length", "0")
            return web.Response(status=found.status, body=answer, headers=passed)


@pytest.fixture
async def r2(moto_endpoint: str, bucket: Bucket) -> AsyncIterator[FaultyR2]:
    async with ClientSession(auto_decompress=False) as http:
        faulty = FaultyR2(moto_endpoint, http)
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_route("*", "/{rest:.*}", faulty.handle)
        server = TestServer(app)
        await server.start_server()
        faulty.endpoint = str(server.make_url("")).rstrip("/")
        yield faulty
        faulty.ended.set()
        await server.close()


@pytest.fixture
async def store(r2: FaultyR2, r2_rules: None) -> AsyncIterator[ObjectStore]:
    one = ObjectStore(store_settings(r2.endpoint), QUICK)
    yield one
    await one.close()


@pytest.fixture
def checkpoints() -> MemoryCheckpoints:
    return MemoryCheckpoints()
