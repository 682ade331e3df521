"""Signing in with a token, for people: a cookie that stands for it, out of reach of scripts and other sites."""

from __future__ import annotations

from aiohttp import web

from orchestrator.web.access import (
    SESSION_COOKIE,
    SESSION_LIFETIME,
    find_token,
    issue_session,
    known_tokens,
    require_own_page,
)
from orchestrator.web.pages.forms import own_path, read_form
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, markup
from orchestrator.web.refusals import REFUSALS
from orchestrator.web.services import services_of

_MAIN = """<form class="card narrow" method="post" action="/sign-in">
<h1>Sign in</h1>
$fault
<input type="hidden" name="next" value="$following">
<label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<p class="dim">One of the tokens in <code>API_TOKENS</code>; one of <code>API_READ_TOKENS</code> may only look.
You stay signed in for twelve hours.</p>
<button class="primary">Sign in</button>
</form>"""
# Who follows a link from elsewhere may well be signed in: the cookie does not come along with other sites' links. Asked
# for once more from a page of ours, the address brings the cookie, or leads here again and to the form.
_ONWARD = """<section class="card narrow"><h1>One moment</h1>
<p><a class="button primary" href="$following">Go on</a></p></section>"""
_AT_ONCE = '<meta http-equiv="refresh" content="0;url=$following">'
_FAULT = '<p class="note failed" role="alert">That is none of our tokens.</p>'


async def show_form(request: web.Request) -> web.Response:
    """The form; where no tokens are set there is nothing to sign in to."""
    if not services_of(request).settings.api_tokens:
        return _to("/")
    following = own_path(request.query.get("next"))
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return page(request, "Sign in", fill(_ONWARD, following=following), head=fill(_AT_ONCE, following=following))
    return page(request, "Sign in", _form(following, EMPTY))


async def take_token(request: web.Request) -> web.Response:
    """Exchange a token for the cookie."""
    require_own_page(request, lenient=True)
    services = services_of(request)
    form = await read_form(request)
    following = own_path(form.get("next"))
    token = find_token(form.get("token", ""), known_tokens(services.settings))
    if token is None:
        request.app[REFUSALS].warn("a sign-in was refused")
        return page(request, "Sign in", _form(following, markup(_FAULT)), status=403)
    response = _to(following)
    response.set_cookie(
        SESSION_COOKIE,
        issue_session(token, services.now()),
        max_age=int(SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="Strict",
        secure=request.secure or (services.settings.public_base_url or "").startswith("https://"),
        path="/",
    )
    return response


async def sign_out(request: web.Request) -> web.Response:
    """Forget the cookie."""
    require_own_page(request, lenient=True)
    response = _to("/sign-in")
    response.del_cookie(SESSION_COOKIE, path="/")
    return response


def _form(following: str, fault: Markup) -> Markup:
    return fill(_MAIN, following=following, fault=fault)


def _to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})
