"""The reference: whole, true to the routes and the law, readable without leaving this service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orchestrator.web.app import create_app
from orchestrator.web.metrics import Metrics
from orchestrator.web.openapi import build_document
from orchestrator.web.problems import KINDS
from orchestrator.web.routes import API_ROUTES, PAGE_ROUTES, ROUTES
from statusutils import STREAM, TABLES


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [
            *([node["$ref"]] if "$ref" in node else []),
            *(ref for each in node.values() for ref in references(each)),
        ]
    return [ref for each in node for ref in references(each)] if isinstance(node, list) else []


async def test_every_route_is_documented_and_every_documented_one_is_served(place):
    app = create_app(place.services)
    served = set()
    for route in app.router.routes():
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical)
        # A HEAD that only leaves out the body of a GET is not documented; one of its own is.
        if route.method != "HEAD" or path == "/api/videos/tus/{id}":
            served.add((route.method.lower(), path))
    pages = {(route.method.lower(), route.path) for route in PAGE_ROUTES}
    documented = {(method, path) for path, methods in build_document(API_ROUTES)["paths"].items() for method in methods}
    assert documented == served - pages
    assert len(ROUTES) == len(served)


async def test_the_document_is_served_with_an_etag(client):
    answer = await client.get("/api/openapi.json")
    document = await answer.json()
    assert document["openapi"] == "3.1.0"
    assert document == build_document(API_ROUTES)
    again = await client.get("/api/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


def test_every_reference_leads_somewhere():
    document = build_document(API_ROUTES)
    for reference in references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_operations_are_named_once_and_say_what_they_do():
    operations = [each for methods in build_document(API_ROUTES)["paths"].values() for each in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] and operation["description"] for operation in operations)


def test_statuses_are_those_of_the_law():
    schemas = build_document(API_ROUTES)["components"]["schemas"]
    assert schemas["Status"]["enum"] == list(dict.fromkeys(name for table in TABLES.values() for name in table.by_name))
    assert schemas["ClipAnswer"]["properties"]["status"] == {"$ref": "#/components/schemas/Status"}
    assert set(STREAM.by_name) <= set(schemas["Status"]["enum"])


def test_every_problem_is_in_the_document():
    document = build_document(API_ROUTES)
    assert set(document["components"]["responses"]) == set(KINDS)
    assert document["components"]["schemas"]["ProblemAnswer"]["properties"]["code"]["enum"] == list(KINDS)


async def test_answers_have_the_fields_their_schema_names(client, place):
    """Each shape against a real answer: no field too many, none missing."""
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    schemas = build_document(API_ROUTES)["components"]["schemas"]

    async def check(name: str, method: str, path: str, pick: str | None = None, **body: Any) -> None:
        answer = await (await client.request(method, path, **body)).json()
        found = answer[pick][0] if pick else answer
        assert set(found) == set(schemas[name]["properties"]), name

    await check("ClipAnswer", "GET", "/api/clips/one")
    await check("ClipList", "GET", "/api/clips")
    await check("StatusAnswer", "GET", "/api/clips/one/status")
    await check("StatusAnswer", "GET", "/api/clips/nope/status")
    await check("EventList", "GET", "/api/clips/one/events")
    await check("EventAnswer", "GET", "/api/clips/one/events", "events")
    await check("CreatedClip", "POST", "/api/clips", json={"source": "upload", "size_bytes": 5})
    await check("AskedAnswer", "POST", "/api/clips/one/signals", json={"requested_status": "queued"})
    await check("PendingAnswer", "GET", "/api/clips/one/events", "pending")
    await check("PriorAnswer", "POST", "/api/cloudflare/delete-video", json={"videoUid": "u1"})
    await check("Mp4Answer", "POST", "/api/cloudflare/poll-mp4-status", json={"videoUid": "u1"})
    await check("Health", "GET", "/healthz")
    await check("Readiness", "GET", "/readyz")
    await check("ProblemAnswer", "GET", "/api/clips/nope")


async def test_refusals_are_documented_where_they_happen(client, place):
    """The status of each refusal seen here stands in the document under its call."""
    await place.clip("one", uid="u1")
    paths = build_document(API_ROUTES)["paths"]
    for method, path, template, body in (
        ("post", "/api/clips", "/api/clips", {"source": "ftp"}),
        ("post", "/api/clips/one/retry", "/api/clips/{id}/retry", {}),
        ("post", "/api/clips/nope/signals", "/api/clips/{id}/signals", {"requested_status": "queued"}),
        ("post", "/api/cloudflare/enable-mp4", "/api/cloudflare/enable-mp4", {"videoUid": "u1"}),
        ("get", "/api/clips?limit=0", "/api/clips", None),
        ("get", "/api/clips/nope", "/api/clips/{id}", None),
    ):
        answer = await client.request(method, path, json=body)
        assert str(answer.status) in paths[template][method]["responses"], (path, answer.status)


async def test_the_page_shows_every_call_shape_and_problem_and_loads_nothing_from_elsewhere(client):
    page = await (await client.get("/api/docs")).text()
    document = build_document(API_ROUTES)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page
            assert f'id="{operation["operationId"]}"' in page
    assert all(f'id="shape-{name}"' in page for name in document["components"]["schemas"])
    assert all(f'id="problem-{code}"' in page for code in KINDS)
    assert page.count("<script") == page.count('<script type="module" src="/assets/')
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page


def test_the_guide_names_every_call_and_every_figure():
    guide = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
    for route in API_ROUTES:
        assert f"{route.method} {route.template}" in guide, route.template
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name in guide, name
