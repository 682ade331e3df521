"""The frame of every page."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from orchestrator.web.access import SESSION_COOKIE
from orchestrator.web.assets import ASSETS, Assets
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.pages.theme import color_scheme, theme_attribute, theme_form

_PAGE = """<!doctype html>
<html lang="en"$theme>
<head>
<meta charset="utf-8">
<title>$title · Clip Orchestrator</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="$scheme">
<link rel="icon" href="$icon" type="image/svg+xml">
<link rel="stylesheet" href="$style">
$head
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
<a class="brand" href="/">
<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 5h16v14H4z M10 9.5v5l4.5-2.5z" /></svg>Clip Orchestrator</a>
<nav aria-label="Main">$nav</nav>
$choice
</header>
<main id="main" tabindex="-1">
$main
</main>
<div id="announcer" class="hidden" role="status" aria-live="polite"></div>
$scripts
</body>
</html>
"""
_NAV = (("/", "Clips"), ("/upload", "Upload"), ("/cut", "Cut"), ("/api/docs", "API"))
_NAV_ITEM = '<a href="$href"$current>$word</a>'
_SIGN_OUT = '<form method="post" action="/sign-out"><button class="quiet">Sign out</button></form>'
_SCRIPT = '<script type="module" src="$src"></script>'


def page(
    request: web.Request,
    title: str,
    main: Markup,
    *,
    head: Markup = EMPTY,
    scripts: Sequence[str] = (),
    status: int = 200,
) -> web.Response:
    """A whole page with *main* in it."""
    assets: Assets = request.app[ASSETS]
    document = fill(
        _PAGE,
        title=title,
        theme=theme_attribute(request),
        scheme=color_scheme(request),
        choice=theme_form(request),
        icon=assets.address("favicon.svg"),
        style=assets.address("style.css"),
        head=head,
        nav=_nav(request),
        main=main,
        scripts=join(fill(_SCRIPT, src=assets.address(name)) for name in ("theme.js", *scripts)),
    )
    return web.Response(
        status=status, body=document.encode("utf-8", "replace"), content_type="text/html", charset="utf-8"
    )


def _nav(request: web.Request) -> Markup:
    current = markup(' aria-current="page"')
    items = [
        fill(_NAV_ITEM, href=href, word=word, current=current if request.path == href else EMPTY) for href, word in _NAV
    ]
    if SESSION_COOKIE in request.cookies:
        items.append(markup(_SIGN_OUT))
    return join(items)
