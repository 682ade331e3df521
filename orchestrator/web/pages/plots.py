"""Small plots drawn here: bars as plain SVG, each with a table that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.web.pages.markup import EMPTY, Markup, fill, join

_COLUMNS = (
    """<svg class="plot" viewBox="0 0 $width $height" preserveAspectRatio="none" aria-hidden="true">$bars</svg>"""
)
_COLUMN = '<rect x="$x" y="$y" width="$width" height="$height"$kind />'
_ROWS = """<table class="measured"><thead><tr><th scope="col">$what</th><th scope="col">$unit</th><th scope="col"><span
class="hidden">Drawn</span></th></tr></thead><tbody>$rows</tbody></table>"""
_ROW = """<tr><th scope="row">$name</th><td class="number">$value</td><td class="drawn"><svg class="plot line"
viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect x="0" y="1" width="$share" height="8" />
</svg></td></tr>"""
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


def measured(values: Sequence[Value], what: str, unit: str) -> Markup:
    """A table whose rows have a lying bar each."""
    most = max((value.size for value in values), default=0) or 1
    rows = join(
        fill(_ROW, name=value.name, value=value.shown, share=round(max(1.0, 100 * value.size / most), 1))
        for value in values
    )
    return fill(_ROWS, what=what, unit=unit, rows=rows)
