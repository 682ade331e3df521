"""The calls that were made to the provider about a clip's video, each try with its wait and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.storage.clips import Clip
from orchestrator.storage.provider_calls import SHOWN, MadeCall
from orchestrator.web.pages import parts
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join

_TABLE = """<div class="scroll" tabindex="0" role="region" aria-label="Calls to the provider"><table>
<thead><tr><th scope="col">When</th><th scope="col">Call</th><th scope="col">Try</th><th scope="col">Waited</th>
<th scope="col">Took</th><th scope="col">Answer</th></tr></thead><tbody>$rows</tbody></table></div>
<p class="dim">$note</p>"""
_ROW = """<tr><td>$at</td><td><code>$operation</code> <span class="dim">$kind</span></td><td>$attempt</td>
<td>$waited</td><td>$took</td><td>$answer</td></tr>"""
_NOTE = (
    f"The last {SHOWN}, as long as they are kept. Waited: for a place in the call budget."
    " Lists that look at many videos at once stand with none of them."
)
# Why a call was made, in the words of the budget.
_KINDS = {"person": "for a person", "progress": "to go on", "reconcile": "to look"}


def calls(clip: Clip, made: Sequence[MadeCall]) -> Markup:
    """The table; nothing for a clip that has no video at the provider."""
    if clip.cloudflare_uid is None:
        return EMPTY
    if not made:
        return fill("<p>None is kept. $note</p>", note=_NOTE)
    return fill(_TABLE, rows=join(_row(call) for call in made), note=_NOTE)


def _row(call: MadeCall) -> Markup:
    answer = "none" if call.http_status is None else str(call.http_status)
    # One that was cancelled has neither an answer nor a problem.
    is_good = call.problem is None and call.http_status is not None
    return fill(
        _ROW,
        at=parts.moment(call.at),
        operation=call.operation,
        kind=_KINDS.get(call.call_class, call.call_class),
        attempt=call.attempt,
        waited=_span(call.waited_ms),
        took=_span(call.took_ms),
        answer=f"✓ {answer}" if is_good else f"⚠ {answer}, {call.problem or 'broken off'}",
    )


def _span(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
