"""Calls drawn from the service's own reference by Hypothesis: right ones, slightly wrong ones, and nonsense."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st

from wire.http import once, request_bytes

_TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "\0", "\ud800", "../..", "%00", "<script>", "x" * 600, "\u202e", "'; --", "\r\nX: y", "NaN"]),
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=8,
)
_IDS = st.sampled_from(["one", "two", "nope", "a" * 64, "a" * 65, "..", "%2e%2e", "\u00e9", "one%00", "one/", ""])


@dataclass
class Told:
    """What came back: statuses, and the operations that were met."""

    calls: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    operations: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the reference."""

    name: str
    method: str
    path: str
    declared: frozenset[str]
    query: dict[str, Any]
    body: Any


def draw_calls(address: str, token: str, examples: int, seconds: float) -> Told:
    """Send drawn calls until *examples* or *seconds* are over; fails with the smallest call that met a fault."""
    host, port = _place(address)
    document = json.loads(asyncio.run(once(host, port, request_bytes("GET", "/api/openapi.json", host))).body)
    operations = _operations(document)
    told, ends = Told(), time.monotonic() + seconds

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples < 10_000, verbosity=Verbosity.quiet,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    @given(st.sampled_from(operations).flatmap(lambda operation: _call(operation, document)))
    def run(call: tuple[Operation, str, bytes | None, list[tuple[str, str]]]) -> None:
        if time.monotonic() > ends:
            return
        operation, target, body, headers = call
        raw = request_bytes(operation.method, target, f"{host}:{port}", [*headers, _bearer(token)], body)
        try:
            reply = asyncio.run(once(host, port, raw, 30))
        except ConnectionError:
            return
        told.calls += 1
        told.statuses[reply.status] += 1
        told.operations.add(operation.name)
        assert reply.status < 500, (operation.name, target, body, headers, reply)
        # What the HTTP library could not read never reached the operation.
        if reply.header("X-Request-Id") and target.startswith(operation.path.partition("{")[0]):
            # What is refused before anybody asks which operation is meant stands in none of them.
            known = operation.declared | {"400", "404", "405", "415", "417"}
            assert str(reply.status) in known, (operation.name, target, body, reply)

    run()
    return told


def _place(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


def _operations(document: dict[str, Any]) -> list[Operation]:
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "text/event-stream" in json.dumps(operation["responses"]):
                continue  # its answer has no end
            content = operation.get("requestBody", {}).get("content", {})
            query = {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == "query"}
            body = content.get("application/json", {}).get("schema")
            declared = frozenset(operation["responses"])
            found.append(Operation(operation["operationId"], method.upper(), path, declared, query, body))
    return found


def _call(operation: Operation, document: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.tuples(
        st.just(operation),
        st.tuples(_IDS, _query(operation, document))
        .map(lambda drawn: operation.path.replace("{id}", drawn[0].encode("utf-8", "replace").decode()) + drawn[1])
        .map(lambda target: quote(target, safe="/?&=%")),
        _body(operation, document),
        st.lists(_headers(), max_size=2),
    )


def _query(operation: Operation, document: dict[str, Any]) -> st.SearchStrategy[str]:
    names = st.sampled_from([*operation.query, "other"])
    values = {name: _value(schema, document).map(_as_text) for name, schema in operation.query.items()}
    one = names.flatmap(lambda name: st.tuples(st.just(name), values.get(name, _TEXTS) | _TEXTS))
    return st.lists(one, max_size=3).map(
        lambda pairs: "?" + "&".join(f"{name}={quote(text.encode('utf-8', 'replace'))}" for name, text in pairs)
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _body(operation: Operation, document: dict[str, Any]) -> st.SearchStrategy[bytes | None]:
    if operation.method == "GET":
        return st.none()
    right = _value(operation.body, document) if operation.body else st.just({})
    wrong = st.tuples(right, st.dictionaries(_TEXTS, _ANY, max_size=2)).map(
        lambda both: {**both[0], **both[1]} if isinstance(both[0], dict) else both[1]
    )
    documents = right | right | wrong | _ANY
    return documents.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60) | st.none()


def _headers() -> st.SearchStrategy[tuple[str, str]]:
    return st.sampled_from(
        [
            ("Content-Type", "application/json"), ("Content-Type", "text/plain"), ("Content-Encoding", "gzip"),
            ("Idempotency-Key", "a"), ("Idempotency-Key", "b" * 300), ("Idempotency-Key", ""), ("If-None-Match", "*"),
            ("If-None-Match", '"v1"'), ("Accept", "text/html"), ("Last-Event-ID", "9" * 30), ("Expect", "nothing"),
            ("Origin", "null"), ("Sec-Fetch-Site", "cross-site"), ("Range", "bytes=0-1"), ("Cookie", "\"; ; =="),
            ("Webhook-Signature", "time=1,sig1=0"), ("Content-Type", "application/json; charset=utf-16"),
        ]
    )  # fmt: skip


def _value(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit *schema*, and now and then one that does not."""
    return st.one_of(_fitting(schema, document), _fitting(schema, document), _fitting(schema, document), _ANY)


def _fitting(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _fitting(document["components"]["schemas"][name], document)
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return st.one_of(*(_fitting(each, document) for each in schema[union]))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return _of_type(schema, document)


def _of_type(schema: dict[str, Any], document: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema.get("type"):
        case "integer":
            return st.integers(schema.get("minimum", -(2**40)), schema.get("maximum", 2**40))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(_value(schema.get("items", {}), document), max_size=3)
        case "object":
            required = set(schema.get("required", ()))
            members = {name: _value(each, document) for name, each in schema.get("properties", {}).items()}
            if not members:
                return st.dictionaries(_TEXTS, _ANY, max_size=3)
            return st.fixed_dictionaries(
                {name: member for name, member in members.items() if name in required},
                optional={name: member for name, member in members.items() if name not in required},
            )
        case "string":
            if "pattern" in schema:
                return st.from_regex(schema["pattern"]) | _TEXTS
            return _TEXTS.filter(lambda text: len(text) <= schema.get("maxLength", 10_000))
    return _ANY
