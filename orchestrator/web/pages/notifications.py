"""The provider's notifications of a clip: when they came, what became of them, and a button to act on one again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestrator.storage.clips import Clip
from orchestrator.storage.deliveries import KEPT_DAYS, KEPT_PER_CLIP, Delivery, Refusal
from orchestrator.web.pages import parts
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join

_TABLE = """<div class="scroll" tabindex="0" role="region" aria-label="Notifications"><table>
<thead><tr><th scope="col">Came</th><th scope="col">Signature</th><th scope="col">Reported</th>
<th scope="col">Outcome</th><th scope="col">Body</th>$act</tr></thead><tbody>$rows</tbody></table></div>"""
_ACT = '<th scope="col"><span class="hidden">Action</span></th>'
_ROW = """<tr><td>$at$times</td><td>$signature</td><td><code><bdi>$state</bdi></code></td><td>$outcome</td>
<td>$body</td>$act</tr>"""
_TIMES = ' <span class="dim">$times times, last $last</span>'
_BODY = '<details><summary>$size</summary><pre tabindex="0" aria-label="Body"><bdi>$text</bdi></pre></details>'
_REPLAY = """<td><form method="post" action="/clips/$clip/deliveries/$number/replay" data-asks>
<button aria-label="Replay the notification of $state">Replay</button></form></td>"""
_NONE = "<p>None came yet. The monitor looks by itself; a notification only makes it quicker.</p>"
_NOTE = f"""<p class="dim">The last {KEPT_PER_CLIP} of {KEPT_DAYS} days; addresses and secrets are left out of the
bodies. A replay only asks, as the notification did.</p>"""
_REFUSED = '<p class="note">Within a day, of all clips, not taken: $reasons.</p>'

_SIGNATURES = {"valid": "✓ valid", "stale": "⚠ signed, but at a time too far from ours"}
_OUTCOMES = {
    "recorded": "recorded, for the monitor to judge",
    "ignored": "ignored: it asks for nothing",
    "refused": "refused",
}
_REASONS = {
    "no_secret": "no secret is set here",
    "missing": "not signed",
    "duplicate_header": "signed twice",
    "malformed": "signature malformed",
    "duplicate_field": "signature malformed",
    "stale": "signed too long ago",
    "early": "signed in the future",
    "mismatch": "signed with another secret",
    "not-kept": "taken, but too many at once to be noted here",
}


def notifications(clip: Clip, deliveries: Sequence[Delivery], refusals: Sequence[Refusal], *, may_act: bool) -> Markup:
    """The table, and what was refused of late, since that may be what is missing here."""
    if not deliveries:
        return fill("$none$refused", none=fill(_NONE), refused=_refused(refusals))
    rows = join(_row(clip, each, may_act) for each in deliveries)
    table = fill(_TABLE, rows=rows, act=fill(_ACT) if may_act else EMPTY)
    return fill("$table$note$refused", table=table, note=fill(_NOTE), refused=_refused(refusals))


def _row(clip: Clip, delivery: Delivery, may_act: bool) -> Markup:
    times = EMPTY
    if delivery.times > 1:
        times = fill(_TIMES, times=delivery.times, last=parts.moment(delivery.last_at))
    state = delivery.state or "-"
    return fill(
        _ROW,
        at=parts.moment(delivery.received_at),
        times=times,
        signature=_SIGNATURES.get(delivery.signature, delivery.signature),
        state=state,
        outcome=_OUTCOMES.get(delivery.outcome, delivery.outcome),
        body=fill(_BODY, size=parts.size(delivery.size_bytes), text=_indented(delivery.body)),
        act=fill(_REPLAY, clip=clip.id, number=delivery.id, state=state) if may_act else EMPTY,
    )


def _indented(body: str) -> str:
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except ValueError:
        return body


def _refused(refusals: Sequence[Refusal]) -> Markup:
    if not refusals:
        return EMPTY
    reasons = ", ".join(f"{each.times} × {_REASONS.get(each.reason, each.reason)}" for each in refusals)
    return fill(_REFUSED, reasons=reasons)
