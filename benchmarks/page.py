"""The kept results as a page of the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from benchmarks.harness import Row

_HEAD = """# What was measured

Each figure was taken beside its ceiling or peer in one run, in turns; machines are shared, so read the ratios and not
the figures a second. One command repeats a part: `python3 run.py bench --full NAME`; all of them, quickly:
`python3 run.py bench`. The choices behind the figures are told in [decisions](decisions/).
"""


def as_page(results: Sequence[Mapping[str, Any]], misses: Mapping[str, str]) -> str:
    """The page, from the documents that runs have left; *misses* says by name why a goal is missed."""
    parts = [_HEAD]
    for result in results:
        parts.append(f"## `{result['name']}`\n\n{result['measures']}.")
        parts.append(
            f"{result['machine']}, {result['scale']} amounts, {result['seconds']} s, commit {result['commit']}."
        )
        rows = [Row.from_document(row) for row in result["rows"]]
        parts.append("\n".join(["| what | measured | goal | beside |", "|---|---|---|---|", *map(_cells, rows)]))
        why = misses.get(result["name"])
        if why and not all(row.is_met for row in rows):
            parts.append("\n".join(wrap(f"Where a goal is missed: {why}.", 120, break_on_hyphens=False)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _cells(row: Row) -> str:
    value = f"{row.value:.3g}{' ' + row.unit if row.unit else ''}"
    goal = "" if row.goal is None else f"{row.goal}{'' if row.is_met else ' (missed)'}"
    beside = ", ".join(f"{name} {figure}" for name, figure in row.figures.items())
    return f"| {row.what} | {value} | {goal} | {beside} |"
