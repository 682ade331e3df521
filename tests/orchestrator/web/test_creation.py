"""Making clips: the three sources, what is asked of the provider, what is written, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.drivers.errors import DatabaseAwayError, PermanentError, TransientError
from orchestrator.identifiers import minted_at
from orchestrator.web.schemas import FORM_MAX_BYTES

SIGNED = "https://files.example.org/a.mp4?signature=canary-of-the-owner"


async def test_an_upload_gets_its_address_from_the_provider_before_its_row_is_written(client, place):
    answer = await client.post("/api/clips", json={"source": "upload", "title": "A day", "size_bytes": 1000})
    made = await answer.json()
    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/clips/{made['id']}"
    assert minted_at(made["id"]) is not None
    assert made["status"] == "uploading"
    assert made["upload_url"].startswith("https://upload.")
    assert made["page_url"] == str(client.make_url(f"/clips/{made['id']}"))
    assert place.stream.asked == [("form", (3600, f"{made['id']}.1", {"clip_id": made["id"], "name": "A day"}))]
    row = await place.owner.fetchrow("SELECT * FROM clips")
    assert (row["cloudflare_uid"], row["title"], row["pipeline"]) == (made["cloudflare_uid"], "A day", "stream")
    assert row["upload_expires_at"].isoformat() == "2026-05-04T18:00:00+00:00"
    assert "canary-upload" not in str(dict(row))


@pytest.mark.parametrize(
    ("size_bytes", "protocol", "expected"),
    [
        (1, None, "form"),
        (FORM_MAX_BYTES, None, "form"),
        (FORM_MAX_BYTES + 1, None, "tus"),
        (10, "tus", "tus"),
        (30_000_000_000, None, "tus"),
    ],
)
async def test_large_uploads_and_those_that_ask_for_it_are_resumable(client, place, size_bytes, protocol, expected):
    wanted = {"source": "upload", "size_bytes": size_bytes} | ({"protocol": protocol} if protocol else {})
    answer = await client.post("/api/clips", json=wanted)
    assert (answer.status, (await answer.json())["protocol"]) == (201, expected)
    assert [call for call, _ in place.stream.asked] == [expected]


async def test_the_longest_duration_travels_to_the_provider(client, place):
    await client.post("/api/clips", json={"source": "upload", "size_bytes": 5, "max_duration_seconds": 7})
    assert place.stream.asked[0][1][0] == 7


async def test_an_address_is_left_to_the_monitor_and_shown_to_nobody(client, place, capfd):
    answer = await client.post("/api/clips", json={"source": "url", "url": SIGNED, "title": "Fetched"})
    made = await answer.json()
    assert answer.status == 201
    assert made["cloudflare_uid"] is made["upload_url"] is None
    assert place.stream.asked == []
    assert await place.owner.fetchval("SELECT source_url FROM clips") == SIGNED
    shown = await (await client.get(f"/api/clips/{made['id']}")).json()
    assert shown["processing_details"]["has_source_url"] is True
    page = await (await client.get(f"/clips/{made['id']}")).text()
    assert "canary-of-the-owner" not in str(made) + str(shown) + page + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://files.example.org/canary-of-the-owner",
        "javascript:canary-of-the-owner",
        "https://",
        "https://name:canary-of-the-owner@example.org/x",
        "https://example.org/canary-of-the-owner with space",
        "https://example.org:99999/canary-of-the-owner",
        "https://[canary-of-the-owner/",
        "file:///etc/passwd",
        "canary-of-the-owner",
        "https://example.org/canary-of-the-owner\n",
        "https://e.org/canary-of-the-owner" + "a" * 4096,
    ],
)
async def test_an_address_that_cannot_be_fetched_is_refused_without_repeating_it(client, place, url, capfd):
    before = await place.fingerprint()
    answer = await client.post("/api/clips", json={"source": "url", "url": url})
    problem = await answer.text()
    assert answer.status == 422
    assert '"field": "url"' in problem
    assert "canary-of-the-owner" not in problem + "".join(capfd.readouterr())
    assert await place.fingerprint() == before


async def test_a_video_at_the_provider_is_adopted_once(client):
    wanted = {"source": "stream", "cloudflare_uid": "a" * 32, "title": "There already"}
    first = await client.post("/api/clips", json=wanted)
    assert first.status == 201
    clip_id = (await first.json())["id"]
    second = await client.post("/api/clips", json=wanted)
    problem = await second.json()
    assert (second.status, problem["code"]) == (409, "already-known")
    assert clip_id in problem["detail"]


async def test_the_history_begins_with_the_creation(client):
    made = await (await client.post("/api/clips", json={"source": "url", "url": "https://e.org/x.mp4"})).json()
    history = await (await client.get(f"/api/clips/{made['id']}/events")).json()
    assert [(line["kind"], line["source"]) for line in history["events"]] == [("created", "api")]


@pytest.mark.parametrize(
    ("fails", "status", "code"),
    [
        (TransientError("call_budget", "no calls left", 17.2), 503, "provider-away"),
        (DatabaseAwayError("the calls cannot be counted"), 503, "database-away"),
        (PermanentError("quota", "the account has no minutes left"), 502, "provider-refused"),
    ],
)
async def test_a_failing_provider_is_told_and_leaves_no_row(client, place, fails, status, code):
    place.stream.fails = fails
    answer = await client.post("/api/clips", json={"source": "upload", "size_bytes": 5})
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (status, code)
    assert fails.text in problem["detail"]
    assert answer.headers.get("Retry-After") == {"provider-away": "17", "database-away": "5"}.get(code)
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 0


async def test_the_page_address_is_the_public_one_where_it_is_known(place):
    client = await place.start(public_base_url="https://clips.example.org")
    made = await (await client.post("/api/clips", json={"source": "url", "url": "https://e.org/x"})).json()
    assert made["page_url"] == f"https://clips.example.org/clips/{made['id']}"


BAD: list[tuple[str, Any, str]] = [
    ("no-source", {}, "source"),
    ("unknown-source", {"source": "ftp"}, "source"),
    ("source-of-another-type", {"source": ["upload"]}, "source"),
    ("no-size", {"source": "upload", "title": "x"}, "size_bytes"),
    ("size-zero", {"source": "upload", "size_bytes": 0}, "size_bytes"),
    ("size-negative", {"source": "upload", "size_bytes": -1}, "size_bytes"),
    ("size-as-text", {"source": "upload", "size_bytes": "12"}, "size_bytes"),
    ("size-as-truth", {"source": "upload", "size_bytes": True}, "size_bytes"),
    ("size-fraction", {"source": "upload", "size_bytes": 1.5}, "size_bytes"),
    ("size-over-thirty-gigabytes", {"source": "upload", "size_bytes": 30_000_000_001}, "size_bytes"),
    ("title-as-list", {"source": "upload", "size_bytes": 1, "title": []}, "title"),
    ("title-too-long", {"source": "upload", "size_bytes": 1, "title": "x" * 501}, "title"),
    ("title-with-nul", {"source": "upload", "size_bytes": 1, "title": "a\0b"}, "title"),
    ("title-with-half-a-pair", {"source": "upload", "size_bytes": 1, "title": "\ud800"}, "title"),
    ("form-too-large", {"source": "upload", "size_bytes": FORM_MAX_BYTES + 1, "protocol": "form"}, "body"),
    ("unknown-protocol", {"source": "upload", "size_bytes": 1, "protocol": "ftp"}, "protocol"),
    ("duration-zero", {"source": "upload", "size_bytes": 1, "max_duration_seconds": 0}, "max_duration_seconds"),
    ("longer-than-ours", {"source": "upload", "size_bytes": 1, "max_duration_seconds": 3601}, "max_duration_seconds"),
    ("longer-than-any", {"source": "upload", "size_bytes": 1, "max_duration_seconds": 36001}, "max_duration_seconds"),
    ("unknown-field", {"source": "upload", "size_bytes": 1, "status": "complete"}, "status"),
    ("no-url", {"source": "url"}, "url"),
    ("url-as-number", {"source": "url", "url": 5}, "url"),
    ("no-uid", {"source": "stream"}, "cloudflare_uid"),
    ("uid-with-a-path", {"source": "stream", "cloudflare_uid": "../../accounts"}, "cloudflare_uid"),
    ("uid-too-long", {"source": "stream", "cloudflare_uid": "a" * 65}, "cloudflare_uid"),
    ("uid-empty", {"source": "stream", "cloudflare_uid": ""}, "cloudflare_uid"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "field"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_a_bad_value_is_named_with_field_and_reason(client, place, document, field):
    before = await place.fingerprint()
    answer = await client.post("/api/clips", json=document)
    problem = await answer.json()
    assert answer.status == 422
    assert answer.content_type == "application/problem+json"
    assert field in [error["field"] for error in problem["errors"]]
    assert all(error["reason"] for error in problem["errors"])
    assert problem["hint"]
    assert place.stream.asked == []
    assert await place.fingerprint() == before
