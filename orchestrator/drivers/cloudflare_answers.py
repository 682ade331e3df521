"""What an answer of the Cloudflare API means: a result, or one of our two kinds of failure.

    {"result": …, "success": true, "errors": [{"code": 10003, "message": "Not Found"}], "messages": []}

The HTTP status and `success` must both agree. The rows of `_failure` are read from the top; the first that
applies wins. Pure: the bytes of an answer go in, a value or an error comes out.

Source: https://developers.cloudflare.com/fundamentals/api/ and the pages of Stream beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.drivers.lenient import text, whole

# A service that asks for more patience than this is not asked again within the call.
REPEAT_PAUSE_MAX_SECONDS = 5.0
# With 120 videos in flight one leaves every few seconds at best, but nobody knows whose: minutes, not seconds.
BUSY_PAUSE_SECONDS = 120.0

_NOT_FOUND = 10003
_WRONG_ADDRESS = frozenset({7000, 7003})
_REFUSED_TOKEN = frozenset({6003, 9106, 9109, 10000})
_THROTTLED = 971

# The numbers of these conditions are not documented, their words are.
_SAYS_THROTTLED = re.compile(r"rate.?limit|throttl|too many requests|request rate", re.IGNORECASE)
_SAYS_QUOTA = re.compile(r"quota|storage|out of minutes", re.IGNORECASE)
_SAYS_BUSY = re.compile(r"video|queue|encod|upload|in progress", re.IGNORECASE)
_SAYS_TOO_LONG = re.compile(r"too long", re.IGNORECASE)
# A message may quote the address it is about, and that may be a signed one.
_ADDRESS = re.compile(r"\S+://\S+")
_SAID_ERRORS = 3
_SAID_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of call, and what may be done when it fails."""

    name: str
    method: str
    # Asking twice has the result of asking once.
    repeatable: bool = False
    # Makes a video: a lost answer may have made one, and the account's limits on videos apply.
    creates: bool = False
    # A 404 is an answer: there is none.
    missing_is_answer: bool = False
    # A success need not have an envelope.
    bare: bool = False
    # Refused with another 4xx, it may be accepted later: the code of the failure.
    refused_for_now: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    # As `rate_headers` reads it; None when no time is named.
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a successful call brought; *is_missing* when the provider has no such thing."""

    result: object = None
    headers: Mapping[str, str] | None = None
    total: object = None
    is_missing: bool = False


class RateLimitedError(TransientError):
    """The API refuses every call of this account for a while; the budget has to know."""


class RepeatableError(TransientError):
    """The call went wrong in a way that the next one may not; for a call that is safe to repeat."""


def read_answer(operation: Operation, reply: Reply) -> Answer:
    """The result in *reply*, or what is wrong with it as an error.

    Raises:
        RateLimitedError, RepeatableError, TransientError, PermanentError
    """
    document = _document(reply.body)
    failure = _failure(operation, reply, document)
    if failure is not None:
        raise failure
    if _is_missing(reply, document):
        return Answer(is_missing=True)
    found = document or {}
    return Answer(found.get("result"), reply.headers, found.get("total"))


def no_answer(operation: Operation, code: str, sentence: str, retry_after: float | None = None) -> DriverError:
    """The failure of a call whose outcome nobody told: of one that creates, it is not known to have failed."""
    if operation.creates:
        doubt = f"{sentence.rstrip('.')}. What was asked for may exist all the same: look for it by its creator."
        return TransientError("outcome_unknown", doubt, retry_after)
    if operation.repeatable and (retry_after or 0) <= REPEAT_PAUSE_MAX_SECONDS:
        return RepeatableError(code, sentence, retry_after)
    return TransientError(code, sentence, retry_after)


def _failure(operation: Operation, reply: Reply, document: dict[str, Any] | None) -> DriverError | None:
    """Why the call did not succeed; None when it did, or when what was asked for is missing and may be."""
    status, codes = reply.status, _codes(document)
    said = f"{operation.name}: {_said(reply, document)}"
    if status == 429 or _THROTTLED in codes:
        return _too_many(operation, reply, document, said)
    if status >= 500 or status == 408:
        return no_answer(operation, "provider_unavailable", said, reply.retry_after)
    if status in (401, 403) and not _is_page(reply.body):
        return PermanentError("provider_refused_token", said)
    if _is_success(operation, reply, document):
        return None
    if document is None or not (200 <= status < 300 or 400 <= status < 500):
        # A page, a redirect or half an answer: something other than the API spoke.
        return no_answer(operation, "provider_unavailable", said, reply.retry_after)
    return _refusal(operation, reply, document, said)


def _is_success(operation: Operation, reply: Reply, document: dict[str, Any] | None) -> bool:
    if not 200 <= reply.status < 300:
        return False
    if operation.bare:
        return not _is_page(reply.body) and (document is None or document.get("success") is not False)
    return document is not None and document.get("success") is True


def _refusal(operation: Operation, reply: Reply, document: dict[str, Any], said: str) -> DriverError | None:
    """What a "no" of the API means: a 4xx, or a 2xx whose envelope does not say success."""
    status, codes = reply.status, _codes(document)
    if codes & _REFUSED_TOKEN:
        return PermanentError("provider_refused_token", said)
    if codes & _WRONG_ADDRESS:
        return PermanentError("provider_address_wrong", f"{said} (the account's id or the API's address is wrong)")
    if _is_missing(reply, document):
        return None if operation.missing_is_answer else TransientError("not_found", said)
    if status < 300 and document.get("success") is not False:
        # Not even a "no".
        return no_answer(operation, "provider_unavailable", said, reply.retry_after)
    if status == 413 or (operation.creates and _SAYS_QUOTA.search(_words(document))):
        code = "storage_quota" if _SAYS_QUOTA.search(_words(document)) else "too_large"
        return PermanentError(code, said)
    if status == 409:
        return TransientError("provider_conflict", said, reply.retry_after)
    if operation.refused_for_now is not None:
        if _SAYS_TOO_LONG.search(_words(document)):
            return PermanentError("too_long", said)
        return TransientError(operation.refused_for_now, said, reply.retry_after)
    if status < 300:
        return no_answer(operation, "provider_unavailable", said, reply.retry_after)
    return PermanentError("provider_refused", said)


def _too_many(operation: Operation, reply: Reply, document: dict[str, Any] | None, said: str) -> DriverError:
    """Which limit a 429 is about. In doubt the API's: taking its block for another would lengthen it."""
    words = _words(document)
    is_throttled = _THROTTLED in _codes(document) or _SAYS_THROTTLED.search(words)
    if operation.creates and not is_throttled:
        if _SAYS_QUOTA.search(words):
            return PermanentError("storage_quota", said)
        if _SAYS_BUSY.search(words):
            return TransientError("provider_busy", said, max(BUSY_PAUSE_SECONDS, reply.retry_after or 0))
    return RateLimitedError("provider_rate_limit", said, reply.retry_after)


def _is_missing(reply: Reply, document: dict[str, Any] | None) -> bool:
    """Whether the API, and not some page on the way, says that there is no such thing."""
    if document is None:
        return False
    return reply.status == 404 or (document.get("success") is not True and _NOT_FOUND in _codes(document))


def _document(body: bytes) -> dict[str, Any] | None:
    """The JSON object in *body*; None for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_page(body: bytes) -> bool:
    return body.lstrip()[:1] == b"<"


def _errors(document: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    errors = (document or {}).get("errors")
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _codes(document: Mapping[str, Any] | None) -> set[int | None]:
    """The numbers of the errors; a document that reports success has none that count."""
    if document is None or document.get("success") is True:
        return set()
    return {whole(error.get("code")) for error in _errors(document)}


def _words(document: Mapping[str, Any] | None) -> str:
    return " ".join(text(error.get("message")) or "" for error in _errors(document))


def _said(reply: Reply, document: Mapping[str, Any] | None) -> str:
    """The answer in a few words for people, without addresses."""
    said = []
    for error in list(_errors(document))[:_SAID_ERRORS]:
        message = _ADDRESS.sub("(address)", text(error.get("message")) or "")[:_SAID_CHARACTERS]
        said.append(" ".join(f"{text(str(error.get('code', '')), 20) or ''} {message}".split()))
    if not any(said):
        said = ["not an answer of the API"] if document is None else ["no reason given"]
    return f"HTTP {reply.status}: {'; '.join(said)}"
