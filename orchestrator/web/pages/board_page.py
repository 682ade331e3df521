"""The board: every clip newest first, filters and views in the address, the figures around them; live with scripts.

A failed query is told where its answer would stand, and never looks like an empty list.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import structlog
from aiohttp import web

from orchestrator.noticing import VIEWS, yardsticks_from
from orchestrator.storage.listing import Listing, Place, place_of
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.assets import ASSETS
from orchestrator.web.board import Picture, picture_for
from orchestrator.web.connections import connection_of
from orchestrator.web.edge import may_act
from orchestrator.web.expecting import EXPECTATIONS
from orchestrator.web.pages import board_figures, board_rows, parts
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.reading import DEFAULT_LIMIT, ListQuery, medians_of, query_from, read_page, write_cursor
from orchestrator.web.services import services_of
from orchestrator.web.views import is_terminal, message_of
from statusutils import ERROR, TABLES

log = structlog.get_logger(__name__)

_MAIN = """<div class="title-row"><h1>Clips</h1><span class="dim live" data-connection></span>$upload</div>
<section data-region="figures" aria-label="How things stand">$strip</section>
<div class="stands" data-region="places">$places</div>
<nav data-region="views" aria-label="Views">$views</nav>
<form class="filters" method="get" action="/" role="search">
<label>Search <input type="search" name="search" value="$search" maxlength="200"
placeholder="Title, id or video id"></label>
<label>Status <select name="status"><option value="">All</option>$statuses</select></label>
<label>Pipeline <select name="pipeline"><option value="">All</option>$pipelines</select></label>
$kept<button>Show</button>$clear
</form>
<div data-region="told">$told</div>
<button type="button" class="newcomers" data-newcomers hidden></button>
<section data-rows="$follows" aria-label="Clips">
$clips
</section>
$pages
<div data-region="plots">$plots</div>
$badges"""
_STYLE = '<link rel="stylesheet" href="$href">'
_REFRESH = '<noscript><meta http-equiv="refresh" content="10"></noscript>'
_UPLOAD = '<a class="button primary" href="/upload">Upload a clip</a>'
_OPTION = '<option value="$value"$selected>$word</option>'
_KEPT = '<input type="hidden" name="$name" value="$value">'
_CLEAR = '<a class="button" href="/">Clear</a>'
_VIEW_SAYS = """<div class="note"><p><strong>$title</strong>: each clip of which at least one of these is true.</p>
<ul>$rules</ul></div>"""
_RULE = "<li>$sentence</li>"
_CODE_SAYS = """<p class="note">Only clips that failed with the code <code><bdi>$code</bdi></code>.
<a href="$without">Any code</a></p>"""
_RETRY = '<p><a class="button" href="/retry?$query">Try all of these again…</a></p>'
_STOPPED = '<p class="dim">Looked through the clips back to $at. <a href="$href">Look further back</a></p>'
_EMPTY = """<div class="card notice">
<h2>No clips yet</h2>
<p>Upload one, and watch it go through every status here.</p>
$upload
</div>"""
_NOTHING_FOUND = """<div class="card notice">
<h2>No clip fits</h2>
<p>Nothing was found for this filter.</p>
<p><a class="button" href="/">Show all clips</a></p>
</div>"""
_FAILED = """<div class="card notice failed" role="alert">
<h2>The database is out of reach</h2>
<p>The clips could not be read. That says nothing about them: they are all still there.</p>
<p><a class="button" href="">Try again</a></p>
</div>"""
_PAGES = '<nav class="pages" aria-label="Pages">$newest$newer$older</nav>'


async def show_board(request: web.Request) -> web.Response:
    """A page of the board: two queries for the rows at most, and the shared picture of the figures."""
    query = query_from(request)
    picture = await picture_for(request)
    listing: Listing | None = None
    try:
        async with connection_of(request) as connection:
            listing = await read_page(connection, query, request.app[EXPECTATIONS])
            if query.after is not None and len(listing.clips) < query.limit:
                # Fewer than a page are newer: that is the first page.
                query = replace(query, after=None)
                listing = await read_page(connection, query, request.app[EXPECTATIONS])
    except DATABASE_AWAY as problem:
        log.warning("the board's clips could not be read", reason=type(problem).__name__)
    return _page(request, query, picture, listing)


def _page(request: web.Request, query: ListQuery, picture: Picture, listing: Listing | None) -> web.Response:
    figures = picture.figures
    is_first = query.before is None and query.after is None
    main = fill(
        _MAIN,
        upload=_upload(request),
        strip=board_figures.strip(picture),
        views=board_figures.views(figures, query),
        search=query.search,
        statuses=_statuses(query),
        pipelines=join(_option(name, name, query.pipeline == name) for name in TABLES),
        kept=_kept(query),
        clear=markup(_CLEAR) if query.is_filtered else EMPTY,
        told=_told(request, query),
        follows="all" if is_first else "shown",
        clips=_clips(request, query, picture, listing),
        pages=_pages(query, listing),
        places=board_figures.places(figures, query),
        plots=board_figures.plot_cards(picture),
        badges=board_rows.badge_templates(),
    )
    is_moving = listing is None or any(not is_terminal(clip.status) for clip in listing.clips)
    style = fill(_STYLE, href=request.app[ASSETS].address("board.css"))
    response = page(
        request,
        VIEWS[query.view].title if query.view else "Clips",
        main,
        head=join([style, markup(_REFRESH)]) if is_moving else style,
        scripts=("board.js",),
        status=200 if listing is not None else 503,
    )
    if listing is None:
        response.headers["Retry-After"] = "5"
    return response


def _upload(request: web.Request) -> Markup:
    return markup(_UPLOAD) if may_act(request) else EMPTY


def _clips(request: web.Request, query: ListQuery, picture: Picture, listing: Listing | None) -> Markup:
    if listing is None:
        return markup(_FAILED)
    now = services_of(request).now()
    if picture.figures is not None:
        # By the database's clock, which wrote the times that are compared.
        now = max(picture.figures.at, max((clip.updated_at for clip in listing.clips), default=picture.figures.at))
    found = board_rows.rows(listing.clips, now, yardsticks_from(medians_of(picture.usual))) if listing.clips else EMPTY
    if listing.stopped_at is not None and listing.more is not None:
        href = _address(query, cursor=listing.more)
        return join([found, fill(_STOPPED, at=parts.moment(listing.stopped_at), href=href)])
    if listing.clips:
        return found
    if query.is_filtered or query.before:
        return markup(_NOTHING_FOUND)
    return fill(_EMPTY, upload=_upload(request))


def _told(request: web.Request, query: ListQuery) -> Markup:
    """What the filter means where its name does not say it all, and what can be done with all that fit."""
    said = []
    if query.view is not None:
        view = VIEWS[query.view]
        rules = join(fill(_RULE, sentence=f"{rule.sentence[0].upper()}{rule.sentence[1:]}.") for rule in view.rules)
        said.append(fill(_VIEW_SAYS, title=view.title, rules=rules))
    if query.error_code is not None:
        said.append(fill(_CODE_SAYS, code=query.error_code, without=_address(query, error_code="")))
    may_hold_failed = query.view == "attention" or query.statuses == (ERROR,) or query.error_code is not None
    if may_hold_failed and may_act(request):
        kept = {name: value for name, value in _filters(query).items() if name != "status"}
        said.append(fill(_RETRY, query=urlencode(kept)))
    return join(said)


def _filters(query: ListQuery) -> dict[str, str]:
    """The filter as it stands in an address."""
    values = {
        "view": query.view,
        "status": ",".join(query.statuses),
        "pipeline": query.pipeline,
        "search": query.search,
        "error_code": query.error_code,
        "limit": str(query.limit) if query.limit != DEFAULT_LIMIT else None,
    }
    return {name: value for name, value in values.items() if value}


def _address(query: ListQuery, *, cursor: Place | None = None, newer: Place | None = None, **changed: str) -> str:
    """The board with the same filter at another place."""
    values = _filters(query) | changed
    values |= {name: write_cursor(place) for name, place in (("cursor", cursor), ("newer", newer)) if place}
    return "/?" + urlencode({name: value for name, value in values.items() if value})


def _statuses(query: ListQuery) -> Markup:
    tables = [TABLES[query.pipeline]] if query.pipeline in TABLES else list(TABLES.values())
    words = {name: message_of(table.pipeline, name) for table in reversed(tables) for name in table.by_name}
    names = dict.fromkeys(name for table in tables for name in table.by_name)
    chosen = query.statuses[0] if len(query.statuses) == 1 else None
    return join(_option(name, words[name], name == chosen) for name in names)


def _option(value: str, word: str, selected: bool) -> Markup:
    return fill(_OPTION, value=value, selected=markup(" selected") if selected else EMPTY, word=word)


def _kept(query: ListQuery) -> Markup:
    """What the form has no field for and a new search keeps."""
    kept = {name: value for name, value in _filters(query).items() if name in ("view", "error_code", "limit")}
    return join(fill(_KEPT, name=name, value=value) for name, value in kept.items())


def _pages(query: ListQuery, listing: Listing | None) -> Markup:
    if listing is None:
        return EMPTY
    newest = newer = older = EMPTY
    if query.before is not None or query.after is not None:
        newest = fill('<a class="button" href="$href">Newest</a>', href=_address(query))
        if listing.clips:
            href = _address(query, newer=place_of(listing.clips[0]))
            newer = fill('<a class="button" href="$href" rel="prev">Newer clips</a>', href=href)
    if listing.more is not None:
        href = _address(query, cursor=listing.more)
        older = fill('<a class="button" href="$href" rel="next">Older clips</a>', href=href)
    return fill(_PAGES, newest=newest, newer=newer, older=older) if newest or older else EMPTY
