"""Everything that happened to a clip, newest first: moves, tries, and requests that were refused or had to wait."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.storage.clips import Clip, Event
from orchestrator.web.pages import parts
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join
from orchestrator.web.views import message_of, reason_of

_TABLE = """<div class="scroll" tabindex="0" role="region" aria-label="History"><table>
<thead><tr><th scope="col">When</th><th scope="col">What</th><th scope="col">By</th>
<th scope="col">Why</th></tr></thead>
<tbody>$rows</tbody></table></div>$cut"""
_ROW = '<tr class="$kind"><td>$at</td><td>$what$rule</td><td><bdi>$source</bdi></td><td><bdi>$reason</bdi></td></tr>'
_CUT = '<p class="dim">These are the last $count lines; <code>GET /api/clips/$id/events</code> has all.</p>'
_PRUNED = '<p class="dim">Of what came before $before only how each attempt ended is kept; the rest was pruned.</p>'
_RULE = ' <code class="rule"><bdi>$rule</bdi></code>'
# What is not in it was written by a newer version, and is told in its own word.
_SENTENCES = {
    "created": "Created",
    "moved": "Now: $target",
    "refused": "Refused: $target",
    "noted": "Noted: $target",
    "outranked": "Outranked: $target",
    "failed-try": "A try failed at: $target",
}


def history(
    events: Sequence[Event], clip: Clip, *, is_cut: bool = False, pruned_before: datetime | None = None
) -> Markup:
    """The lines as a table; *is_cut* when there are more before them, *pruned_before* where there were more once."""
    if not events:
        return fill("<p>$text</p>", text="Nothing yet")
    cut = fill(_CUT, count=len(events), id=clip.id) if is_cut else EMPTY
    if pruned_before is not None:
        cut = join((cut, fill(_PRUNED, before=parts.moment(pruned_before))))
    return fill(_TABLE, rows=join(_row(event, clip) for event in reversed(events)), cut=cut)


def _row(event: Event, clip: Clip) -> Markup:
    rule = event.details.get("rule")
    return fill(
        _ROW,
        kind=event.kind if event.kind in _SENTENCES else "other",
        at=parts.moment(event.at),
        what=_what(event, clip.pipeline),
        rule=fill(_RULE, rule=rule) if isinstance(rule, str) and event.kind == "refused" else EMPTY,
        source=event.source,
        reason=reason_of(event.details),
    )


def _what(event: Event, pipeline: str) -> Markup:
    target = message_of(pipeline, event.to_status or "")
    sentence = fill(_SENTENCES.get(event.kind, "$kind: $target"), target=target, kind=event.kind)
    if event.attempt > 1:
        return fill('$sentence <span class="dim">attempt $attempt</span>', sentence=sentence, attempt=event.attempt)
    return sentence
