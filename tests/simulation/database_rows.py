"""What the simulated tables hold: rows as asyncpg gives them, and jsonb as PostgreSQL measures and writes it.

A row is a plain dict that is never changed in place; a document is a plain Python value, its numbers int or float.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import asyncpg

MISSING: Any = object()
_CENT = Decimal("0.01")
_WHOLE = re.compile(r"[0-9]{1,9}")


class Row:
    """A record: by name, by place, iterated by its values, as asyncpg's."""

    __slots__ = ("_index", "_values")

    def __init__(self, index: Mapping[str, int], values: Sequence[Any]) -> None:
        self._index = index
        self._values = values

    def __getitem__(self, key: Any) -> Any:
        if type(key) is str:
            return self._values[self._index[key]]
        return self._values[key]

    def get(self, key: str, default: Any = None) -> Any:
        place = self._index.get(key)
        return default if place is None else self._values[place]

    def keys(self) -> Any:
        return self._index.keys()

    def values(self) -> Sequence[Any]:
        return self._values

    def items(self) -> Iterator[tuple[str, Any]]:
        return zip(self._index, self._values, strict=True)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def __eq__(self, other: object) -> bool:
        return tuple(self._values) == tuple(other) if isinstance(other, Row | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Row {' '.join(f'{name}={value!r}' for name, value in self.items())}>"


def shape(*names: str) -> dict[str, int]:
    """The index that rows with these columns share."""
    return {name: place for place, name in enumerate(names)}


def read_json(text: str) -> Any:
    """The document in *text*, or the error that PostgreSQL has for it."""
    if not isinstance(text, str):
        raise asyncpg.DataError(f"invalid input for a query argument: expected str, got {type(text).__name__}")
    if "\\u" in text:
        _check_escapes(text)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as problem:
        raise asyncpg.StatementTooComplexError("stack depth limit exceeded") from problem
    except ValueError as problem:
        raise asyncpg.InvalidTextRepresentationError("invalid input syntax for type json") from problem


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _check_escapes(text: str) -> None:
    for escape in re.finditer(r"(\\+)u([0-9a-fA-F]{4})((?:\\u[0-9a-fA-F]{4})?)", text):
        if len(escape[1]) % 2 == 0:
            continue
        code = int(escape[2], 16)
        if code == 0:
            raise asyncpg.UntranslatableCharacterError("unsupported Unicode escape sequence")
    if any("\ud800" <= character <= "\udfff" for character in json.dumps(json.loads(text), ensure_ascii=False)):
        raise asyncpg.InvalidTextRepresentationError("invalid input syntax for type json")


def write_json(value: Any) -> str:
    """The text of a document, its keys in jsonb's order."""
    return json.dumps(_ordered(value), ensure_ascii=False)


def _ordered(value: Any) -> Any:
    if type(value) is dict:
        keys = sorted(value, key=_key_order) if len(value) > 1 else value
        return {key: _ordered(value[key]) if type(value[key]) in (dict, list) else value[key] for key in keys}
    if type(value) is list:
        return [_ordered(each) for each in value]
    return value


def _key_order(key: str) -> tuple[int, bytes]:
    encoded = key.encode()
    return len(encoded), encoded


def as_text(value: Any) -> str | None:
    """What ``->>`` gives: a text as it is, nothing for null, else the JSON."""
    if value is None or value is MISSING:
        return None
    if type(value) is str:
        return value
    return write_json(value)


def to_attempt(value: Any) -> int | None:
    """The SQL function of that name."""
    text = as_text(value)
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def same_json(one: Any, other: Any) -> bool:
    """Whether two documents are equal as jsonb: true is not 1."""
    if one is other:
        return True
    if type(one) is dict:
        return (
            type(other) is dict
            and len(one) == len(other)
            and all(key in other and same_json(value, other[key]) for key, value in one.items())
        )
    if type(one) is list:
        return type(other) is list and len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other) and (type(one) is bool) == (type(other) is bool)


def is_deeper_than(value: Any, levels: int) -> bool:
    """Whether anything lies at that level or deeper; the document itself is level 0."""
    if levels == 0:
        return True
    if type(value) not in (dict, list):
        return False
    if levels == 1:
        return bool(value)
    children = value.values() if type(value) is dict else value
    return any([is_deeper_than(each, levels - 1) for each in children if type(each) in (dict, list)])


def holds_number_beyond(value: Any, bound: float) -> bool:
    """Whether a number larger than that, or as much below zero, is anywhere in the document."""
    if type(value) is dict:
        return any(holds_number_beyond(each, bound) for each in value.values())
    if type(value) is list:
        return any(holds_number_beyond(each, bound) for each in value)
    return type(value) in (int, float) and abs(value) > bound


def jsonb_bytes(value: Any) -> int:
    """What ``pg_column_size`` says of the value in memory."""
    return 4 + _container_bytes(value if type(value) in (dict, list) else [value])


def is_surely_small(value: Any) -> bool:
    """Whether *value* is far below every bound, found out cheaply."""
    if type(value) is not dict:
        return False
    rough = 8
    for key, each in value.items():
        rough += 4 * len(key) + 8
        if type(each) is str:
            rough += 4 * len(each) + 8
        elif each is None or type(each) is bool or (type(each) in (int, float) and abs(each) < 1e19):
            rough += 32
        elif not each:
            rough += 16
        elif is_surely_small(each):
            rough += 4096
        else:
            return False
    return rough < 32768


def _container_bytes(value: Any) -> int:
    """The container's header, an entry for each child, then the children; numbers and containers are aligned."""
    if type(value) is dict:
        size = 4 + 8 * len(value)
        size += sum(len(key.encode()) for key in value)
        children = [value[key] for key in sorted(value, key=_key_order)]
    else:
        size = 4 + 4 * len(value)
        children = value
    for child in children:
        if child is None or type(child) is bool:
            continue
        if type(child) is str:
            size += len(child.encode())
            continue
        size += -size % 4
        size += _container_bytes(child) if type(child) in (dict, list) else _numeric_bytes(child)
    return size


def _numeric_bytes(number: int | float) -> int:
    """A numeric's bytes: its length word, its header, two bytes for each four decimal digits."""
    _, digits, exponent = Decimal(repr(number)).as_tuple()
    scale = max(0, -int(exponent))
    text = "".join(map(str, digits)) + "0" * max(0, int(exponent))
    whole, fraction = (text[: len(text) - scale] or "0"), text[len(text) - scale :].zfill(scale) if scale else ""
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole + fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    is_short = scale <= 63 and -64 <= weight <= 63
    return 4 + (2 if is_short else 4) + 2 * len(groups)


def to_progress(value: Any) -> Decimal:
    """A number as ``numeric(5, 2)``."""
    number = value if type(value) is Decimal else Decimal(repr(value))
    rounded = number.quantize(_CENT, ROUND_HALF_UP)
    if abs(rounded) >= 1000:
        raise asyncpg.NumericValueOutOfRangeError("numeric field overflow")
    return rounded


def to_moment(text: str | None) -> datetime | None:
    """A text as ``timestamptz``."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as problem:
        raise asyncpg.InvalidDatetimeFormatError(f"invalid input syntax for type timestamp: {text!r}") from problem
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def to_float(text: str | None) -> float | None:
    """A text as ``double precision``."""
    if text is None:
        return None
    try:
        number = float(text.replace("_", "x"))
    except ValueError as problem:
        raise asyncpg.InvalidTextRepresentationError("invalid input syntax for type double precision") from problem
    if math.isinf(number) and "inf" not in text.lower():
        raise asyncpg.NumericValueOutOfRangeError("out of range for type double precision")
    return number


def to_bigint(text: str | None) -> int | None:
    """A text as ``bigint``."""
    if text is None:
        return None
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
        raise asyncpg.InvalidTextRepresentationError("invalid input syntax for type bigint")
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        raise asyncpg.NumericValueOutOfRangeError("out of range for type bigint")
    return number
