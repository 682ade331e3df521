"""Draws the samples of a steady load as small lines above each other: `python -m benchmarks.drawing CSV SVG`.

The drawing follows the reader's choice of light and dark, and holds two hundred points of each line at most.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.sampling import read_csv

# Each panel: what it is, and its lines by what they are called in the samples.
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("From asking to moved, ms", ("p50 ms", "p99 ms")),
    ("Memory, MiB", ("monitor MiB", "web MiB")),
    (
        "Size of what turns over, KiB",
        ("clips KiB", "clips indexes KiB", "clip_signals KiB", "clip_signals indexes KiB"),
    ),
    ("Dead rows", ("clips dead rows", "clip_signals dead rows")),
    ("History, bytes a line", ("history bytes a line", "history index bytes a line")),
    ("Open files and connections", ("monitor fds", "web fds", "connections")),
)
WIDTH, PANEL, LEFT, RIGHT, TOP = 790, 110, 60, 220, 24
POINTS_MAX = 200
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-weight: 600 } .axis { stroke: #bbb }
polyline { fill: none; stroke-width: 1.5 } .c0 { stroke: #0b6bcb } .c1 { stroke: #c2410c } .c2 { stroke: #15803d }
.c3 { stroke: #7e22ce } text.c0 { fill: #0b6bcb; stroke: none } text.c1 { fill: #c2410c; stroke: none }
text.c2 { fill: #15803d; stroke: none } text.c3 { fill: #7e22ce; stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #ddd } .axis { stroke: #555 } .c0 { stroke: #7cc0ff } .c1 { stroke: #ffab7a } .c2 { stroke: #86e0a3 }
.c3 { stroke: #d8b4fe } text.c0 { fill: #7cc0ff } text.c1 { fill: #ffab7a } text.c2 { fill: #86e0a3 }
text.c3 { fill: #d8b4fe } }"""


def draw(samples: Sequence[Mapping[str, float]], warm_up_seconds: float = 0.0) -> str:
    """The drawing as SVG; a line stands where the warm-up ended."""
    until = samples[-1]["seconds"]
    height = len(PANELS) * PANEL + TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="Steady load over {until / 60:.0f} minutes"><style>{_STYLE}</style>'
    ]
    for number, (title, names) in enumerate(PANELS):
        parts += _panel(number * PANEL, title, names, samples, until)
    if warm_up_seconds:
        x = _across(warm_up_seconds, until)
        parts.append(f'<line class="axis" stroke-dasharray="3 3" x1="{x}" x2="{x}" y1="20" y2="{height - TOP}"/>')
    parts.append(f'<text x="{LEFT}" y="{height - 8}">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT - 40}" y="{height - 8}">{until / 60:.0f} min</text></svg>')
    return "\n".join(parts) + "\n"


def _panel(
    top: float, title: str, names: Sequence[str], samples: Sequence[Mapping[str, float]], until: float
) -> list[str]:
    most = max(max(sample[name] for sample in samples) for name in names) or 1.0
    base = top + PANEL - 14
    parts = [
        f'<text class="title" x="{LEFT}" y="{top + 14}">{escape(title)}</text>',
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>',
        f'<text x="{LEFT - 6}" y="{top + 30}" text-anchor="end">{_short(most)}</text>',
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">0</text>',
    ]
    step = max(1, len(samples) // POINTS_MAX)
    for place, name in enumerate(names):
        points = " ".join(
            f"{_across(sample['seconds'], until)},{round(base - sample[name] / most * (PANEL - 42), 1)}"
            for sample in samples[::step]
        )
        parts.append(f'<polyline class="c{place}" points="{points}"/>')
        label = f"{name} {_short(samples[-1][name])}"
        parts.append(
            f'<text class="c{place}" x="{WIDTH - RIGHT + 8}" y="{top + 30 + 16 * place}">{escape(label)}</text>'
        )
    return parts


def _across(seconds: float, until: float) -> float:
    return round(LEFT + seconds / until * (WIDTH - LEFT - RIGHT), 1)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    source, target, *warm_up = sys.argv[1:]
    Path(target).write_text(draw(read_csv(Path(source)), float(warm_up[0]) if warm_up else 0.0))
