"""Ways to bring a file from an address into a bucket, each in a process of its own: the product's and bare ones.

    python -m benchmarks.pumps <<< '{"kind": "thread", "source": "http://…", "at_once": 1, …}'

The bare ones keep no checkpoint, hash nothing and verify nothing: `thread` reads and sends by blocking calls in a
thread for each file, `aiohttp` streams from one client into another, both to one presigned address a file. `boto3` is
its `upload_fileobj` with every default, from a reader that streams. The answer is one JSON object.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yarl import URL

from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings, build_client
from orchestrator.drivers.stored_objects import ObjectHead, UploadedPart, multipart_etag

# The quickest of 64 KiB to 1 MiB.
_BUFFER_BYTES = 256 * 1024

Job = dict[str, Any]


class AsR2(ObjectStore):
    """The bucket as R2 would answer for it: HEAD tells the ETag that the parts give.

    rclone tells the MD5 of the whole, for which the product would read everything back; R2 never takes that way.
    """

    def __init__(self, settings: ObjectStoreSettings) -> None:
        super().__init__(settings)
        self._etags: dict[str, str] = {}

    async def complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        await super().complete(key, upload_id, parts)
        self._etags[key] = multipart_etag(parts)

    async def head(self, key: str) -> ObjectHead | None:
        found = await super().head(key)
        return found and ObjectHead(found.size_bytes, self._etags.get(key, found.etag), found.content_type)


def settings_of(job: Job) -> ObjectStoreSettings:
    """Where the bucket is."""
    return ObjectStoreSettings(
        endpoint_url=job["endpoint"],
        access_key_id=job["access_key_id"],
        secret_access_key=job["secret_access_key"],
        bucket=job["bucket"],
        public_url=job["endpoint"],
    )


def by_threads(job: Job) -> float:
    """Seconds for all files, one blocking thread each."""
    addresses = _presigned(job)
    return _timed(job, lambda number: _pump(job["source"], addresses[number]))


def _pump(source: str, target: str) -> None:
    begin, end = urlsplit(source), urlsplit(target)
    reading = http.client.HTTPConnection(begin.hostname or "", begin.port)
    reading.request("GET", begin.path)
    answer = reading.getresponse()
    sending = http.client.HTTPConnection(end.hostname or "", end.port)
    sending.putrequest("PUT", f"{end.path}?{end.query}")
    sending.putheader("Content-Length", str(answer.length))
    sending.endheaders()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    while taken := answer.readinto(buffer):
        sending.send(buffer[:taken])
    done = sending.getresponse()
    done.read()
    if done.status != 200:
        raise RuntimeError(f"the bucket answered {done.status}")
    reading.close()
    sending.close()


def by_boto3(job: Job) -> float:
    """Seconds for all files, by the client as it comes."""
    import boto3

    s3 = boto3.client(
        "s3", endpoint_url=job["endpoint"], aws_access_key_id=job["access_key_id"],
        aws_secret_access_key=job["secret_access_key"], region_name="us-east-1",
    )  # fmt: skip

    def upload(number: int) -> None:
        with urllib.request.urlopen(job["source"]) as body:  # noqa: S310 - an address of this benchmark
            s3.upload_fileobj(body, job["bucket"], f"boto3-{number}")

    return _timed(job, upload)


def _timed(job: Job, do: Callable[[int], None]) -> float:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            do(number)
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(job["at_once"])]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def _presigned(job: Job) -> list[str]:
    s3 = build_client(settings_of(job), 1)
    return [
        s3.generate_presigned_url("put_object", Params={"Bucket": job["bucket"], "Key": f"{job['kind']}-{number}"})
        for number in range(job["at_once"])
    ]


async def by_aiohttp(job: Job) -> float:
    """Seconds for all files, each from one client into another."""
    import aiohttp

    addresses = await asyncio.to_thread(_presigned, job)
    async with aiohttp.ClientSession(read_bufsize=_BUFFER_BYTES, timeout=aiohttp.ClientTimeout(total=None)) as http:

        async def copy(target: str) -> None:
            async with http.get(job["source"]) as answer:
                headers = {"Content-Length": answer.headers["Content-Length"]}
                body = answer.content.iter_any()
                async with http.put(URL(target, encoded=True), data=body, headers=headers) as done:
                    done.raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(copy(target) for target in addresses))
        return time.perf_counter() - started


async def by_product(job: Job) -> float:
    """Seconds for all files, checkpoints in PostgreSQL, hashes and verification included."""
    from orchestrator.drivers.egress import EgressPolicy
    from orchestrator.storage.pool import create_pool
    from orchestrator.transfer import HttpSource, PostgresCheckpoints, TransferJob, copy_to_bucket

    origins = ["{0.scheme}://{0.netloc}".format(urlsplit(job[name])) for name in ("source", "small")]
    pool = await create_pool(job["database"], "orchestrator_monitor", "benchmark")
    source, store, checkpoints = (
        HttpSource(EgressPolicy.allowing(origins, [])),
        AsR2(settings_of(job)),
        PostgresCheckpoints(pool),
    )

    async def copy(address: str, name: str) -> None:
        asked = TransferJob(name, name, 1, address, expected_duration_seconds=10.0)
        await copy_to_bucket(asked, source, store, checkpoints, lambda _: None)

    try:
        await copy(job["small"], f"{job['name']}-warm")  # clients built, statements prepared
        job["idle_bytes"] = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
        started = time.perf_counter()
        await asyncio.gather(*(copy(job["source"], f"{job['name']}-{number}") for number in range(job["at_once"])))
        return time.perf_counter() - started
    finally:
        await source.close()
        await store.close()
        await pool.close()


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Do the job on stdin."""
    job: Job = json.load(sys.stdin)
    match job["kind"]:
        case "thread":
            seconds = by_threads(job)
        case "boto3":
            seconds = by_boto3(job)
        case "aiohttp":
            seconds = asyncio.run(by_aiohttp(job))
        case _:
            seconds = asyncio.run(by_product(job))
    peak = _memory("VmHWM")
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "above_idle_bytes": peak - job.get("idle_bytes", peak)}))


if __name__ == "__main__":
    main()
