"""The list of clips, newest first: filter, search, pages; live where scripts run."""

from __future__ import annotations

from urllib.parse import urlencode

from aiohttp import web

from orchestrator.storage.clips import Clip
from orchestrator.web.connections import connection_of
from orchestrator.web.pages import parts
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, link, markup
from orchestrator.web.reading import ListQuery, query_from, read_list
from orchestrator.web.views import is_terminal, message_of
from statusutils import TABLES

_MAIN = """<div class="title-row"><h1>Clips</h1><a class="button primary" href="/upload">Upload a clip</a></div>
<form class="filters" method="get" action="/" role="search">
<label>Search <input type="search" name="search" value="$search" maxlength="200" placeholder="Title or id"></label>
<label>Status <select name="status"><option value="">All</option>$options</select></label>
<button>Show</button>
</form>
<section data-region="clips" data-live="clips">
$clips
</section>
$pages"""
_OPTION = '<option value="$value"$selected>$word</option>'
_CLIPS = '<ul class="clips">$items</ul>'
_ITEM = """<li data-clip="$id" data-terminal="$terminal">
<a class="clip card" href="/clips/$id">
<span class="thumb">$thumb</span>
<span class="what"><strong>$name</strong><span class="dim" data-message>$message</span></span>
<span class="bar">$bar</span>
$badge
<span class="when dim">$created</span>
</a></li>"""
_THUMB = '<img src="$src" alt="" loading="lazy" width="96" height="54">'
_NO_THUMB = markup(
    '<svg viewBox="0 0 96 54" aria-hidden="true"><path d="M42 18v18l15-9z" fill="currentColor" stroke="none" /></svg>'
)
_EMPTY = """<div class="card notice">
<h2>No clips yet</h2>
<p>Upload one, and watch it go through every status here.</p>
<p><a class="button primary" href="/upload">Upload a clip</a></p>
</div>"""
_NOTHING_FOUND = """<div class="card notice">
<h2>No clip fits</h2>
<p>Nothing was found for this filter.</p>
<p><a href="/">Show all clips</a></p>
</div>"""
_PAGES = '<nav class="pages" aria-label="Pages">$first$next</nav>'


async def show_list(request: web.Request) -> web.Response:
    """A page of the list. A failed query is a problem page, never an empty list."""
    query = query_from(request)
    async with connection_of(request) as connection:
        clips, next_cursor = await read_list(connection, query)
    main = fill(
        _MAIN,
        search=query.search,
        options=_options(query),
        clips=_clips(clips, query),
        pages=_pages(request, next_cursor),
    )
    is_moving = any(not is_terminal(clip.status) for clip in clips)
    refresh = markup('<noscript><meta http-equiv="refresh" content="10"></noscript>') if is_moving else EMPTY
    return page(request, "Clips", main, head=refresh, scripts=("list.js",))


def _clips(clips: list[Clip], query: ListQuery) -> Markup:
    if not clips:
        is_filtered = query.statuses or query.search or query.pipeline or query.before
        return markup(_NOTHING_FOUND if is_filtered else _EMPTY)
    return fill(_CLIPS, items=join(_item(clip) for clip in clips))


def _item(clip: Clip) -> Markup:
    return fill(
        _ITEM,
        id=clip.id,
        terminal="yes" if is_terminal(clip.status) else "no",
        thumb=fill(_THUMB, src=clip.thumbnail_url) if _has_picture(clip) else _NO_THUMB,
        name=parts.name_of(clip),
        message=parts.message(clip),
        bar=parts.bar(clip, f"Progress of {parts.name_of(clip)}"),
        badge=parts.badge(clip),
        created=parts.moment(clip.created_at),
    )


def _has_picture(clip: Clip) -> bool:
    # Before the video plays the address exists and leads nowhere.
    return bool(link(clip.thumbnail_url) and clip.hls_url)


def _options(query: ListQuery) -> Markup:
    table = TABLES.get(query.pipeline or "", next(iter(TABLES.values())))
    return join(
        fill(
            _OPTION,
            value=name,
            selected=markup(" selected") if name in query.statuses else EMPTY,
            word=message_of(table.pipeline, name),
        )
        for name in table.by_name
    )


def _pages(request: web.Request, next_cursor: str | None) -> Markup:
    kept = [(name, value) for name, value in request.query.items() if name != "cursor" and value]
    first = EMPTY
    if "cursor" in request.query:
        first = fill('<a class="button" href="/?$query">Newest</a>', query=urlencode(kept))
    following = EMPTY
    if next_cursor:
        query = urlencode([*kept, ("cursor", next_cursor)])
        following = fill('<a class="button" href="/?$query" rel="next">Older clips</a>', query=query)
    return fill(_PAGES, first=first, next=following) if first or following else EMPTY
