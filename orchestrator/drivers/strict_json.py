"""JSON from outside, taken only if nobody downstream can stumble over it.

Python's decoder lets through what PostgreSQL refuses (NUL, lone surrogates, NaN) and what readers understand
differently (a key that stands twice), and it ends in RecursionError on deep nesting. Here each of these is a
refusal with a name.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

# An object of the provider has three levels.
MAX_DEPTH = 16
# The decoder joins proper pairs, so one that is left stands alone.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class BadDocument(ValueError):
    """The document is refused; *reason* is a stable word for logs and counters.

    too_large, not_utf8, not_json, too_deep, duplicate_key, not_finite, nul, lone_surrogate, not_an_object
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the document was refused: {reason}")
        self.reason = reason


def decode_object(raw: bytes, max_bytes: int, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The JSON object in *raw*, every text and number in it storable.

    Raises:
        BadDocument: in every other case.
    """
    if len(raw) > max_bytes:
        raise BadDocument("too_large")
    try:
        # By hand, because json.loads would guess at UTF-16 and UTF-32.
        document = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise BadDocument("not_utf8") from exc
    try:
        value = _DECODER.decode(document)
    except BadDocument:
        raise
    except RecursionError as exc:
        raise BadDocument("too_deep") from exc
    except ValueError as exc:
        raise BadDocument("not_json") from exc
    if not isinstance(value, dict):
        raise BadDocument("not_an_object")
    if not is_plain(document, max_depth):
        _walk(value, max_depth)
    return value


def is_plain(document: str, max_depth: int) -> bool:
    """Whether a decoded JSON *document* can hold nothing that would have to be looked for in its values.

    NUL and half surrogate pairs can only be written as escapes, and every level has its bracket.
    """
    return "\\u" not in document and document.count("{") + document.count("[") <= max_depth


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadDocument("duplicate_key")
    return found


def _not_finite(_: str) -> NoReturn:
    raise BadDocument("not_finite")


def _finite(written: str) -> float:
    found = float(written)
    if not math.isfinite(found):
        raise BadDocument("not_finite")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_not_finite, parse_float=_finite)


def _walk(value: dict[str, Any], max_depth: int) -> None:
    """Look at every text once, without recursion."""
    level: list[Any] = [value]
    for _ in range(max_depth):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    if any(isinstance(item, dict | list) for item in level):
        raise BadDocument("too_deep")
    for item in level:
        if isinstance(item, str):
            _check_text(item)


def _check_text(found: str) -> None:
    if "\0" in found:
        raise BadDocument("nul")
    if _LONE_SURROGATE.search(found):
        raise BadDocument("lone_surrogate")
