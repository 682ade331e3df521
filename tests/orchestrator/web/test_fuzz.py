"""Calls that nobody wrote by hand: whatever is sent, the answer is never the service's own fault."""

from __future__ import annotations

import json
import random
import string
from typing import Any

from yarl import URL

from orchestrator.web.routes import API_ROUTES

# The same calls in every run; a failure names its own.
SEED, CALLS = 20260504, 600
WORDS = (
    "", "upload", "url", "stream", "tus", "form", "queued", "error", "complete", "one", "u1", "\0", "\ud800", "\udfff",
    "'\"<>&",
    "../..", "%00", "https://e.org/x", "x" * 600, "\u202e", "\x1b[31m", "NaN", "null", "\r\nX-A: b",
    "\N{CLAPPER BOARD}",
)  # fmt: skip
FIELDS = (
    "source", "title", "size_bytes", "max_duration_seconds", "protocol", "url", "cloudflare_uid", "requested_status",
    "details", "videoUid", "request", "attempt", "insists",
)  # fmt: skip
RAW = (
    "%00",
    "%FF",
    "%ED%A0%80",
    "..%2F",
    "%2e%2e",
    "+",
    "%25",
    "a",
    "Z",
    "-",
    "%0d%0a",
    "'",
    "%E2%80%AE",
    "1",
    "&",
    "=",
    ";",
)
WHERE_THEY_STAND = "SELECT array_agg(status || progress ORDER BY id) FROM clips WHERE id IN ('one', 'two')"
NUMBERS = (0, 1, -1, 5, 2**31, 2**63 - 1, 2**63, 1e308, 0.1, True, None)


def value(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.randrange(6 if depth else 3)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return "".join(rng.choices(string.printable, k=rng.randrange(20)))
    if kind == 3:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice((*FIELDS, *WORDS)): value(rng, depth - 1) for _ in range(rng.randrange(6))}


def call(rng: random.Random, base: str) -> tuple[str, URL, bytes, dict[str, str]]:
    route = rng.choice([route for route in API_ROUTES if route.media_type == "application/json"])
    path = route.template
    if "{id}" in path:
        path = path.replace("{id}", rng.choice(["one", "two", "nope", "".join(rng.choices(RAW, k=3))]))
    names = ("status", "limit", "cursor", "search", "after", "pipeline")
    query = "&".join(f"{rng.choice(names)}={''.join(rng.choices(RAW, k=2))}" for _ in range(rng.randrange(3)))
    whole = {name: value(rng) for name in rng.sample(FIELDS, rng.randrange(5))}
    whole |= {"source": rng.choice(WORDS[1:4])} if rng.random() < 0.5 else {}
    body = json.dumps(whole if rng.random() < 0.8 else value(rng)).encode()
    if rng.random() < 0.3:
        cut = rng.randrange(len(body) + 1)
        body = body[:cut] + rng.randbytes(rng.randrange(4)) + body[cut:]
    headers = {"Content-Type": "application/json"}
    if rng.random() < 0.2:
        headers["Idempotency-Key"] = "".join(rng.choices(string.ascii_letters, k=1))
    return route.method, URL(f"{base}{path}?{query}", encoded=True), body, headers


async def test_whatever_is_sent_is_never_answered_with_a_fault_of_ours(client, place):
    await place.clip("one", uid="u1")
    await place.clip("two", uid="u2")
    await place.move("two", "error")
    rng = random.Random(SEED)  # noqa: S311  (no secret is made of it)
    base = str(client.make_url("/")).rstrip("/")
    moved_before = await place.owner.fetchval(
        "SELECT array_agg(status || progress ORDER BY id) FROM clips WHERE id IN ('one', 'two')"
    )
    for number in range(CALLS):
        method, url, body, headers = call(rng, base)
        answer = await client.session.request(method, url, data=body if method == "POST" else None, headers=headers)
        text = await answer.text()
        assert answer.status < 500, (number, method, url, body, text)
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json", (number, method, url, text)
    moved = await place.owner.fetchval(
        "SELECT array_agg(status || progress ORDER BY id) FROM clips WHERE id IN ('one', 'two')"
    )
    assert moved == moved_before
