"""Progress in two parts that can be told apart: what the status guarantees, and what is seen beyond it."""

from __future__ import annotations

from orchestrator.storage.clips import Clip
from orchestrator.web.pages.markup import Markup, fill
from statusutils import COMPLETE, ERROR, TABLES

# The bar for eyes is drawn; the one for everybody else is the browser's own, with the same value.
_BAR = """<div class="two-parts" data-two-parts data-floor="$floor">
<progress max="100" value="$value" class="hidden" aria-label="$label" data-progress>$value %</progress>
<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="rest" width="100" height="4" />
<rect class="floor" width="$floor" height="4" /><rect class="live" x="$floor" width="$live" height="4" /></svg>
</div>"""
_LEGEND = """<p class="dim legend"><span><span class="key floor" aria-hidden="true"></span>
$floor % certain by its status</span> <span><span class="key live" aria-hidden="true"></span>
<span data-live-percent>$live</span> % more, seen while it works</span></p>"""


def floor_of(clip: Clip) -> float:
    """What the clip cannot fall below: the least progress of its status, or of the one it failed at."""
    table = TABLES.get(clip.pipeline)
    if table is None or clip.status not in table:
        return 0.0
    if clip.status == COMPLETE:
        return 100.0
    if clip.status == ERROR:
        reached = (status.min_progress for status in table.statuses if status.min_progress <= clip.progress)
        return max(reached, default=0.0)
    return min(table[clip.status].min_progress, clip.progress)


def two_parts(clip: Clip, label: str) -> Markup:
    """The bar."""
    floor = floor_of(clip)
    return fill(_BAR, value=f"{clip.progress:g}", floor=f"{floor:g}", live=f"{clip.progress - floor:g}", label=label)


def legend(clip: Clip) -> Markup:
    """What the parts mean, in words."""
    floor = floor_of(clip)
    return fill(_LEGEND, floor=f"{floor:g}", live=f"{clip.progress - floor:.3g}")
