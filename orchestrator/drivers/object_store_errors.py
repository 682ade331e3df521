"""What the object store's refusals mean, as one table of its error codes.

    TransientError
    ├── UploadLostError      the unfinished upload cannot be continued; begin a new one
    ├── ObjectMissingError   there is nothing at the key
    └── (plain)              the same call again may do
    PermanentError           keys, bucket or clock have to be mended by a person

Codes: https://developers.cloudflare.com/r2/api/error-codes/ (read 2026-11), and `SlowDown` and
`RequestTimeout` of the S3 dialect, which other stores use.
"""

from __future__ import annotations

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError


class UploadLostError(TransientError):
    """The multipart upload is unknown, aborted, or its parts were refused as a set."""


class ObjectMissingError(TransientError):
    """The key holds no object."""


#: The store's codes for keys, rights and clock, where asking again changes nothing.
_REFUSED = {
    "AccessDenied",
    "ExpiredRequest",
    "InvalidAccessKeyId",
    "NotEntitled",
    "ObjectLockedByBucketPolicy",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "Unauthorized",
}
#: 400s that are about what happened on the wire, not about the request.
_WIRE = {"BadDigest", "ClientDisconnect", "IncompleteBody", "RequestTimeout"}
#: The set of parts cannot become an object: wrong sizes, or one is gone.
_PARTS = {"EntityTooLarge", "EntityTooSmall", "InvalidPart", "InvalidPartOrder"}

#: One write a second to one key is the documented limit, so a 429 without a time means this.
_WAIT_AFTER_429_SECONDS = 1.0


def translate(code: str, status: int, retry_after: str | None = None) -> DriverError:
    """The driver error for the store's *code* (may be empty, as for HEAD) and HTTP *status*.

    The store's own message is left out: some stores quote the request in it, signature included.
    """
    said = f"The object store answered {status} {code}".rstrip() + "."
    if code == "NoSuchUpload":
        return UploadLostError("upload_unknown", said)
    if code in _PARTS:
        return UploadLostError("parts_refused", said)
    if code == "NoSuchBucket":
        return PermanentError("bucket_missing", said)
    if code == "NoSuchKey":
        return ObjectMissingError("object_missing", said)
    if code in _REFUSED or status in (401, 403):
        return PermanentError("store_refused", said)
    if status == 429 or code in ("TooManyRequests", "SlowDown"):
        named = _seconds(retry_after)
        return TransientError("store_busy", said, _WAIT_AFTER_429_SECONDS if named is None else named)
    if status >= 500 or status in (408, 425) or code in _WIRE:
        return TransientError("store_failing", said, _seconds(retry_after))
    if status == 404:
        return ObjectMissingError("object_missing", said)
    return PermanentError("store_rejected", said)


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; its date form is not used by object stores and counts as absent."""
    try:
        seconds = float(text) if text else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < 86_400 else None
