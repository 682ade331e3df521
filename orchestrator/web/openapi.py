"""The OpenAPI 3.1 document: made from the route table, the shapes, the problems and the law."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator import __version__
from orchestrator.web import schemas
from orchestrator.web.access import Guard
from orchestrator.web.problems import CONTENT_TYPE, KINDS
from orchestrator.web.route import Route
from orchestrator.web.views import unchanged, versioned_response
from statusutils import TABLES

_REF = "#/components/schemas/{model}"
_ABOUT = """\
Everybody may ask for a move; one monitor decides. A call that asks for something answers 202: recorded, not done.
Times are RFC 3339 in UTC, durations seconds, sizes bytes. Every refusal is a problem document (RFC 9457).
Every POST that makes something takes `Idempotency-Key`: the same key and body get the same answer for 24 hours."""

_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a text of your own that names this call; repeat it with the call and it is made once",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "the ETag you have; 304 when it is still the present one",
    "schema": {"type": "string"},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "the id of the last event you got; the stream goes on from there",
    "schema": {"type": "string"},
}

# Made when somebody first reads it: that takes memory which a process that is only called never needs.
DOCUMENT: web.AppKey[Callable[[], dict[str, Any]]] = web.AppKey("openapi")


def build_document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """The whole document; the same program gives the same document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.is_api:
            paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Clip Orchestrator", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "responses": {kind.code: _problem(kind.code) for kind in KINDS.values()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


async def show_document(request: web.Request) -> web.Response:
    """The document of this process."""
    document = request.app[DOCUMENT]()
    tag = hashlib.sha256(json.dumps(document).encode()).hexdigest()[:16]
    return unchanged(request, tag) or versioned_response(tag, document)


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "description": _paragraph(route.handler.__doc__),
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.body:
        schemas_of_body = [{"$ref": _REF.format(model=model.__name__)} for model in route.body]
        schema = schemas_of_body[0] if len(schemas_of_body) == 1 else {"oneOf": schemas_of_body}
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    if route.guard is Guard.OPEN:
        operation["security"] = []
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.template)
    ]
    for parameter in route.parameters:
        schema = {"type": "array", "items": parameter.schema} if parameter.repeats else parameter.schema
        found.append({"name": parameter.name, "in": "query", "description": parameter.text, "schema": schema})
    found += [_IDEMPOTENCY] if route.once else []
    found += [_IF_NONE_MATCH] if route.etag else []
    found += [_LAST_EVENT_ID] if route.media_type == "text/event-stream" else []
    return found


def _responses(route: Route) -> dict[str, Any]:
    status, model = route.success
    content: dict[str, Any] = {
        route.media_type: {} if model is None else {"schema": {"$ref": _REF.format(model=model.__name__)}}
    }
    responses: dict[str, Any] = {
        str(status): {"description": "Done" if status == 200 else "Recorded", "content": content}
    }
    if status == 201:
        responses["201"]["description"] = "Made"
    if route.etag:
        responses["304"] = {"description": "You have it already"}
    for code in _codes(route):
        name = str(KINDS[code].status)
        said = responses.setdefault(name, {"description": "", "content": {CONTENT_TYPE: {"schema": _problem_ref()}}})
        said["description"] = "; ".join(filter(None, [said["description"], f"{code}: {KINDS[code].title}"]))
    return dict(sorted(responses.items()))


def _codes(route: Route) -> list[str]:
    guards = [] if route.guard is Guard.OPEN else ["unauthorized", "not-from-here"]
    unsafe = ["cross-site", "read-only"] if route.guard is not Guard.OPEN and route.method != "GET" else []
    keys = ["same-key-under-way", "reused-key"] if route.once else []
    database = [] if route.path in ("/healthz", "/metrics", "/api/openapi.json", "/api/docs") else ["database-away"]
    return [*dict.fromkeys([*guards, *unsafe, *route.problems, *keys, "internal", *database])]


def _problem(code: str) -> dict[str, Any]:
    return {"description": KINDS[code].title, "content": {CONTENT_TYPE: {"schema": _problem_ref()}}}


def _problem_ref() -> dict[str, str]:
    return {"$ref": _REF.format(model=schemas.ProblemAnswer.__name__)}


def _schemas(routes: tuple[Route, ...]) -> dict[str, Any]:
    taken = [model for route in routes for model in route.body]
    given: list[type[BaseModel]] = [schemas.ProblemAnswer, *(route.success[1] for route in routes if route.success[1])]
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in dict.fromkeys(taken)]
    wanted += [(model, "serialization") for model in dict.fromkeys(given)]
    _, document = models_json_schema(wanted, ref_template=_REF)
    found = {name: _tidied(schema) for name, schema in sorted(document["$defs"].items())}
    found["ProblemAnswer"]["properties"]["code"]["enum"] = list(KINDS)
    names = dict.fromkeys(name for table in TABLES.values() for name in table.by_name)
    found["Status"] = {
        "type": "string",
        "enum": list(names),
        "description": "; ".join(f"{pipeline}: {' < '.join(table.by_name)}" for pipeline, table in TABLES.items()),
    }
    return found


def _tidied(schema: Any) -> Any:
    """The schema with statuses as the law's list, and without the titles derived from field names."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _tidied(each) for name, each in schema.items() if name != "title" or not isinstance(each, str)}
    if kept.get("format") == schemas.STATUS_FORMAT:
        described = {"description": kept["description"]} if "description" in kept else {}
        return {"$ref": _REF.format(model="Status"), **described}
    return kept


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())
