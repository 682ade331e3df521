"""Every refusal is a problem document, for programs; a page, for people."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.web.app import create_app
from orchestrator.web.problems import KINDS, shorten

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "hint", "errors", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("GET", "/nothing/at/all", 404),
        ("PUT", "/api/clips", 405),
        ("PATCH", "/api/clips/one", 405),
        ("POST", "/api/clips/one", 405),
        ("POST", "/healthz", 405),
        ("GET", "/webhooks/cloudflare", 405),
        ("GET", "/api/clips/one", 404),
        ("POST", "/api/clips", 400),
        ("GET", "/api/clips?limit=x", 422),
        ("OPTIONS", "/api/clips", 405),
        ("TRACE", "/api/clips", 405),
    ],
)
async def test_every_refusal_has_the_same_members(client, method, path, status):
    answer = await client.request(method, path)
    problem = await answer.json()
    assert answer.status == problem["status"] == status
    assert answer.content_type == "application/problem+json"
    assert set(problem) == MEMBERS
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert problem["instance"] == path.split("?")[0]
    assert problem["title"] == KINDS[problem["code"]].title
    if status == 405:
        assert answer.headers["Allow"]


async def test_an_unhandled_error_tells_its_request_id_and_nothing_else(place, capfd):
    app = create_app(place.services)

    async def breaks(request: web.Request) -> web.Response:
        raise RuntimeError("canary-inner-detail")

    app.router.add_get("/api/breaks", breaks)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/api/breaks")
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (500, "internal")
    assert "canary-inner-detail" not in str(problem)
    logged = "".join(capfd.readouterr())
    assert problem["request_id"] in logged
    assert "canary-inner-detail" in logged


async def test_a_database_that_is_not_migrated_is_told(client, place):
    await place.owner.execute("ALTER TABLE clips RENAME TO clips_away")
    try:
        answer = await client.get("/api/clips")
        assert (answer.status, (await answer.json())["code"]) == (503, "not-ready-yet")
        assert "orchestrator migrate" in (await answer.json())["detail"]
    finally:
        await place.owner.execute("ALTER TABLE clips_away RENAME TO clips")


async def test_people_get_a_page_and_programs_a_document(client):
    page = await client.get("/nothing", headers={"Accept": "text/html,application/xhtml+xml"})
    assert (page.status, page.content_type) == (404, "text/html")
    assert "There is nothing at this address" in await page.text()
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    document = await client.get("/api/nothing", headers={"Accept": "text/html"})
    assert document.content_type == "application/problem+json"


async def test_what_the_caller_sent_is_shown_short_and_printable(client, caplog):
    caplog.set_level(logging.DEBUG)
    answer = await client.get("/api/clips", params={"limit": "\x1b[31m" + "x" * 5000})
    [error] = (await answer.json())["errors"]
    assert len(error["value"]) <= 80
    assert "\x1b" not in error["value"]
    assert shorten({"a": float("nan")}) == '{"a": NaN}'


def test_codes_are_named_once_and_every_row_is_whole():
    assert all(
        code == kind.code and kind.title and kind.hint and 400 <= kind.status < 600 for code, kind in KINDS.items()
    )


async def test_answers_carry_the_headers_that_keep_browsers_out(client):
    for path in ("/api/clips", "/healthz", "/api/nothing", "/metrics", "/favicon.ico"):
        headers = (await client.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "aiohttp" not in headers["Server"]


async def test_a_refused_form_leads_back_to_its_page_and_a_refused_page_is_asked_for_again(client, place):
    await place.clip("one", uid="u1")
    own = str(client.make_url("/clips/one?x=1"))
    for referer, back in ((own, "/clips/one?x=1"), ("https://evil.example/x", "/"), ("http://[", "/"), ("", "/")):
        headers = {"Accept": "text/html", "Referer": referer}
        refused = await client.post("/clips/one/retry", headers=headers)
        assert refused.status == 409
        assert f'<a class="button" href="{back}">Back</a>' in await refused.text(), referer
    page = await (await client.get("/?cursor=torn", headers={"Accept": "text/html"})).text()
    assert '<a class="button" href="">Try again</a>' in page
