"""Whether two databases hold the same: everything but the numbers given out, and the moments their clocks told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from simulation.database_rows import same_json

# Both sides are on this machine's clock; what a step hands in differs by hours.
_SAME_MOMENT = timedelta(seconds=90)
_REFUSED = "The database refused the move"


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two snapshots; nothing when they hold the same."""
    found = _rows("lease", [one["lease"]], [other["lease"]])
    found += _rows("clip", one["clips"], other["clips"])
    ids = sorted({row["clip_id"] for side in (one, other) for name in ("events", "signals") for row in side[name]})
    for name in ("events", "signals"):
        for clip_id in ids:
            of_one, of_other = ([row for row in side[name] if row["clip_id"] == clip_id] for side in (one, other))
            found += _rows(f"{name} of {clip_id}", of_one, of_other)
    return found


def _rows(what: str, one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    if len(one) != len(other):
        return [f"{what}: {len(one)} rows and {len(other)}"]
    found = []
    for mine, theirs in zip(one, other, strict=True):
        names = [name for name in mine if name != "id" or what == "clip"]
        if sorted(mine) != sorted(theirs):
            found.append(f"{what}: columns {sorted(set(mine) ^ set(theirs))}")
            continue
        found += [
            f"{what}.{name}: {mine[name]!r} and {theirs[name]!r}"
            for name in names
            if not same(mine[name], theirs[name])
        ]
    return found


def same(one: Any, other: Any) -> bool:
    """Equal as values; two moments, if they are close; two documents, if they are apart from such moments."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) < _SAME_MOMENT
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, str) and isinstance(other, str) and one != other:
        # PostgreSQL's own words are not repeated.
        return (one.startswith(_REFUSED) and other.startswith(_REFUSED)) or _are_close_texts(one, other)
    return same_json(one, other)


def _are_close_texts(one: str, other: str) -> bool:
    try:
        return abs(datetime.fromisoformat(one) - datetime.fromisoformat(other)) < _SAME_MOMENT
    except (ValueError, TypeError):
        return False
