"""Light, dark, or as the system is: kept in a cookie, so that the first paint is right and needs no script."""

from __future__ import annotations

from aiohttp import web

from orchestrator.web.access import require_own_page
from orchestrator.web.pages.forms import own_path, read_form
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup

_COOKIE = "theme"
_KEPT_SECONDS = 365 * 24 * 3600
_SCHEMES = {"light": "light", "dark": "dark"}

_FORM = """<form method="post" action="/theme" data-theme-form>
<input type="hidden" name="next" value="$following">
<div class="theme" role="group" aria-label="Theme">$buttons</div>
</form>"""
_BUTTON = """<button class="quiet" name="theme" value="$value" aria-pressed="$pressed" title="$word"><svg class="icon"
viewBox="0 0 16 16" aria-hidden="true">$shape</svg><span class="hidden">$word</span></button>"""
# Drawn in a box of 16, as all our icons are.
_SUN = markup(
    '<circle cx="8" cy="8" r="3" />'
    '<path d="M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.5 1.5M11.5 11.5L13 13M13 3l-1.5 1.5M4.5 11.5L3 13" />'
)
_MOON = markup('<path d="M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z" />')
_HALVES = markup('<circle cx="8" cy="8" r="6" /><path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor" />')
_CHOICES = (("light", "Light", _SUN), ("dark", "Dark", _MOON), ("system", "As the system is", _HALVES))


def theme_of(request: web.Request) -> str:
    """The caller's choice: light, dark, or system when there is none."""
    chosen = request.cookies.get(_COOKIE, "")
    return chosen if chosen in _SCHEMES else "system"


def theme_attribute(request: web.Request) -> Markup:
    """What the document says of it; the style sheet does the rest."""
    chosen = theme_of(request)
    return EMPTY if chosen == "system" else fill(' data-theme="$chosen"', chosen=chosen)


def color_scheme(request: web.Request) -> str:
    """What the browser's own parts are painted in."""
    return _SCHEMES.get(theme_of(request), "light dark")


def theme_form(request: web.Request) -> Markup:
    """The three-way choice; it leads back to the page it stands on."""
    chosen = theme_of(request)
    buttons = join(
        fill(_BUTTON, value=value, word=word, shape=shape, pressed="true" if value == chosen else "false")
        for value, word, shape in _CHOICES
    )
    return fill(_FORM, following=request.path_qs if request.method == "GET" else "/", buttons=buttons)


async def choose_theme(request: web.Request) -> web.Response:
    """Keep the choice for a year; anything but light and dark is the system's."""
    require_own_page(request, lenient=True)
    form = await read_form(request)
    response = web.Response(status=303, headers={"Location": own_path(form.get("next"))})
    if form.get("theme") in _SCHEMES:
        response.set_cookie(
            _COOKIE,
            form["theme"],
            max_age=_KEPT_SECONDS,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=request.secure,
        )
    else:
        response.del_cookie(_COOKIE, path="/")
    return response
