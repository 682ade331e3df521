"""Request bodies: read up to a limit, decoded so strictly that nobody downstream can stumble over them."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from orchestrator.drivers.strict_json import is_plain
from orchestrator.web.problems import Fault, Problem, invalid, shorten

MAX_BYTES = 1024 * 1024
# A mebibyte over the slowest line worth the name takes less; whoever drips bytes holds a socket no longer.
_BODY_SECONDS = 30.0
# A call of ours has three levels; details may have some of their own.
MAX_DEPTH = 32
# A path is for finding the place; uncut, long keys in deep nesting would multiply.
_PATH_MAX_CHARACTERS = 200
# The largest bigint of PostgreSQL.
_WHOLE_MAX = 2**63 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Their values may carry a signature: named in an answer, never shown.
_SECRET_FIELDS = frozenset({"url"})

_RAW = web.RequestKey("raw", bytes)

Model = TypeVar("Model", bound=BaseModel)


async def read_limited(request: web.Request, max_bytes: int) -> bytes:
    """The raw body, refused as soon as it is seen to be larger than *max_bytes*; reading it again is free."""
    if _RAW in request:
        return request[_RAW]
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    if request.content.is_eof():  # all of it came with the head, as small ones do: nothing to wait for
        raw = request.content.read_nowait()
    else:
        raw = await _read_in_time(request, max_bytes)
    if len(raw) > max_bytes:
        raise _too_large(max_bytes)
    request[_RAW] = raw
    return raw


async def _read_in_time(request: web.Request, max_bytes: int) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await _read_all(request, max_bytes)
    except TimeoutError:
        detail = f"The body took more than {_BODY_SECONDS:g} seconds"
        raise Problem("too-slow", detail, headers={"Connection": "close"}) from None


async def _read_all(request: web.Request, max_bytes: int) -> bytes:
    """All of the body, or of a larger one a little more than *max_bytes*: the rest is not waited for."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            break
    return b"".join(chunks)


async def read_object(request: web.Request, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty object when *optional*."""
    if request.body_exists:
        _refuse_other_types(request)
    raw = await read_limited(request, MAX_BYTES)
    if not raw.strip() and optional:
        return {}
    return decode_object(raw)


async def read_model(request: web.Request, model: type[Model]) -> Model:
    """The body as *model*; every fault is named."""
    return as_model(await read_object(request), model)


def as_model(document: dict[str, Any], model: type[Model]) -> Model:
    """*document* checked against *model*."""
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        faults = [_fault(error) for error in problem.errors(include_url=False, include_context=False)]
    names = ", ".join(dict.fromkeys(fault.field for fault in faults))
    raise Problem("invalid", f"Not acceptable: {names}", faults)


def decode_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in *raw*, every text and number in it storable."""
    try:
        document = raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _bad_json(f"the body is not UTF-8 at byte {problem.start}") from None
    try:
        value = _DECODER.decode(document)
    except RecursionError:
        raise _bad_json(f"nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as problem:
        raise _bad_json(f"{problem.msg} at line {problem.lineno}, column {problem.colno}") from None
    if not isinstance(value, dict):
        raise _bad_json(f"the body must be an object, not {_json_type(value)}")
    if not is_plain(document, MAX_DEPTH):
        _walk(value)
    return value


def _refuse_other_types(request: web.Request) -> None:
    content_type = request.headers.get("Content-Type")
    # Without one the body is taken for JSON: that is all there is to send.
    if content_type is None:
        return
    kind = request.content_type.lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(
            "unsupported-media",
            f"Content-Type is {shorten(content_type)}",
            [Fault("Content-Type", "must be application/json")],
        )
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem("unsupported-media", "The charset is not UTF-8", [Fault("Content-Type", "charset must be utf-8")])


def _too_large(max_bytes: int) -> Problem:
    # The rest of the body is not read, so the connection is of no more use.
    return Problem("too-large", f"The body has more than {max_bytes} bytes", headers={"Connection": "close"})


def _bad_json(reason: str, field: str = "body") -> Problem:
    return Problem("bad-json", f"The JSON is refused: {reason}", [Fault(field, reason)])


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _bad_json("the key stands twice", shorten(key))
        found[key] = value
    return found


def _not_finite(written: str) -> NoReturn:
    raise _bad_json(f"{written} is no JSON number")


def _finite(written: str) -> float:
    found = float(written)
    if not math.isfinite(found):
        raise _bad_json(f"{shorten(written)} is too large a number")
    return found


def _whole(written: str) -> int:
    # Length first: turning a million digits into a number takes seconds.
    if len(written) > 20 or abs(int(written)) > _WHOLE_MAX:
        raise _bad_json(f"{shorten(written)} is too large a number")
    return int(written)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_constant=_not_finite, parse_float=_finite, parse_int=_whole
)


def _walk(document: dict[str, Any]) -> None:
    """Look at every text once, without recursion."""
    level: list[tuple[str, Any]] = [("", document)]
    for _ in range(MAX_DEPTH):
        level = [member for path, value in level for member in _members(path, value)]
        if not level:
            return
    raise _bad_json(f"nested deeper than {MAX_DEPTH} levels", shorten(level[0][0]))


def _members(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The containers in a container, each with its path; texts are checked on the way."""
    named = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in named:
        inner = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
        inner = inner.lstrip(".")[:_PATH_MAX_CHARACTERS]
        if isinstance(key, str):
            check_text(inner, key)
        if isinstance(member, str):
            check_text(inner, member)
        elif isinstance(member, dict | list) and member:
            yield inner, member


def check_text(name: str, text: str) -> None:
    """Refuse what PostgreSQL cannot store."""
    if "\0" in text:
        raise invalid(shorten(name), "holds the character NUL, which cannot be stored", text)
    if _LONE_SURROGATE.search(text):
        raise invalid(shorten(name), "holds half a surrogate pair, which is no character", text)


def _fault(error: Any) -> Fault:
    place = ".".join(str(part) for part in error["loc"]) or "body"
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return Fault(place, "is missing")
    if error["type"] == "extra_forbidden":
        return Fault(shorten(place), "is not known here; leave it out")
    if error["loc"] and error["loc"][-1] in _SECRET_FIELDS:
        return Fault(place, reason)
    return Fault(shorten(place), reason, shorten(error["input"]))


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
