"""Everything that can be wrong with a call, as rows: code, HTTP status, sentence, remedy.

A problem travels as an exception and ends as ``application/problem+json``:

    {"type": "/api/docs#problem-unknown-clip", "title": "There is no such clip", "status": 404,
     "detail": "…", "instance": "/api/clips/x", "code": "unknown-clip", "hint": "…",
     "errors": [{"field": "…", "value": "…", "reason": "…"}], "request_id": "…"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

CONTENT_TYPE = "application/problem+json"
# Enough of a value to recognise it by; the rest is the caller's own.
_VALUE_MAX_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: a stable code, the HTTP status, what it means and what to do."""

    code: str
    status: int
    title: str
    hint: str


_ROWS = (
    Kind("bad-request", 400, "The request cannot be understood", "Mend what the errors name and send it again."),
    Kind("bad-json", 400, "The body is not usable JSON", "Send one UTF-8 JSON object without repeated keys."),
    Kind("missing-video", 400, "videoUid is missing", 'Send {"videoUid": "<the provider\'s id>"}.'),
    Kind("not-ready", 400, "The video is not ready at the provider", "Ask again when its status is stream_ready."),
    Kind("clip-failed", 400, "The clip has failed", "Try it again with POST /api/clips/{id}/retry first."),
    Kind("unauthorized", 401, "A token is needed", "Send Authorization: Bearer <one of API_TOKENS>."),
    Kind("bad-signature", 401, "The signature was refused", "Sign the raw body with the secret of the account."),
    Kind("not-from-here", 403, "Only this machine may call", "Call 127.0.0.1 directly, or set API_TOKENS."),
    Kind("cross-site", 403, "The call came from another site's page", "Open this service's own pages."),
    Kind("read-only", 403, "This token may only look", "Sign in, or call, with one of API_TOKENS."),
    Kind("not-found", 404, "There is nothing at this address", "The addresses are listed at /api/docs."),
    Kind("unknown-clip", 404, "There is no such clip", "GET /api/clips lists those there are."),
    Kind("unknown-delivery", 404, "There is no such notification", "GET /api/clips/{id}/deliveries lists those kept."),
    Kind("method-not-allowed", 405, "The address does not take this method", "Use one that the Allow header names."),
    Kind("too-slow", 408, "The body did not arrive in time", "Send it again over a better line."),
    Kind("already-known", 409, "A clip with this video exists", "Use the clip that has it; its id is in the detail."),
    Kind("not-failed", 409, "Only a failed clip can be tried again", "Wait until its status is error."),
    Kind("cannot-retry", 409, "The clip cannot be tried again", "Create a new clip."),
    Kind("cannot-replay", 409, "The notification asks for nothing", "Replay one whose state has a status."),
    Kind("count-changed", 409, "The number of clips has changed", "Count again and confirm what you see then."),
    Kind("upload-under-way", 409, "The upload to the bucket is under way", "Watch the clip's status."),
    Kind("same-key-under-way", 409, "A call with this Idempotency-Key is being answered", "Send it again in a moment."),
    Kind("too-large", 413, "The body is too large", "Send less. Media goes to the upload address, not here."),
    Kind("unsupported-media", 415, "The body's type or coding is not taken", "Send plain application/json in UTF-8."),
    Kind("expectation-failed", 417, "The Expect header asks for something else", "Send 100-continue or nothing."),
    Kind("upload-differs", 409, "The upload exists with other bytes", "Use another uploadId for other bytes."),
    Kind("unknown-upload", 404, "There is no such upload", "Send the file to POST /api/videos/upload first."),
    Kind("wrong-offset", 409, "The upload is at another offset", "Ask for the offset with HEAD and go on from there."),
    Kind("upload-busy", 423, "The upload is being written to", "Send the piece again in a moment."),
    Kind("wrong-tus", 412, "This version of tus is not spoken here", "Send Tus-Resumable: 1.0.0."),
    Kind("no-space", 507, "The disk for uploads is full", "Tell the operator, or send a smaller file."),
    Kind("cutting-is-off", 404, "Cutting is switched off here", "Set UPLOAD_TMP_DIR, PROCESS_WORK_DIR, OUTPUT_ROOT."),
    Kind("invalid", 422, "A value is not acceptable", "Mend what the errors name and send it again."),
    Kind("unknown-status", 422, "The pipeline has no such status", "Use one of the statuses the errors name."),
    Kind("reused-key", 422, "The Idempotency-Key was used for another call", "Use a new key for each new call."),
    Kind("too-many-signals", 429, "Too many signals wait for this clip", "Ask again when they have been judged."),
    Kind("too-many-streams", 429, "Too many event streams are open", "Close some, or poll the clip with ETag."),
    Kind("internal", 500, "Something went wrong here", "Tell the operator the request_id; the log has the rest."),
    Kind("provider-refused", 502, "The provider refused the call", "Read the detail; the account may need attention."),
    Kind("database-away", 503, "The database is out of reach", "Ask again in a few seconds."),
    Kind("too-busy", 503, "More calls wait than can be taken", "Ask again after the time Retry-After names."),
    Kind("provider-away", 503, "The provider is out of reach or busy", "Ask again after the time Retry-After names."),
    Kind(
        "not-ready-yet", 503, "The service is not ready", "Read the detail; run `orchestrator migrate` if it says so."
    ),
    Kind("shutting-down", 503, "The service is being stopped", "Ask again in a few seconds."),
)
KINDS: Mapping[str, Kind] = {row.code: row for row in _ROWS}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to mend: where it stands, what stood there (shortened; None when it must not be shown), why not."""

    field: str
    reason: str
    value: str | None = None

    def as_json(self) -> dict[str, str]:
        """The entry under ``errors``."""
        shown = {} if self.value is None else {"value": self.value}
        return {"field": self.field, **shown, "reason": self.reason}


@dataclass
class Problem(Exception):
    """A refusal on its way to the caller."""

    code: str
    detail: str
    errors: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    hint: str | None = None

    def __post_init__(self) -> None:
        super().__init__(self.detail)

    @property
    def kind(self) -> Kind:
        """The row it belongs to."""
        return KINDS[self.code]

    def as_json(self, instance: str, request_id: str) -> dict[str, Any]:
        """The document the caller gets."""
        kind = self.kind
        return {
            "type": f"/api/docs#problem-{kind.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "instance": instance,
            "code": kind.code,
            "hint": self.hint or kind.hint,
            "errors": [fault.as_json() for fault in self.errors],
            "request_id": request_id,
        }


def invalid(name: str, reason: str, value: Any = None, *, code: str = "invalid") -> Problem:
    """A problem with one field."""
    return Problem(code, f"{name}: {reason}", [Fault(name, reason, None if value is None else shorten(value))])


def shorten(value: Any) -> str:
    """*value* as one printable line, cut to a length that recognises it."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:200])
    return line if len(line) <= _VALUE_MAX_CHARACTERS else line[: _VALUE_MAX_CHARACTERS - 1] + "…"


def problem_response(problem: Problem, instance: str, request_id: str) -> web.Response:
    """The answer that tells *problem*."""
    body = json.dumps(problem.as_json(shorten(instance), request_id), ensure_ascii=False)
    return web.Response(
        status=problem.kind.status,
        body=body.encode("utf-8", "replace"),
        headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", **problem.headers},
    )
