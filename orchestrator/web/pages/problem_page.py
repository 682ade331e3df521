"""A problem as a page, for those who came with a browser."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from aiohttp import web

from orchestrator.web.pages.forms import own_path
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import Markup, fill, join, markup
from orchestrator.web.problems import Problem

_MAIN = """<section class="card notice failed">
<h1>$title</h1>
<p>$detail</p>
$errors
<p>$hint</p>
<p class="dim">Request <code>$request_id</code></p>
<p>$again <a href="/">All clips</a></p>
</section>"""
_AGAIN = '<a class="button" href="">Try again</a>'
# What a form sent is not sent again by a link: the page with the form is where to go.
_BACK = '<a class="button" href="$address">Back</a>'
_ERROR = "<li><strong>$field</strong>: $reason</li>"


def wants_page(request: web.Request) -> bool:
    """Whether the caller is a person's browser that asked for a page, not a program."""
    return not request.path.startswith(("/api/", "/webhooks/")) and "text/html" in request.headers.get("Accept", "")


def problem_page(request: web.Request, problem: Problem, request_id: str) -> web.Response:
    """The page that tells *problem*; the sign-in page when a token is all that is missing."""
    if problem.code == "unauthorized" and request.method == "GET":
        return web.Response(status=303, headers={"Location": f"/sign-in?next={quote(request.path_qs, safe='')}"})
    errors = join(fill(_ERROR, field=fault.field, reason=fault.reason) for fault in problem.errors)
    main = fill(
        _MAIN,
        title=problem.kind.title,
        detail=problem.detail,
        # A single one is the detail itself.
        errors=fill("<ul>$items</ul>", items=errors) if len(problem.errors) > 1 else "",
        hint=problem.hint or problem.kind.hint,
        request_id=request_id,
        again=_way_on(request),
    )
    response = page(request, problem.kind.title, main, status=problem.kind.status)
    response.headers.update(problem.headers)
    return response


def _way_on(request: web.Request) -> Markup:
    if request.method in ("GET", "HEAD"):
        return markup(_AGAIN)
    return fill(_BACK, address=_came_from(request))


def _came_from(request: web.Request) -> str:
    """The path of the page that sent this call, if it is one of ours."""
    try:
        address = urlsplit(request.headers.get("Referer", ""))
    except ValueError:
        return "/"
    is_ours = address.netloc == request.headers.get("Host")
    return own_path(address._replace(scheme="", netloc="").geturl() if is_ours else None)
