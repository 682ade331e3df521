"""Reading what a form of ours sends, and where it may lead."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from orchestrator.web.bodies import check_text, read_limited
from orchestrator.web.pages.markup import Markup, fill
from orchestrator.web.problems import Problem

_ONLY_LOOKING = """<h1>$heading</h1>
<section class="card notice"><h2>You may look, and ask for nothing</h2>
<p>Your token is one of <code>API_READ_TOKENS</code>. Sign in with one of <code>API_TOKENS</code> to send anything.</p>
<p><a class="button" href="/">All clips</a></p></section>"""
# An address of 4,096 characters, percent-encoded twice over, and a title.
_MAX_BYTES = 64 * 1024


def only_looking(heading: str) -> Markup:
    """What stands where a form would, for those who may not send it."""
    return fill(_ONLY_LOOKING, heading=heading)


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields, without the white space around them; empty ones are left out."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise Problem("unsupported-media", "This address takes the form of the page")
    raw = await read_limited(request, _MAX_BYTES)
    try:
        pairs = parse_qsl(raw.decode("utf-8"), max_num_fields=20, errors="strict")
    except ValueError as problem:
        raise Problem("bad-request", "The form cannot be read") from problem
    for name, value in pairs:
        check_text(name, value)
    return {name: value.strip() for name, value in pairs if value.strip()}


def own_path(address: str | None) -> str:
    """*address* if it is a path here: a form must not lead to somebody else's page."""
    if not address or not address.startswith("/") or address.startswith(("//", "/\\")) or not address.isprintable():
        return "/"
    parts = urlsplit(address)
    return address if not parts.scheme and not parts.netloc and "\\" not in address else "/"
