"""Where a clip stands, in one card: progress, the sentence, what comes when, what failed, and the whole way it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.explaining import Leadership, spell, spell_seconds
from orchestrator.explanations import Explanation, explanation_of
from orchestrator.storage.clips import Clip
from orchestrator.storage.heavy_steps import StepOnHand
from orchestrator.web.pages import parts
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.pages.two_parts import legend, two_parts
from orchestrator.web.views import message_of, timestamp
from signals import PendingSignal
from statusutils import COMPLETE, ERROR, TABLES, StatusTable

_CARD = """<div class="status-row">$badge<p class="message" data-message>$message</p>
<span class="percent" data-percent>$percent %</span></div>
$bar
$why
$failure
$coming
$note
<ol class="path" aria-label="All statuses">$path</ol>
<p class="dim">Last change $updated<span data-connection></span></p>"""
_WHY = '<p class="why dim" data-why>$why</p>'
_FAILURE = '<div class="failure">$text$form</div>'
_WHAT_FAILED = '<p class="failed"><strong>What failed:</strong> <bdi>$reason</bdi></p>'
_RETRY = """<form method="post" action="/clips/$id/retry" data-asks>
<button class="primary">$word</button></form>"""
_COMING = '<dl class="facts coming">$items</dl>'
_ITEM = "<div><dt>$name</dt><dd>$value</dd></div>"
# Scripts count it down; the moment itself stays beside it.
_UNTIL = '<span data-until="$exact">$words</span> <span class="dim">at $shown</span>'
_STEP = (
    '<li class="$how"$current><span class="dot">$icon</span><span class="step">$word <code>$status</code></span></li>'
)
_ASKED = (
    '<p class="note">Requested: <strong>$message</strong>'
    ' <span class="dim">by <bdi>$source</bdi>; not judged yet</span></p>'
)
_REFUSED = '<p class="note">The last request was refused: <bdi>$reason</bdi></p>'
_BANNER = """<div class="banner-row">$badge<strong data-message>$message</strong>
<span class="percent" data-percent>$percent %</span>$expected</div>$bar"""
_EXPECTED = ' <span class="dim">$words</span>'


@dataclass(frozen=True, slots=True)
class StatusView:
    """What the card is made of; *expected_seconds* is the range until the clip is probably complete."""

    clip: Clip
    pending: Sequence[PendingSignal]
    leadership: Leadership
    expected_seconds: tuple[float, float] | None
    may_retry: bool
    heavy_step: StepOnHand | None = None

    @property
    def explanation(self) -> Explanation:
        """By the database's clock, which wrote the times it speaks of."""
        return explanation_of(self.clip, self.leadership.now, self.leadership, self.heavy_step)


def status_card(view: StatusView) -> Markup:
    """The card's inside."""
    clip, explanation = view.clip, view.explanation
    return fill(
        _CARD,
        # Of a complete clip there is nothing to explain.
        why=EMPTY if clip.status == COMPLETE else fill(_WHY, why=explanation.sentence),
        badge=parts.badge(clip),
        message=parts.message(clip),
        # Down to the whole number, here as in the script: a rounded one would be taken back.
        percent=int(clip.progress),
        bar=fill("$bar$legend", bar=two_parts(clip, "Progress"), legend=EMPTY if _is_ended(clip) else legend(clip)),
        failure=_failure(view, explanation),
        coming=_coming(view, explanation),
        note=_note(view),
        path=_path(clip),
        updated=parts.moment(clip.updated_at),
    )


def banner(view: StatusView) -> Markup:
    """The same in a line, for the lower edge of the window, as long as something goes on."""
    clip = view.clip
    words = _expected_words(view)
    retry_at = view.explanation.retry_at
    if retry_at is not None:
        words = fill("tries again $when", when=_until(retry_at, view.leadership.now))
    return fill(
        _BANNER,
        badge=parts.badge(clip),
        message=message_of(clip.pipeline, clip.status),
        percent=int(clip.progress),
        bar=two_parts(clip, "Progress, in short"),
        expected=fill(_EXPECTED, words=words) if words else EMPTY,
    )


def _is_ended(clip: Clip) -> bool:
    return clip.status in (COMPLETE, ERROR)


def _failure(view: StatusView, explanation: Explanation) -> Markup:
    """The reason of a failure, with what can be done about it beside it."""
    clip = view.clip
    if clip.status != ERROR:
        return EMPTY
    text = fill(_WHAT_FAILED, reason=clip.error_message or "no reason was given")
    word = "Try again now" if explanation.retry_at is not None else "Try again"
    form = fill(_RETRY, id=clip.id, word=word) if view.may_retry else EMPTY
    return fill(_FAILURE, text=text, form=form)


def _coming(view: StatusView, explanation: Explanation) -> Markup:
    """What happens when, as far as it is known."""
    now = view.leadership.now
    items: list[tuple[str, Markup | str]] = []
    if explanation.unblocked_by is not None:
        items.append(("What would move it", explanation.unblocked_by))
    if explanation.retry_at is not None:
        items.append(("Tries again by itself", _until(explanation.retry_at, now)))
    if explanation.next_look_at is not None and explanation.retry_at is None:
        items.append(("Checks again", _until(explanation.next_look_at, now)))
    if explanation.gives_up_at is not None:
        items.append(("Given up if nothing moves", _until(explanation.gives_up_at, now)))
    words = _expected_words(view)
    if words:
        items.append(("Probably complete", words))
    if not items:
        return EMPTY
    return fill(_COMING, items=join(fill(_ITEM, name=name, value=value) for name, value in items))


def _until(at: datetime, now: datetime) -> Markup:
    words = f"in {spell(at - now)}" if at > now else "now"
    return fill(_UNTIL, exact=timestamp(at), words=words, shown=_clock_time(at, now))


def _clock_time(at: datetime, now: datetime) -> str:
    """The time alone when it is today, in UTC; beside a countdown no script need put it into other words."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.astimezone(UTC).date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _expected_words(view: StatusView) -> str:
    if view.expected_seconds is None:
        return ""
    low, high = (spell_seconds(seconds) for seconds in view.expected_seconds)
    if low == high:
        return f"in about {high}"
    return f"in {low} to {high}" if view.expected_seconds[0] >= 1 else f"within {high}"


def _note(view: StatusView) -> Markup:
    """What was asked and has no answer yet, or was refused."""
    clip = view.clip
    if view.pending:
        asked = view.pending[-1]
        return fill(_ASKED, message=message_of(clip.pipeline, asked.requested_status), source=asked.source)
    refused = clip.processing_details.get("requested_status_error")
    return fill(_REFUSED, reason=refused) if isinstance(refused, str) and refused else EMPTY


def _path(clip: Clip) -> Markup:
    table = TABLES.get(clip.pipeline)
    if table is None:
        return EMPTY
    return join(_step(clip, table, name) for name in table.by_name)


def _step(clip: Clip, table: StatusTable, name: str) -> Markup:
    is_here = clip.status == name
    how = _how(clip, table, name)
    icon = parts.icon({"done": "done", "failed": "failed", "running": "running"}.get(how, "pending"))  # type: ignore[arg-type]
    return fill(
        _STEP,
        how=how,
        current=markup(' aria-current="step"') if is_here else EMPTY,
        icon=icon if how != "unreached" else EMPTY,
        word=table[name].message,
        status=name,
    )


def _how(clip: Clip, table: StatusTable, name: str) -> str:
    is_here = clip.status == name
    if name == ERROR:
        return "failed" if is_here else "unreached"
    if clip.status == ERROR:
        # Progress stands where it stood: it tells how far the clip had come.
        return "done" if table[name].min_progress <= clip.progress else "unreached"
    if clip.status not in table:
        return "unreached"
    if table[name].order < table[clip.status].order or clip.status == COMPLETE:
        return "done"
    return "running" if is_here else "unreached"
