"""The bucket: may it be read, and, when asked for, written, read by everybody, and cleared again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence

import aiohttp

from orchestrator.commands.doctor.findings import Finding, fail, ok, warn
from orchestrator.drivers.errors import DriverError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.drivers.patience import Patience
from orchestrator.drivers.stored_objects import ObjectLabels, UploadedPart
from orchestrator.settings import Settings

# Beside the clips, so that a probe that was left behind is nobody's file.
_PREFIX = "orchestrator-doctor/"
_PROBE = b"A probe of `orchestrator doctor`; it may be deleted.\n"
_LABELS = ObjectLabels(content_type="text/plain", cache_control="no-store")
_STALL_SECONDS = 10.0
_PUBLIC_SECONDS = 8.0

_NETWORK = "look at R2_ENDPOINT_URL (or R2_ACCOUNT_ID) and the network from here"
_REMEDIES = {
    "bucket_missing": "make the bucket, or mend R2_BUCKET_NAME and R2_ENDPOINT_URL (or R2_ACCOUNT_ID)",
    "store_refused": "mend R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY: they need object read and write in this bucket",
    "store_rejected": "mend R2_ENDPOINT_URL (or R2_ACCOUNT_ID) and R2_BUCKET_NAME",
}


async def check_bucket(settings: Settings, *, write: bool) -> Sequence[Finding]:
    """Whether the bucket is there and the keys open it; with *write*, the whole way of a file through it."""
    store = ObjectStore(
        ObjectStoreSettings(
            endpoint_url=settings.bucket_endpoint,
            access_key_id=settings.r2_access_key_id.get_secret_value(),
            secret_access_key=settings.r2_secret_access_key.get_secret_value(),
            bucket=settings.r2_bucket_name,
            public_url=settings.bucket_public_url,
        ),
        # Once: whoever asks the doctor can ask again.
        Patience(attempts=1),
    )
    key = f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        await store.head(key)
        findings = [ok("bucket", f"{settings.r2_bucket_name} can be read")]
        return [*findings, *await _write(store, key)] if write else findings
    except DriverError as problem:
        return [_failed("bucket", problem)]
    finally:
        await store.close()


def _failed(what: str, problem: DriverError) -> Finding:
    return fail(what, f"{problem.text.rstrip('.')} ({problem.code})", _REMEDIES.get(problem.code, _NETWORK))


async def _write(store: ObjectStore, key: str) -> list[Finding]:
    """Put a probe the way files are put, look at it as everybody does, and remove it, whatever happens between."""
    what = "bucket write"
    try:
        await _put(store, key)
        try:
            public = await _check_public(store.public_url(key))
        finally:
            await store.delete(key)
        if await store.head(key) is not None:
            return [
                fail(what, f"{key} was deleted and is still there", "delete it, and look at the bucket's locks"),
                public,
            ]
    except DriverError as problem:
        return [_failed(what, problem)]
    return [ok(what, "a probe was written, read and deleted"), public]


async def _put(store: ObjectStore, key: str) -> None:
    upload_id = await store.create_multipart(key, _LABELS)
    try:
        address = await store.presign_part(key, upload_id, 1)
        etag = await store.put_part(address, _once(_PROBE), len(_PROBE), _STALL_SECONDS)
        await store.complete(key, upload_id, [UploadedPart(1, etag, len(_PROBE))])
    except BaseException:
        with contextlib.suppress(DriverError):
            await store.abort(key, upload_id)
        raise


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _check_public(url: str) -> Finding:
    """Whether the probe is at its public address."""
    what = "bucket public"
    place, _, _ = url.partition(f"/{_PREFIX}")
    remedy = "mend R2_PUBLIC_URL, or make the bucket public there"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PUBLIC_SECONDS), trust_env=False) as session,
            session.get(url) as answer,
        ):
            found = await answer.content.read(len(_PROBE) + 1)
    except (aiohttp.ClientError, OSError, TimeoutError) as problem:
        return warn(what, f"{place} cannot be reached from here ({type(problem).__name__})", remedy)
    if answer.status != 200 or found != _PROBE:
        return warn(what, f"{place} answers {answer.status} where the probe should be", remedy)
    return ok(what, f"{place} hands out what is in the bucket")
