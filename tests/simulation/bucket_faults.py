"""Everything an object store was seen to answer, or may: the catalogue that the bucket lane goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulation.bucket import refused
from simulation.faults import Answer, Broken, Change, Fault, Reply, Silence, Slow

_XML = {"Content-Type": "application/xml"}
_PAGE = Reply(503, {"Content-Type": "text/html"}, b"<html><body>Service Unavailable</body></html>")


def _no(status: int, code: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(refused(status, code, named) if code else Reply(status, named))


def _error_within_200(code: str, *, applied: bool) -> Answer:
    return Answer(replace(refused(200, code)), applied)


def _etag(etag: str | None) -> Change:
    """Another ETag than the true one, in the head and in the body; or none."""

    def change(reply: Reply) -> Reply:
        others = {name: value for name, value in reply.headers.items() if name != "ETag"}
        headers: Mapping[str, str] = others if etag is None else {**others, "ETag": etag}
        return Reply(reply.status, headers, reply.body)

    return Change(change)


_EMPTY = Change(lambda reply: Reply(reply.status, {}, b""))
_OTHER = '"0123456789abcdef0123456789abcdef"'
_EVERY = ("create", "part", "complete", "head", "read", "abort", "delete", "list")
_CONTROL = tuple(call for call in _EVERY if call != "part")


@dataclass(frozen=True, slots=True)
class StoreFault:
    """One way to fail; *code* is what a clip ends with that never meets anything else, None where it waits."""

    fault: Fault
    code: str | None = "store_failing"
    calls: tuple[str, ...] = _EVERY


STORE_FAULTS: dict[str, StoreFault] = {
    "500": StoreFault(_no(500, "InternalError")),
    "502-page": StoreFault(Answer(replace(_PAGE, status=502))),
    "503": StoreFault(_no(503, "ServiceUnavailable")),
    "503-slow-down": StoreFault(_no(503, "SlowDown"), "store_busy"),
    "503-wait": StoreFault(_no(503, "ServiceUnavailable", Retry_After="12")),
    "503-page": StoreFault(Answer(_PAGE)),
    "429": StoreFault(_no(429, "TooManyRequests"), "store_busy"),
    "429-wait": StoreFault(_no(429, "TooManyRequests", Retry_After="8"), "store_busy"),
    "429-long-wait": StoreFault(_no(429, "TooManyRequests", Retry_After="600"), "store_busy"),
    "429-bare": StoreFault(_no(429), "store_busy"),
    "500-after": StoreFault(Answer(refused(500, "InternalError"), applied=True)),
    "broken": StoreFault(Broken(), "store_unreachable"),
    "broken-after": StoreFault(Broken(applied=True), "store_unreachable"),
    "silent": StoreFault(Silence(), "store_unreachable"),
    "silent-after": StoreFault(Silence(applied=True), "store_unreachable"),
    "slow": StoreFault(Slow(before_seconds=20.0, after_seconds=20.0), None),
    "401": StoreFault(_no(401, "Unauthorized"), None),
    "403": StoreFault(_no(403, "AccessDenied"), None),
    "403-signature": StoreFault(_no(403, "SignatureDoesNotMatch"), None),
    "400-expired": StoreFault(_no(400, "ExpiredRequest"), None),
    "403-skewed": StoreFault(_no(403, "RequestTimeTooSkewed"), None),
    "404-bucket": StoreFault(_no(404, "NoSuchBucket"), None, tuple(call for call in _EVERY if call != "head")),
    "400-unknown": StoreFault(_no(400, "SomethingNew"), None, tuple(call for call in _EVERY if call != "head")),
    "400-digest": StoreFault(_no(400, "BadDigest"), calls=("part",)),
    "400-incomplete": StoreFault(_no(400, "IncompleteBody"), calls=("part",)),
    "400-disconnect": StoreFault(_no(400, "ClientDisconnect"), calls=("part", "complete")),
    "400-timeout": StoreFault(_no(400, "RequestTimeout"), calls=("part", "complete")),
    "no-such-upload": StoreFault(_no(404, "NoSuchUpload"), "upload_unknown", ("part", "complete", "abort")),
    "no-such-upload-after": StoreFault(
        Answer(refused(404, "NoSuchUpload"), applied=True), "upload_unknown", ("complete", "abort")
    ),
    "parts-refused": StoreFault(_no(400, "InvalidPart"), "parts_refused", ("complete",)),
    "parts-too-small": StoreFault(_no(400, "EntityTooSmall"), "parts_refused", ("complete",)),
    "200-with-error": StoreFault(_error_within_200("InternalError", applied=False), calls=("complete",)),
    "200-with-error-after": StoreFault(_error_within_200("InternalError", applied=True), calls=("complete",)),
    "200-empty-after": StoreFault(_EMPTY, None, ("complete",)),
    "200-empty": StoreFault(Answer(Reply(200, _XML, b"")), "store_failing", ("complete",)),
    "wrong-etag": StoreFault(_etag(_OTHER), "part_differs", ("part",)),
    "no-etag": StoreFault(_etag(None), "store_failing", ("part",)),
    "wrong-etag-of-the-object": StoreFault(_etag('"0123456789abcdef0123456789abcdef-3"'), None, ("head",)),
    "foreign-etag-of-the-object": StoreFault(_etag(_OTHER), None, ("head",)),
    "404-not-there": StoreFault(_no(404), "object_missing", ("head",)),
    "404-no-key": StoreFault(_no(404, "NoSuchKey"), "object_missing", ("read",)),
    "416": StoreFault(_no(416, "InvalidRange"), None, ("read",)),
    "short-read": StoreFault(Change(lambda reply: replace(reply, body=reply.body[:-1])), None, ("read",)),
}
CELLS = [(call, name) for name, one in STORE_FAULTS.items() for call in one.calls]
CONTROL_CALLS = _CONTROL
