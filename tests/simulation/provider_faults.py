"""Everything a provider's API was seen to answer, or may: the catalogue that the provider lane goes through."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from simulation.cloudflare import THROTTLED, refused
from simulation.faults import Answer, Broken, Change, Drip, Fault, Reply, Silence, Slow, changed_document
from simulation.nodes import EPOCH

_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html; charset=UTF-8"}
_PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>1020</body></html>"
_BEGAN = datetime.fromtimestamp(EPOCH, UTC)


def _page(status: int) -> Answer:
    return Answer(Reply(status, _HTML, _PAGE))


def _said(status: int, code: int, message: str, **headers: str) -> Answer:
    return Answer(refused(status, code, message, {name.replace("_", "-"): value for name, value in headers.items()}))


def _body(body: bytes, status: int = 200, *, applied: bool = False, headers: Mapping[str, str] = _JSON) -> Answer:
    return Answer(Reply(status, headers, body), applied)


def _cut(share: float) -> Change:
    return Change(lambda reply: Reply(reply.status, reply.headers, reply.body[: int(len(reply.body) * share)]))


def _document(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(document: Any) -> Any:
        change(document)
        return document

    return changed_document(apply)


def _each(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change each video, or each MP4, in the answer."""

    def apply(document: Any) -> Any:
        result = document.get("result")
        for one in result if isinstance(result, list) else [result]:
            if isinstance(one, dict):
                change(one["default"] if isinstance(one.get("default"), dict) else one)
        return document

    return changed_document(apply)


def _status(**said: Any) -> Change:
    """Change what is said of the encoding, and what is said of the MP4."""

    def apply(one: dict[str, Any]) -> None:
        if isinstance(one.get("status"), dict):
            one["status"].update({name: value for name, value in said.items() if name != "percentComplete"})
        elif "percentComplete" in one:
            one["percentComplete"] = said.get("pctComplete", one["percentComplete"])
            one["status"] = said.get("state", one["status"])

    return _each(apply)


def _bomb() -> bytes:
    return gzip.compress(b" " * 10_000_000, 9)


#: Answers with 429, which refuse every call of the account.
LIMITS: dict[str, Fault] = {
    "429": _said(429, THROTTLED, "Please wait and consider throttling your request rate"),
    "429-few-seconds": _said(429, THROTTLED, "Please wait", Retry_After="3"),
    "429-two-hours": _said(429, THROTTLED, "Please wait", Retry_After="7200"),
    "429-date": _said(
        429,
        THROTTLED,
        "Please wait",
        Retry_After=format_datetime(_BEGAN + timedelta(minutes=7), usegmt=True),
        Date=format_datetime(_BEGAN, usegmt=True),
    ),
    "429-nonsense": _said(429, THROTTLED, "Please wait", Retry_After="soon"),
    "429-page": _page(429),
    "429-of-videos": _said(429, 1000, "Too many videos are queued or being encoded"),
    "971-with-400": _said(400, THROTTLED, "Please wait and consider throttling your request rate"),
}

#: The provider, or the way to it, is away.
AWAY: dict[str, Fault] = {
    "500": _said(500, 10000, "Internal error"),
    "502-page": _page(502),
    "503-wait": _said(503, 1000, "Service unavailable", Retry_After="20"),
    "504": _page(504),
    "520": _page(520),
    "408": _said(408, 1000, "Request timeout"),
    "silent": Silence(),
    "broken": Broken(),
    "slow": Slow(before_seconds=25.0),
    "slow-after": Slow(after_seconds=29.0),
    "too-slow": Slow(before_seconds=40.0),
    "drip": Drip(),
    "empty": _body(b""),
    "page": _body(_PAGE, headers=_HTML),
    "page-403": _page(403),
    "page-404": _page(404),
    "null": _body(b"null"),
    "list": _body(b"[]"),
    "no-envelope": _body(b"{}"),
    "success-missing": _body(b'{"result": {}}'),
    "success-as-text": _body(b'{"success": "true", "result": null}'),
    "no-without-reason": _body(b'{"success": false, "errors": [], "result": null}'),
    "redirect": _body(b"", 302, headers={"Location": "https://elsewhere.example.com/"}),
    "redirect-page": _body(_PAGE, 301, headers={**_HTML, "Location": "http://169.254.169.254/"}),
    "deep": _body(b'{"success": true, "result": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "not-utf8": _body(b'{"success": true, "result": "\xff\xfe"}'),
    "bomb": _body(_bomb(), headers={**_JSON, "Content-Encoding": "gzip"}),
    "bad-gzip": _body(b"\x1f\x8bno", headers={**_JSON, "Content-Encoding": "gzip"}),
    "huge": _body(b'{"success": true, "result": "' + b"x" * 9_000_000 + b'"}'),
}

#: The thing was done and the answer says otherwise, or nothing.
DONE: dict[str, Fault] = {
    "silent-after": Silence(applied=True),
    "broken-after": Broken(applied=True),
    "500-after": Answer(refused(500, 10000, "Internal error"), applied=True),
    "502-page-after": Answer(Reply(502, _HTML, _PAGE), applied=True),
    "empty-after": _body(b"", applied=True),
    "cut-at-once": _cut(0.05),
    "cut": _cut(0.6),
    "cut-at-the-end": _cut(0.99),
    "no-after": _document(lambda said: said.update(success=False)),
    "no-result": _document(lambda said: said.update(result=None)),
}

#: The API says no, and means the token, the account, or what was asked.
REFUSALS: dict[str, Fault] = {
    "401": _said(401, 10000, "Authentication error"),
    "403": _said(403, 9109, "Unauthorized to access requested resource"),
    "401-empty": _body(b"", 401),
    "400-token": _said(400, 6003, "Invalid request headers"),
    "404-route": _said(404, 7003, "Could not route to the path"),
    "404": _said(404, 10003, "Not Found"),
    "200-not-found": _body(json.dumps({"success": False, "errors": [{"code": 10003}], "result": None}).encode()),
    "400": _said(400, 10005, "Bad Request"),
    "409": _said(409, 10046, "Cannot do that now"),
    "413": _said(413, 1000, "Storage quota exceeded"),
    "413-size": _said(413, 1000, "Too large"),
    "418": _said(418, 1000, "No"),
}

#: True answers in words nobody expects.
WORDS: dict[str, Fault] = {
    "percent-as-text": _status(pctComplete="39.000000"),
    "percent-null": _status(pctComplete=None),
    "percent-empty": _status(pctComplete=""),
    "percent-words": _status(pctComplete="most of it"),
    "percent-huge": _status(pctComplete=1e300),
    "percent-as-list": _status(pctComplete=[39]),
    "state-unknown": _status(state="transmogrifying"),
    "state-null": _status(state=None),
    "state-number": _status(state=7),
    "status-null": _each(lambda one: one.update(status=None)),
    "status-missing": _each(lambda one: one.pop("status", None)),
    "status-as-text": _each(lambda one: one.update(status="inprogress")),
    "flag-null": _each(lambda one: one.update(readyToStream=None)),
    "flag-as-text": _each(lambda one: one.update(readyToStream="True")),
    "duration-as-text": _each(lambda one: one.update(duration=str(one.get("duration", 0)))),
    "duration-null": _each(lambda one: one.update(duration=None)),
    "duration-unknown": _each(lambda one: one.update(duration=-1)),
    "dates-null": _each(lambda one: one.update(created=None, modified=None, uploaded=None, uploadExpiry=None)),
    "dates-odd": _each(lambda one: one.update(created="0001-01-01T00:00:00Z", uploaded="yesterday")),
    "playback-null": _each(lambda one: one.update(playback=None, thumbnail=None)),
    "meta-odd": _each(lambda one: one.update(meta={"a\0b": "\ud800", "c": [1], "d": {"e": 1}})),
    "sizes-odd": _each(lambda one: one.update(size="many", input=[1, 2])),
    "more-fields": _each(lambda one: one.update(fresh={"new": [1, {"two": None}]})),
    "uid-missing": _each(lambda one: one.pop("uid", None)),
    "uid-null": _each(lambda one: one.update(uid=None)),
    "uid-number": _each(lambda one: one.update(uid=12345)),
    "uid-odd": _each(lambda one: one.update(uid="../../etc/passwd")),
    "errors-null": _document(lambda said: said.update(errors=None, messages=None)),
    "errors-beside-success": _document(lambda said: said.update(errors=[{"code": 971, "message": "old news"}])),
    "result-as-text": _document(lambda said: said.update(result="done")),
    "result-as-number": _document(lambda said: said.update(result=5)),
    "result-as-list": _document(lambda said: said.update(result=[None, 3, "x"])),
    "mp4-address-null": _each(lambda one: "percentComplete" in one and one.update(url=None)),
    "mp4-flat": _document(
        lambda said: (
            isinstance(said["result"], dict) and said.update(result=said["result"].get("default", said["result"]))
        )
    ),
}


@dataclass(frozen=True, slots=True)
class Named:
    """One entry of the catalogue."""

    name: str
    fault: Fault
    family: str


CATALOGUE: tuple[Named, ...] = tuple(
    Named(name, fault, family)
    for family, faults in (
        ("limit", LIMITS),
        ("away", AWAY),
        ("done", DONE),
        ("refusal", REFUSALS),
        ("words", WORDS),
    )
    for name, fault in faults.items()
)
