"""The reference of the API for people, made from the OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from orchestrator.web.openapi import DOCUMENT
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join
from orchestrator.web.problems import KINDS

_MAIN = """<h1>API reference</h1>
<p>$about</p>
<p>For programs: <a href="/api/openapi.json">OpenAPI 3.1 document</a>, version $version.</p>
<nav class="contents" aria-label="Contents"><ul>$contents</ul></nav>
$operations
<h2 id="shapes">Shapes</h2>
$shapes
<h2 id="problems">Problems</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Problems"><table>
<thead><tr><th scope="col">Code</th><th scope="col">Status</th><th scope="col">Means</th>
<th scope="col">Remedy</th></tr></thead>
<tbody>$problems</tbody></table></div>"""
_CONTENT = '<li><a href="#$id"><code>$method $path</code></a></li>'
_OPERATION = """<section class="card" id="$id">
<h2><code>$method $path</code></h2>
<p><strong>$summary.</strong> $description</p>
$open
$parameters
$body
<h3>Answers</h3>
<table><tbody>$responses</tbody></table>
</section>"""
_OPEN = '<p class="dim">No token needed.</p>'
_PARAMETERS = "<h3>Parameters</h3><table><tbody>$rows</tbody></table>"
_PARAMETER = '<tr><td><code>$name</code> <span class="dim">$place</span></td><td>$text</td></tr>'
_BODY = "<h3>Body</h3><p>$shapes</p>"
_RESPONSE = "<tr><td>$status</td><td>$text</td></tr>"
_SHAPE = """<section class="card" id="shape-$name"><h3>$name</h3><p>$text</p>$fields</section>"""
_FIELDS = "<table><tbody>$rows</tbody></table>"
_FIELD = '<tr><td><code>$name</code> <span class="dim">$required</span></td><td>$kind</td><td>$text</td></tr>'
_PROBLEM = '<tr id="problem-$code"><td><code>$code</code></td><td>$status</td><td>$title</td><td>$hint</td></tr>'
_LINK = '<a href="#shape-$name">$name</a>'


async def show_docs(request: web.Request) -> web.Response:
    """The reference."""
    document = request.app[DOCUMENT]()
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    main = fill(
        _MAIN,
        about=document["info"]["description"].replace("`", ""),
        version=document["info"]["version"],
        contents=join(
            fill(_CONTENT, id=each["operationId"], method=method, path=path) for method, path, each in operations
        ),
        operations=join(_operation(*each) for each in operations),
        shapes=join(_shape(name, schema) for name, schema in document["components"]["schemas"].items()),
        problems=join(
            fill(_PROBLEM, code=kind.code, status=kind.status, title=kind.title, hint=kind.hint)
            for kind in KINDS.values()
        ),
    )
    return page(request, "API", main)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Markup:
    parameters = join(
        fill(_PARAMETER, name=each["name"], place=each["in"], text=each.get("description"))
        for each in operation["parameters"]
    )
    return fill(
        _OPERATION,
        id=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        description=operation["description"],
        open=fill(_OPEN) if operation.get("security") == [] else EMPTY,
        parameters=fill(_PARAMETERS, rows=parameters) if parameters else EMPTY,
        body=_body(operation.get("requestBody")),
        responses=join(_response(status, each) for status, each in operation["responses"].items()),
    )


def _body(body: dict[str, Any] | None) -> Markup:
    if body is None:
        return EMPTY
    return fill(_BODY, shapes=_kind(body["content"]["application/json"]["schema"]))


def _response(status: str, response: dict[str, Any]) -> Markup:
    shapes = [_kind(each["schema"]) for each in response.get("content", {}).values() if "schema" in each]
    text = fill("$text $shapes", text=response["description"], shapes=join(shapes) if status.startswith("2") else EMPTY)
    return fill(_RESPONSE, status=status, text=text)


def _shape(name: str, schema: dict[str, Any]) -> Markup:
    required = set(schema.get("required", []))
    rows = join(
        fill(
            _FIELD,
            name=field,
            required="required" if field in required else "",
            kind=_kind(each),
            text=each.get("description"),
        )
        for field, each in schema.get("properties", {}).items()
    )
    values = ", ".join(str(value) for value in schema.get("enum", []))
    text = " — ".join(filter(None, [schema.get("description"), values]))
    return fill(_SHAPE, name=name, text=text, fields=fill(_FIELDS, rows=rows) if rows else EMPTY)


def _kind(schema: dict[str, Any]) -> Markup:
    """A schema in few words, with links to named shapes."""
    if "$ref" in schema:
        return fill(_LINK, name=schema["$ref"].rsplit("/", 1)[-1])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return join([_kind(each) for each in schema[key]], " or ")
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return fill("$values", values=" or ".join(json.dumps(value) for value in values))
    if schema.get("type") == "array":
        return fill("list of $items", items=_kind(schema.get("items", {})))
    words = [schema.get("type", "anything"), schema.get("format", "")]
    words += [f"{word} {schema[name]}" for name, word in _BOUNDS.items() if name in schema]
    return fill("$words", words=", ".join(filter(None, words)))


_BOUNDS = {"minimum": "from", "maximum": "to", "maxLength": "at most characters:", "pattern": "like"}
