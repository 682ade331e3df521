"""What the provider's headers say about calling again: how many calls are left, and when to come back.

    Retry-After: 300                            (or a date)
    Ratelimit: "default";r=50;t=30              50 calls left, counted anew in 30 s
    Ratelimit-Policy: "burst";q=100;w=60        100 calls in 60 s

Source: https://developers.cloudflare.com/fundamentals/api/reference/limits/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

# The provider blocks for five minutes. An hour obeys a block twelve times as long, and still ends a mistaken one
# while somebody is on duty.
RETRY_AFTER_MAX_SECONDS = 3600.0

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
# The items of a list header; a comma inside quotes belongs to its item.
_ITEM = re.compile(r'(?:"[^"]*"|[^",])+')
_QUOTED = re.compile(r'"[^"]*"')
_PARAMETER = re.compile(r";\s*([a-z]+)\s*=\s*([0-9]{1,9})(?![0-9.])")


@dataclass(frozen=True, slots=True)
class Remaining:
    """Calls left in one of the provider's windows; *reset_seconds* None when it does not say how long."""

    calls: int
    reset_seconds: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """One of the provider's limits."""

    calls: int
    window_seconds: int


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds to stay away, between 1 and RETRY_AFTER_MAX_SECONDS; None when no usable time is named.

    A date is counted from the answer's own Date, so that a wrong clock here does no harm; *now* (unix
    seconds) stands in where there is none.
    """
    for value in _values(headers, "retry-after"):
        seconds = float(value) if _SECONDS.fullmatch(value) else _until(value, headers, now)
        if seconds is not None:
            return min(RETRY_AFTER_MAX_SECONDS, max(1.0, seconds))
    return None


def remaining_calls(headers: Mapping[str, str]) -> tuple[Remaining, ...]:
    """What is left in each window the provider names; those without a number are passed over."""
    items = _items(headers, "ratelimit")
    return tuple(Remaining(item["r"], item.get("t")) for item in items if "r" in item)


def policies(headers: Mapping[str, str]) -> tuple[Policy, ...]:
    """The limits the provider names; those that are incomplete or zero are passed over."""
    items = _items(headers, "ratelimit-policy")
    return tuple(Policy(item["q"], item["w"]) for item in items if item.get("q") and item.get("w"))


def _until(value: str, headers: Mapping[str, str], now: float) -> float | None:
    then = _moment(value)
    if then is None:
        return None
    sent = next((_moment(date) for date in _values(headers, "date")), None)
    return then - (now if sent is None else sent)


def _moment(value: str) -> float | None:
    """An HTTP date as unix seconds."""
    try:
        found = parsedate_to_datetime(value)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
        seconds = found.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _items(headers: Mapping[str, str], name: str) -> list[dict[str, int]]:
    """The numeric parameters of each item of a list header."""
    found = []
    for value in _values(headers, name):
        for item in _ITEM.findall(value):
            parameters = _PARAMETER.findall(_QUOTED.sub("", item))
            found.append({key: int(number) for key, number in parameters})
    return found


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    """All values of a header, however its name is written."""
    return [value.strip() for key, value in headers.items() if key.lower() == name]
