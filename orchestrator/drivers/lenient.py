"""One value of a document that others write: what it says as the type we want, or None.

Nothing here raises. A provider that renames, mistypes or garbles one field must cost us that field and not
the clip, so each function takes whatever JSON can hold. What comes out can be stored and shown: text
without NUL and lone surrogates, numbers that are finite, addresses a page may link to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?")
# NUL and lone surrogates are legal in JSON and refused by PostgreSQL.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# What an address never holds unescaped, or ends and splits it when it is shown, logged or sent.
_NOT_IN_ADDRESSES = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
# What browsers and proxies carry without trouble; the provider's own addresses have about 100.
_ADDRESS_MAX_CHARACTERS = 2048
# The largest bigint of PostgreSQL.
_WHOLE_MAX = 2**63 - 1
_META_MAX_KEYS = 32
_META_KEY_MAX_CHARACTERS = 128


def text(value: object, max_characters: int = 1024) -> str | None:
    """Text that is not empty, cut to a length that can be stored."""
    if not isinstance(value, str) or not value:
        return None
    return _UNSTORABLE.sub("\ufffd", value[:max_characters])


def reason(value: object) -> str | None:
    """Text that says why something failed, without addresses: one may be the owner's own, with its signature."""
    found = text(value)
    return None if found is None else _ADDRESS.sub("(address)", found)


def number(value: object) -> float | None:
    """A finite number, also when it is written as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return number(float(value)) if _NUMBER.fullmatch(value := value.strip()) else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return float(value) if abs(value) <= _WHOLE_MAX else None
    return None


def percent(value: object) -> float | None:
    """A percentage, drawn into 0 to 100."""
    found = number(value)
    return None if found is None else min(100.0, max(0.0, found))


def positive(value: object) -> float | None:
    """A number above zero; 0 and -1 are how the provider writes "not known yet"."""
    found = number(value)
    return found if found is not None and found > 0 else None


def whole(value: object) -> int | None:
    """A count from 0 that fits a bigint, exact where it is written as an integer."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) <= 30:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value <= _WHOLE_MAX else None
    found = number(value)
    return int(found) if found is not None and 0 <= found < 2.0**63 else None


def positive_whole(value: object) -> int | None:
    """A count from 1; 0 and -1 mean "not known yet"."""
    return whole(value) or None


def flag(value: object) -> bool | None:
    """True or false, also when it is written as text."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def moment(value: object) -> datetime | None:
    """A time in UTC, with any number of fraction digits; without a zone it is taken for UTC."""
    if not isinstance(value, str) or not 10 <= len(value) <= 64:
        return None
    try:
        found = datetime.fromisoformat(value)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    # Year 1 is how a Go program writes a time that was never set.
    return found if found.year > 1 else None


def web_address(value: object) -> str | None:
    """An http or https address with a host, safe to show as a link."""
    if not isinstance(value, str) or len(value) > _ADDRESS_MAX_CHARACTERS or _NOT_IN_ADDRESSES.search(value):
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return None
    return value if usable else None


def details(value: object) -> dict[str, str]:
    """The single values of a free object as text; its nested ones and what is too many are left out."""
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, str] = {}
    for key, item in value.items():
        name, said = text(key, _META_KEY_MAX_CHARACTERS), _as_text(item)
        if name is not None and said is not None and len(found) < _META_MAX_KEYS:
            found[name] = said
    return found


def _as_text(value: object) -> str | None:
    """A single value as text, in the spelling of JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return None if number(value) is None else str(value)
    return text(value)
