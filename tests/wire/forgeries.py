"""Notifications that must have no effect: badly signed ones, and well signed nonsense."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.drivers.signatures import HEADER, sign

PATH = "/webhooks/cloudflare"
SIZE_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Notice:
    """One call of the webhook: its name, the headers as they stand, its body, and what it may be answered."""

    name: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    statuses: frozenset[int]


def notice_body(uid: str, state: str = "ready", **fields: object) -> bytes:
    """What the provider sends of a video."""
    status = {"state": state, "pctComplete": "100.000000", "errorReasonCode": "", "errorReasonText": ""}
    document = {"uid": uid, "readyToStream": state == "ready", "status": status, "meta": {"name": "x.mp4"}, **fields}
    return json.dumps(document).encode()


def forged(uid: str, secret: str, former: str, now: float) -> Iterator[Notice]:
    """Notices that *secret* did not sign, or did not sign now, or did not sign like this: 401 each."""
    body = notice_body(uid)
    good = sign(body, secret, now)
    time_part, sig_part = good.split(",")
    moment, digits = time_part.removeprefix("time="), sig_part.removeprefix("sig1=")
    values = {
        "empty": "",
        "blank": " ",
        "another-secret": sign(body, "somebody-elses-secret", now),
        "withdrawn-secret": sign(body, former, now),
        "another-body": sign(body + b" ", secret, now),
        "body-alone": f"{time_part},sig1={_hmac(secret, body)}",
        "no-dot": f"{time_part},sig1={_hmac(secret, moment.encode() + body)}",
        "empty-secret": f"{time_part},sig1={_hmac('', moment.encode() + b'.' + body)}",
        "zeros": f"{time_part},sig1={'0' * 64}",
        "301-seconds-old": sign(body, secret, now - 301),
        "301-seconds-early": sign(body, secret, now + 302),
        "an-hour-old": sign(body, secret, now - 3600),
        "from-1970": sign(body, secret, 0),
        "another-time": f"time={int(now) - 1},{sig_part}",
        "time-in-milliseconds": sign(body, secret, now * 1000),
        "negative-time": f"time=-{moment},{sig_part}",
        "signed-time": f"time=+{moment},{sig_part}",
        "decimal-time": f"time={moment}.0,{sig_part}",
        "hex-time": f"time={int(now):#x},{sig_part}",
        "underscored-time": f"time={moment[:3]}_{moment[3:]},{sig_part}",
        "endless-time": f"time={'9' * 400},{sig_part}",
        "arabic-digits": f"time={''.join(chr(0x660 + int(digit)) for digit in moment)},{sig_part}",
        "upper-case": f"{time_part},sig1={digits.upper()}",
        "mixed-case": f"{time_part},sig1={digits[:32].upper()}{digits[32:]}",
        "quoted": f'{time_part},sig1="{digits}"',
        "one-digit-less": f"{time_part},sig1={digits[:-1]}",
        "one-digit-more": f"{time_part},sig1={digits}0",
        "base64": f"{time_part},sig1=" + "A" * 43 + "=",
        "time-alone": time_part,
        "signature-alone": sig_part,
        "no-value": "time=,sig1=",
        "no-equals": f"{moment},{digits}",
        "semicolon": f"{time_part};{sig_part}",
        "blank-after-comma": f"{time_part}, {sig_part}",
        "trailing-comma": f"{good},",
        "two-signatures": f"{good},sig1={'0' * 64}",
        "two-signatures-good-last": f"{time_part},sig1={'0' * 64},{sig_part}",
        "the-same-twice": f"{good},{good}",
        "two-times": f"{good},time={moment}",
        "other-field-twice": f"{good},a=1,a=2",
        "other-scheme": f"{time_part},sig2={digits}",
        "case-of-names": f"Time={moment},Sig1={digits}",
        "nothing-but-commas": "," * 200,
        "long": good + ",x=" + "y" * 2000,
        "stripe": f"t={moment},v1={digits}",
        "bearer": f"Bearer {secret}",
    }  # fmt: skip
    for name, value in values.items():
        yield Notice(name, ((HEADER, value),), body, frozenset({401}))
    yield Notice("no-header", (), body, frozenset({401}))
    yield Notice("header-twice", ((HEADER, good), (HEADER, good)), body, frozenset({401}))
    yield Notice("bad-header-first", ((HEADER, "time=1,sig1=0"), (HEADER, good)), body, frozenset({401}))
    yield Notice("bad-header-last", ((HEADER, good), (HEADER, "")), body, frozenset({401}))
    for other in ("cf-webhook-signature", "webhook-signing-key", "X-Signature", "Webhook_Signature"):
        yield Notice(f"in-{other}", ((other, good),), body, frozenset({401}))
    # What no HTTP parser should let through at all.
    odd = frozenset({400, 401})
    yield Notice("nul-in-header", ((HEADER, good + "\0"),), body, odd)
    yield Notice("folded-header", ((HEADER, f"{time_part},\r\n {sig_part}"),), body, odd)
    yield Notice("blank-before-colon", ((HEADER + " ", good),), body, odd)


def _hmac(secret: str, message: bytes) -> str:
    import hashlib
    import hmac

    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def nonsense(uid: str, secret: str, now: float) -> Iterator[Notice]:
    """Well signed bodies that say nothing usable: refused, whoever sends them."""
    name = json.dumps({"uid": uid, "status": {"state": "ready"}, "meta": {"name": "@"}})
    bodies = {
        "empty": b"",
        "blank": b"  ",
        "half": b'{"uid": ',
        "list": b"[]",
        "text": b'"x"',
        "null": b"null",
        "no-uid": b'{"status": {"state": "ready"}}',
        "number-for-uid": b'{"uid": 5}',
        "null-uid": b'{"uid": null}',
        "list-of-uids": json.dumps({"uid": [uid]}).encode(),
        "path-for-uid": b'{"uid": "../../etc/passwd"}',
        "statement-for-uid": b'{"uid": "\' OR 1=1 --"}',
        "long-uid": json.dumps({"uid": "f" * 65}).encode(),
        "uid-and-line-end": json.dumps({"uid": uid + "\n"}).encode(),
        "uid-and-nul": json.dumps({"uid": uid + "\0"}).encode(),
        "uid-twice": f'{{"uid": "{uid}", "uid": "{uid}"}}'.encode(),
        "state-twice": f'{{"uid": "{uid}", "status": {{"state": "ready", "state": "error"}}}}'.encode(),
        "nul-in-name": name.replace("@", "a\\u0000b").encode(),
        "nul-in-key": f'{{"uid": "{uid}", "meta": {{"\\u0000": "x"}}}}'.encode(),
        "lone-surrogate": name.replace("@", "\\ud800").encode(),
        "lone-low-surrogate": name.replace("@", "\\udfff x").encode(),
        "raw-surrogate": name.encode().replace(b"@", b"\xed\xa0\x80"),
        "not-utf-8": name.encode().replace(b"@", b"\xff"),
        "utf-16": name.encode("utf-16"),
        "byte-order-mark": b"\xef\xbb\xbf" + name.encode(),
        "nan": f'{{"uid": "{uid}", "size": NaN}}'.encode(),
        "infinity": f'{{"uid": "{uid}", "duration": -Infinity}}'.encode(),
        "huge-float": f'{{"uid": "{uid}", "duration": 1e400000}}'.encode(),
        "20000-deep-lists": b'{"uid": "%s", "meta": %s1%s}' % (uid.encode(), b"[" * 20_000, b"]" * 20_000),
        "10000-deep-objects": b'{"uid": "%s", "meta": %s1%s}' % (uid.encode(), b'{"a":' * 9_000, b"}" * 9_000),
        "unclosed-deep": b"[" * 60_000,
        "a-little-too-deep": b'{"uid": "%s", "meta": %s1%s}' % (uid.encode(), b"[" * 40, b"]" * 40),
        "60000-digits": b'{"uid": "%s", "size": %s}' % (uid.encode(), b"9" * 60_000),
        "two-documents": name.encode() * 2,
        "trailing": name.encode() + b" x",
        "form": f"uid={uid}&status=ready".encode(),
        "xml": f"<video><uid>{uid}</uid></video>".encode(),
    }
    for title, body in bodies.items():
        yield Notice(title, ((HEADER, sign(body, secret, now)),), body, frozenset({400}))
    big = notice_body(uid) + b" " * SIZE_LIMIT_BYTES
    yield Notice("oversized", ((HEADER, sign(big, secret, now)),), big, frozenset({413}))
    edge = notice_body(uid).ljust(SIZE_LIMIT_BYTES + 1)
    yield Notice("one-byte-over", ((HEADER, sign(edge, secret, now)),), edge, frozenset({413}))
    yield from compressed(uid, secret, now)


def compressed(uid: str, secret: str, now: float) -> Iterator[Notice]:
    """Compressed bodies, signed before and after, one of them a bomb: never opened."""
    plain = notice_body(uid)
    bomb = gzip.compress(plain + b" " * 50_000_000)
    made = {"gzip": gzip.compress(plain), "deflate": zlib.compress(plain), "br": plain, "zstd": plain, "x-gzip": plain}
    for coding, body in [*made.items(), ("gzip", bomb), ("GZIP", gzip.compress(plain)), ("gzip, identity", plain)]:
        for over in (body, plain):
            headers = (("Content-Encoding", coding), (HEADER, sign(over, secret, now)))
            yield Notice(f"coded-{coding}", headers, body, frozenset({415}))


def harmless(uid: str, now: float) -> Iterator[tuple[str, bytes, str]]:
    """Odd bodies that do say something, each with the status it asks for."""

    def said(status: object, **document: object) -> bytes:
        return json.dumps({"uid": uid, "status": status, **document}).encode()

    ready = {"state": "ready"}
    yield "plain", notice_body(uid), "stream_ready"
    yield (
        "numbers-as-texts",
        said({"state": "ready", "pctComplete": "39"}, size="5", duration="5.5"),
        "stream_ready",
    )
    yield "numbers", said({"state": "ready", "pctComplete": 39.5}, size=5, duration=5), "stream_ready"
    yield "odd-types", said({"state": "ready", "pctComplete": []}, size={}, duration="x", meta=7), "stream_ready"
    yield "nulls", said({"state": "ready", "pctComplete": None}, playback=None, meta=None), "stream_ready"
    yield "status-as-text", said("ready"), "stream_ready"
    yield "id-for-uid", json.dumps({"id": uid, "status": ready}).encode(), "stream_ready"
    yield "readytoStream", said(ready, readytoStream=True), "stream_ready"
    yield "readyToStream-false", said(ready, readyToStream=False), "stream_ready"
    code = {"errorReasonCode": "ERR_NON_VIDEO", "errorReasonText": "no video"}
    yield "errorReason", said({"state": "error", **code}), "error"
    code = {"errReasonCode": "ERR_NON_VIDEO", "errReasonText": "no video"}
    yield "errReason", said({"state": "error", **code}), "error"
    yield (
        "error-text-with-markup",
        said({"state": "error", "errorReasonText": "<script>alert(1)</script>"}),
        "error",
    )
    yield "long-error-text", said({"state": "error", "errorReasonText": "x" * 60_000}), "error"
    yield "large-meta", said({"state": "inprogress"}, meta={f"k{n}": "v" * 50 for n in range(900)}), "processing"
    yield "pretty", json.dumps({"uid": uid, "status": {"state": "queued"}}, indent=4).encode(), "queued"
    yield "at-the-limit", notice_body(uid).ljust(SIZE_LIMIT_BYTES), "stream_ready"
    yield (
        "unknown-fields",
        said({"state": "ready", "new": {"a": [1]}}, liveInput="x", watermark={}),
        "stream_ready",
    )
