"""The rows of the board: one clip each, with where it stands, since when, and what is the matter with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from orchestrator.noticing import VIEWS, Case, Yardsticks, noticed
from orchestrator.storage.clips import Clip
from orchestrator.web.pages import parts
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, link, markup
from orchestrator.web.schemas import State
from orchestrator.web.views import is_terminal

_ROWS = '<ul class="clips">$items</ul>'
_ROW = """<li data-clip="$id" data-terminal="$terminal" data-version="$version">
<a class="clip card" href="/clips/$id">
<span class="thumb">$thumb</span>
<span class="what"><strong><bdi>$name</bdi></strong><bdi class="dim" data-message>$message</bdi>$notes</span>
<span class="bar">$bar</span>
<span class="state" data-state>$badge</span>
<span class="when dim"><code>$pipeline</code> <span>came here $since</span></span>
</a></li>"""
_NOTE = '<span class="notice-line">$icon<span>$title: $sentence</span></span>'
_THUMB = '<img src="$src" alt="" loading="lazy" width="96" height="54">'
_NO_THUMB = markup(
    '<svg viewBox="0 0 96 54" aria-hidden="true"><path d="M42 18v18l15-9z" fill="currentColor" stroke="none" /></svg>'
)
WARNING = markup(
    '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M8 2.2l6.3 11H1.7z M8 6.6v3 M8 11.4v.1" /></svg>'
)
_BADGES = '<template data-badge="$state">$badge</template>'
_STATES: Mapping[State, str] = {"pending": "Waiting", "running": "Running", "done": "Done", "failed": "Failed"}
_BADGE = '<span class="badge $state">$icon<span>$word</span></span>'


def rows(clips: tuple[Clip, ...], now: datetime, yardsticks: Yardsticks) -> Markup:
    """The clips as a list."""
    return fill(_ROWS, items=join(_row(clip, Case(clip, now, yardsticks)) for clip in clips))


def badge_templates() -> Markup:
    """The badge of each state, for the script that changes them in place."""
    return join(
        fill(_BADGES, state=state, badge=fill(_BADGE, state=state, icon=parts.icon(state), word=word))
        for state, word in _STATES.items()
    )


def _row(clip: Clip, case: Case) -> Markup:
    return fill(
        _ROW,
        id=clip.id,
        terminal="yes" if is_terminal(clip.status) else "no",
        version=clip.version,
        thumb=fill(_THUMB, src=clip.thumbnail_url) if _has_picture(clip) else _NO_THUMB,
        name=parts.name_of(clip),
        message=parts.message(clip),
        notes=_notes(case),
        bar=parts.bar(clip, f"Progress of {parts.name_of(clip)}"),
        badge=parts.badge(clip),
        pipeline=clip.pipeline,
        since=parts.moment(clip.status_since),
    )


def _notes(case: Case) -> Markup:
    found = []
    for view in VIEWS.values():
        rules = noticed(view, case)
        # That a clip failed its row says already.
        told = [rule for rule in rules if rule.name != "failed"]
        if told:
            found.append(fill(_NOTE, icon=WARNING, title=view.title, sentence=told[0].sentence))
    return join(found) if found else EMPTY


def _has_picture(clip: Clip) -> bool:
    # Before the video plays the address exists and leads nowhere.
    return bool(link(clip.thumbnail_url) and clip.hls_url)
