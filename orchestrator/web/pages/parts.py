"""The pieces that several pages show: a status with its icon and word, a bar, a moment, a size."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.storage.clips import Clip
from orchestrator.web.pages.markup import EMPTY, Markup, fill, markup
from orchestrator.web.schemas import State
from orchestrator.web.views import message_of, state_of

# Drawn in a box of 16; the colour is the text's.
_ICONS: dict[State, Markup] = {
    "pending": markup('<circle cx="8" cy="8" r="5.75" stroke-dasharray="2.6 2.6" />'),
    "running": markup('<path d="M13.75 8A5.75 5.75 0 1 1 8 2.25" class="turns" />'),
    "done": markup('<path d="M3 8.5l3.4 3.4L13 4.8" />'),
    "failed": markup('<path d="M4 4l8 8M12 4l-8 8" />'),
}
_WORDS: dict[State, str] = {"pending": "Waiting", "running": "Running", "done": "Done", "failed": "Failed"}
_ICON = '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">$shape</svg>'
_BADGE = '<span class="badge $state">$icon<span>$word</span></span>'
_BAR = '<progress max="100" value="$value" aria-label="$label" data-progress>$value %</progress>'
_MOMENT = '<time datetime="$exact" title="$exact">$shown</time>'


def icon(state: State) -> Markup:
    """The picture of a state; it never stands without a word."""
    return fill(_ICON, shape=_ICONS[state])


def badge(clip: Clip) -> Markup:
    """The state of a clip as icon and word."""
    state = state_of(clip.pipeline, clip.status)
    return fill(_BADGE, state=state, icon=icon(state), word=_WORDS[state])


def message(clip: Clip) -> str:
    """The sentence about where the clip stands."""
    return message_of(clip.pipeline, clip.status, clip.error_message)


def bar(clip: Clip, label: str) -> Markup:
    """The clip's progress."""
    return fill(_BAR, value=f"{clip.progress:g}", label=label)


def name_of(clip: Clip) -> str:
    """What people call the clip."""
    return clip.title or f"Clip {clip.id[-6:]}"


def moment(at: datetime | None) -> Markup:
    """A time as people read it, exact in the attribute; scripts turn it into the reader's own zone."""
    if at is None:
        return EMPTY
    at = at.astimezone(UTC)
    return fill(
        _MOMENT, exact=at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), shown=f"{at:%Y-%m-%d %H:%M:%S} UTC"
    )


def size(size_bytes: int | None) -> str | None:
    """Bytes in the unit people use for files."""
    if size_bytes is None:
        return None
    value, units = float(size_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


def length(seconds: float | None) -> str | None:
    """A duration as minutes and seconds."""
    if seconds is None:
        return None
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
