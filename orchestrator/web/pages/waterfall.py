"""How long the clip stayed at each status, drawn to scale, against what is usual; and the same in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.explaining import spell_seconds
from orchestrator.storage.clips import Clip, Event
from orchestrator.storage.timing import Stage, stages_of
from orchestrator.web.expecting import SAMPLES_MIN, Usual
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.views import is_terminal, message_of

# What stands above a page of history; a clip has ten stays, and three attempts at most by itself.
STAYS_MAX = 40
# Nine of ten is no law: only what is clearly slower is called so, and never for a few seconds.
_SLOW_TIMES, _SLOW_SECONDS = 1.5, 5.0
# A usual time that is far longer than everything here would leave nothing to see of the rest.
_SCALE_MAX = 3.0

_TABLE = """<div class="scroll" tabindex="0" role="region" aria-label="Time at each status"><table class="waterfall">
<thead><tr><th scope="col">Status</th><th scope="col"><span class="hidden">Drawn to scale</span></th>
<th scope="col">Took</th>$usual</tr></thead><tbody>$rows</tbody></table></div>
<p class="dim">$note</p>"""
_USUAL = '<th scope="col">Usually</th><th scope="col">9 of 10 within</th>'
_ROW = """<tr><th scope="row">$status$attempt</th><td class="drawn">$drawing</td>
<td>$took$verdict</td>$usual</tr>"""
_USUAL_CELLS = "<td>$median</td><td>$p90</td>"
_DRAWING = """<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">$usual
<rect class="took $how" x="$start" y="1" width="$took" height="5" /></svg>"""
_DRAWN_USUAL = """<rect class="usual" x="$start" y="7" width="$median" height="2" />
<rect class="slow" x="$after" y="7" width="$rest" height="2" />"""
_SLOW = ' <span class="slower">slower than usual</span>'
_ATTEMPT = ' <span class="dim">attempt $attempt</span>'
_NOTE_USUAL = "Below each bar: half of the clips completed took the stronger part at most, nine of ten all of it."
_NOTE_FEW = f"What is usual is told once {SAMPLES_MIN} clips were completed."


def waterfall(clip: Clip, events: Sequence[Event], usual: Mapping[tuple[str, str], Usual], now: datetime) -> Markup:
    """The table with its drawing; nothing for a clip without history."""
    stages = [stage for stage in stages_of(events) if not is_terminal(stage.status)][-STAYS_MAX:]
    if not stages:
        return EMPTY
    known = {
        stage.status: usual[clip.pipeline, stage.status] for stage in stages if (clip.pipeline, stage.status) in usual
    }
    scale = _Scale(stages, known, now)
    rows = join(_row(clip, stage, known.get(stage.status), scale, now, bool(known)) for stage in stages)
    return fill(_TABLE, usual=markup(_USUAL) if known else EMPTY, rows=rows, note=_NOTE_USUAL if known else _NOTE_FEW)


class _Scale:
    """Turns moments and spans into hundredths of the drawing's width."""

    def __init__(self, stages: Sequence[Stage], usual: Mapping[str, Usual], now: datetime) -> None:
        self._from = stages[0].began_at
        took = max(((stage.ended_at or now) - self._from).total_seconds() for stage in stages)
        longest = max(
            ((stage.began_at - self._from).total_seconds() + usual[stage.status].p90_seconds
             for stage in stages if stage.status in usual), default=0.0
        )  # fmt: skip
        # Without any time passed everything would be nothing wide: a second is the least there is to see.
        self._seconds = max(1.0, took, min(longest, _SCALE_MAX * max(took, 1.0)))

    def at(self, moment: datetime) -> float:
        return self.of((moment - self._from).total_seconds())

    def of(self, seconds: float) -> float:
        return round(min(max(seconds / self._seconds, 0.0), 1.0) * 100, 2)


def _row(clip: Clip, stage: Stage, usual: Usual | None, scale: _Scale, now: datetime, has_usual: bool) -> Markup:
    seconds = stage.seconds(now)
    is_slow = usual is not None and seconds > max(_SLOW_TIMES * usual.p90_seconds, usual.p90_seconds + _SLOW_SECONDS)
    cells = EMPTY
    if has_usual:
        median, p90 = (usual.median_seconds, usual.p90_seconds) if usual else (None, None)
        cells = fill(_USUAL_CELLS, median=_spelled(median), p90=_spelled(p90))
    return fill(
        _ROW,
        status=message_of(clip.pipeline, stage.status),
        attempt=fill(_ATTEMPT, attempt=stage.attempt) if stage.attempt > 1 else EMPTY,
        drawing=_drawing(stage, usual, scale, now, is_slow),
        took=f"{_spelled(seconds)}{' so far' if stage.ended_at is None else ''}",
        verdict=markup(_SLOW) if is_slow else EMPTY,
        usual=cells,
    )


def _drawing(stage: Stage, usual: Usual | None, scale: _Scale, now: datetime, is_slow: bool) -> Markup:
    start = scale.at(stage.began_at)
    drawn = EMPTY
    if usual is not None:
        median = min(scale.of(usual.median_seconds), 100 - start)
        rest = min(scale.of(usual.p90_seconds), 100 - start) - median
        drawn = fill(_DRAWN_USUAL, start=start, median=median, after=start + median, rest=max(rest, 0))
    # A stay of no time at all is still a line.
    took = max(scale.of(stage.seconds(now)), 0.4)
    how = "slow" if is_slow else "open" if stage.ended_at is None else "past"
    return fill(_DRAWING, usual=drawn, start=min(start, 99.6), took=took, how=how)


def _spelled(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 10 else spell_seconds(seconds)
