"""A problem as a page, for those who came with a browser."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import fill, join
from orchestrator.web.problems import Problem

_MAIN = """<section class="card notice failed">
<h1>$title</h1>
<p>$detail</p>
$errors
<p>$hint</p>
<p class="dim">Request <code>$request_id</code></p>
<p><a class="button" href="">Try again</a> <a href="/">All clips</a></p>
</section>"""
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
        errors=fill("<ul>$items</ul>", items=errors) if errors else "",
        hint=problem.hint or problem.kind.hint,
        request_id=request_id,
    )
    response = page(request, problem.kind.title, main, status=problem.kind.status)
    response.headers.update(problem.headers)
    return response
