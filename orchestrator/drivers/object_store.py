"""The bucket: control calls by boto3 in a few threads, part bytes by aiohttp to presigned addresses.

boto3 is imported and built on first use, in a thread: it costs about a second. Its own retries
are off, so that what is repeated, how often and how slowly is decided in one place.

Complete is the call whose answer must not be trusted when it fails: the object may exist all
the same (answer lost, or a second try that finds the upload gone). Then the key itself is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from orchestrator.drivers.bounded_threads import BoundedThreads
from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.object_store_client import ObjectStoreSettings, build_client, translated
from orchestrator.drivers.object_store_errors import ObjectMissingError, UploadLostError
from orchestrator.drivers.part_upload import PresignedAddress, put_part
from orchestrator.drivers.patience import Patience
from orchestrator.drivers.stored_objects import ObjectHead, ObjectLabels, UnfinishedUpload, UploadedPart, may_hold

T = TypeVar("T")

#: Long enough for one slow part, short enough that a leaked address is soon worthless.
_PRESIGNED_SECONDS = 900
#: 1,000 uploads a page; a bucket with more unfinished ones than this is swept over several runs.
_LIST_PAGES = 20
#: A control call including its wait for a thread; Complete of 10,000 parts is the slowest.
_CALL_SECONDS = 90.0
_CONTROL_THREADS = 4
#: Transfers at once are limited far below this by the caller; it only ends a runaway.
_CONNECTIONS = 64


class ObjectStore:
    """One bucket. Safe to share between transfers; close it at the end."""

    def __init__(self, settings: ObjectStoreSettings, patience: Patience | None = None) -> None:
        self._settings = settings
        self._patience = patience or Patience()
        self._threads = BoundedThreads(_CONTROL_THREADS, "object-store")
        self._client: Any = None
        self._building = asyncio.Lock()
        self._session: ClientSession | None = None

    def public_url(self, key: str) -> str:
        """The address at which people find *key*."""
        return f"{self._settings.public_url.rstrip('/')}/{quote(key)}"

    async def create_multipart(self, key: str, labels: ObjectLabels) -> str:
        """Begin an upload and return its id. A repeat after a lost answer leaves an orphan for the sweep."""
        arguments = {"ContentType": labels.content_type, "CacheControl": labels.cache_control}
        if labels.content_disposition:
            arguments["ContentDisposition"] = labels.content_disposition
        answer = await self._patiently(lambda s3: s3.create_multipart_upload(**self._at(key), **arguments))
        return str(answer["UploadId"])

    async def presign_part(self, key: str, upload_id: str, number: int) -> PresignedAddress:
        """An address that takes this one part for a quarter of an hour. Computed, nothing is sent."""
        parameters = {**self._at(key), "UploadId": upload_id, "PartNumber": number}
        text = await self._once(
            lambda s3: s3.generate_presigned_url("upload_part", Params=parameters, ExpiresIn=_PRESIGNED_SECONDS)
        )
        return PresignedAddress(str(text))

    async def put_part(
        self, address: PresignedAddress, chunks: AsyncIterator[bytes], length_bytes: int, stall_seconds: float
    ) -> str:
        """Send one part; not repeated here, since the bytes have to be read again for that."""
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=_CONNECTIONS),
                timeout=ClientTimeout(total=None, sock_connect=10),  # the stall limit watches the rest
                cookie_jar=DummyCookieJar(),
                trust_env=False,
            )
        return await put_part(self._session, address, chunks, length_bytes, stall_seconds)

    async def complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        """Make the object of *parts*; returns when the store said so, or when the key is seen to hold it.

        Raises:
            UploadLostError: the upload is gone and the key does not hold these parts.
        """
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        arguments = {**self._at(key), "UploadId": upload_id, "MultipartUpload": {"Parts": listed}}
        try:
            await self._patiently(lambda s3: s3.complete_multipart_upload(**arguments))
        except TransientError:
            if not may_hold(await self.head(key), parts):
                raise

    async def abort(self, key: str, upload_id: str) -> None:
        """Give up an unfinished upload; one that is already gone counts as given up."""
        try:
            await self._patiently(lambda s3: s3.abort_multipart_upload(**self._at(key), UploadId=upload_id))
        except UploadLostError:
            return

    async def head(self, key: str) -> ObjectHead | None:
        """The finished object at *key*, or None if there is none."""
        try:
            answer = await self._patiently(lambda s3: s3.head_object(**self._at(key)))
        except ObjectMissingError:
            return None
        return ObjectHead(
            size_bytes=int(answer["ContentLength"]),
            etag=str(answer.get("ETag", "")).strip('"'),
            content_type=str(answer.get("ContentType", "")),
        )

    async def read_range(self, key: str, start: int, length_bytes: int) -> bytes:
        """The bytes of *key* from *start*, fewer than asked for only at the object's end. Held whole: keep it small."""
        span = f"bytes={start}-{start + length_bytes - 1}"
        return await self._patiently(lambda s3: bytes(s3.get_object(**self._at(key), Range=span)["Body"].read()))

    async def delete(self, key: str) -> None:
        """Remove the object; one that is not there counts as removed."""
        await self._patiently(lambda s3: s3.delete_object(**self._at(key)))

    async def list_uploads(self, prefix: str) -> list[UnfinishedUpload]:
        """The unfinished uploads under *prefix*, at most 20,000 of them."""

        def pages(s3: Any) -> list[UnfinishedUpload]:
            found: list[UnfinishedUpload] = []
            paginator = s3.get_paginator("list_multipart_uploads")
            for number, page in enumerate(paginator.paginate(Bucket=self._settings.bucket, Prefix=prefix), 1):
                for one in page.get("Uploads", []):
                    found.append(UnfinishedUpload(one["Key"], one["UploadId"], one["Initiated"]))
                if number >= _LIST_PAGES:
                    break
            return found

        return await self._patiently(pages)

    async def close(self) -> None:
        """Let go of connections. Threads that still wait for an answer end by their own time limit."""
        if self._session is not None:
            await self._session.close()
        if self._client is not None:
            self._client.close()

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": key}

    async def _patiently(self, call: Callable[[Any], T]) -> T:
        # A lost upload stays lost; a missing object stays missing.
        return await self._patience.retrying(UploadLostError, ObjectMissingError)(self._once, call)

    async def _once(self, call: Callable[[Any], T]) -> T:
        client = await self._built()
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await self._threads.run(lambda: translated(lambda: call(client)))
        except TimeoutError:
            raise TransientError("store_timeout", f"No answer within {_CALL_SECONDS:.0f} s.") from None

    async def _built(self) -> Any:
        async with self._building:
            if self._client is None:
                self._client = await self._threads.run(lambda: build_client(self._settings, _CONTROL_THREADS))
            return self._client
