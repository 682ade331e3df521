"""Small plots drawn here: bars as plain SVG, each with a table that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.web.pages.markup import EMPTY, Markup, fill, join

_COLUMNS = (
    """<svg class="plot" viewBox="0 0 $width $height" preserveAspectRatio="none" aria-hidden="true">$bars</svg>"""
)
_COLUMN = '<rect x="$x" y="$y" width="$width" height="$height"$kind />'
_ROWS = """<div class="scroll" tabindex="0" role="region" aria-label="$label"><table class="measured"><thead><tr>$heads
<td></td></tr></thead><tbody>$rows</tbody></table></div>"""
_HEAD = '<th scope="col">$word</th>'
_ROW = """<tr><th scope="row">$name</th>$cells<td class="drawn"><svg class="plot line"
viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="reach" x="0" y="3" width="$reach"
height="4" /><rect x="0" y="1" width="$size" height="8" /></svg></td></tr>"""
_CELL = '<td class="number">$value</td>'
_TABLE = """<details><summary>$summary</summary><div class="scroll" tabindex="0" role="region" aria-label="$summary">
<table><thead><tr><th scope="col">$what</th><th scope="col">$unit</th></tr></thead><tbody>$rows</tbody></table></div>
</details>"""
_LINE = '<tr><td>$name</td><td class="number">$value</td></tr>'
# The plot's own units; the page stretches it.
_STEP, _WIDTH, _HEIGHT = 10, 8, 40


@dataclass(frozen=True, slots=True)
class Value:
    """One bar: its *name* and *shown* value for people, its *size* for the drawing."""

    name: object
    shown: object
    size: float


def columns(values: Sequence[Value]) -> Markup:
    """Upright bars, the last of them still growing. They are decoration: a table has to stand beside them."""
    most = max((value.size for value in values), default=0) or 1
    bars = []
    for place, value in enumerate(values):
        height = round(_HEIGHT * value.size / most, 2)
        kind = fill(' class="$word"', word="growing") if place == len(values) - 1 else EMPTY
        bars.append(
            fill(_COLUMN, x=place * _STEP, y=round(_HEIGHT - height, 2), width=_WIDTH, height=height, kind=kind)
        )
    return fill(_COLUMNS, width=_STEP * len(values), height=_HEIGHT, bars=join(bars, ""))


def table(values: Sequence[Value], summary: str, what: str, unit: str) -> Markup:
    """The same values in a table that opens."""
    rows = join(fill(_LINE, name=value.name, value=value.shown) for value in values)
    return fill(_TABLE, summary=summary, what=what, unit=unit, rows=rows)


@dataclass(frozen=True, slots=True)
class Measured:
    """One lying bar: its name, what stands beside it in words, how long it is and how far its thin part reaches."""

    name: object
    cells: tuple[object, ...]
    size: float
    reach: float


def measured(rows: Sequence[Measured], label: str, heads: Sequence[str]) -> Markup:
    """A table whose rows have a bar each, all to one scale."""
    most = max((row.reach for row in rows), default=0) or 1
    return fill(
        _ROWS,
        label=label,
        heads=join((fill(_HEAD, word=word) for word in heads), ""),
        rows=join(
            fill(
                _ROW,
                name=row.name,
                cells=join((fill(_CELL, value=cell) for cell in row.cells), ""),
                size=_share(row.size, most),
                reach=_share(row.reach, most),
            )
            for row in rows
        ),
    )


def _share(size: float, most: float) -> float:
    # What is there can be seen, however small.
    return round(max(1.0, 100 * size / most), 1)
