"""Why a clip is where it is, over HTTP: the page's sentence, and fields that agree with it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from orchestrator.explaining import Leadership
from orchestrator.explanations import explanation_of
from orchestrator.storage.clips import read_clip

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LED = Leadership(now=NOW, leads=True, round_age_seconds=0.5)


@pytest.fixture
async def clip(place):
    """A clip at the provider that was just looked at."""
    await place.clip("one", uid="u1")
    clip = await read_clip(place.owner, "one")
    return replace(clip, status_since=NOW, look_at=NOW + timedelta(seconds=12))


async def test_the_sentence_is_that_of_the_page_and_the_fields_stand_beside_it(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "processing")
    document = await (await client.get("/api/clips/one/explain")).json()
    assert (document["id"], document["status"], document["state"]) == ("one", "processing", "running")
    assert document["explanation"].startswith("Cloudflare is encoding it (at processing since ")
    assert (document["waiting_on"], document["monitor_leads"]) == ("monitor", False)
    assert document["since"] < document["at"] < document["gives_up_at"]
    page = unescape(await (await client.get("/clips/one")).text())
    assert document["explanation"].split("since")[0] in page


async def test_an_unknown_clip_is_a_problem(client):
    answer = await client.get("/api/clips/nope/explain")
    assert (answer.status, (await answer.json())["code"]) == (404, "unknown-clip")


@pytest.mark.parametrize(
    ("changes", "details", "waiting_on"),
    [
        ({"status": "elsewhere"}, {}, "newer version"),
        ({"pending": 1}, {}, "monitor"),
        ({}, {}, "uploader"),
        ({"cloudflare_uid": None}, {}, "caller"),
        ({}, {"cloudflare_status": "downloading"}, "provider"),
        ({"cloudflare_uid": None}, {"has_source_url": True}, "provider"),
        ({"status": "queued"}, {}, "provider"),
        ({"status": "processing"}, {}, "provider"),
        ({"status": "processing"}, {"last_problem": {"at": NOW.isoformat(), "code": "x", "text": "X"}}, "time"),
        ({"status": "waitformp4"}, {}, "provider"),
        ({"status": "r2_uploading"}, {}, "program"),
        ({"status": "complete", "look_at": None}, {}, "nobody"),
        ({"status": "complete"}, {"delete_requested": True}, "provider"),
        ({"status": "error", "look_at": None, "hls_url": "https://x/y"}, {}, "person"),
    ],
)
async def test_on_whom_it_waits(clip, changes, details, waiting_on):
    told = explanation_of(replace(clip, processing_details=details, **changes), NOW, LED)
    assert told.waiting_on == waiting_on
    assert (told.unblocked_by is None) == (changes.get("status") == "complete" and not details)


@pytest.mark.parametrize("leadership", [replace(LED, leads=False), replace(LED, round_age_seconds=60.0)])
async def test_without_a_round_of_the_monitor_everything_waits_for_it(clip, leadership):
    assert explanation_of(clip, NOW, leadership).waiting_on == "monitor"


async def test_a_failed_clip_that_is_tried_again_by_itself_tells_when(clip):
    at = NOW + timedelta(minutes=3)
    failed = replace(clip, status="error", processing_details={"retry_at": at.isoformat()}, look_at=at)
    told = explanation_of(failed, NOW, LED)
    assert (told.waiting_on, told.retry_at, told.gives_up_at) == ("time", at, None)
    assert "it is tried again by itself at 12:03:00 UTC" in told.sentence


async def test_the_moments_agree_with_the_row(clip):
    told = explanation_of(replace(clip, status="queued"), NOW, LED)
    assert (told.since, told.next_look_at, told.retry_at) == (NOW, NOW + timedelta(seconds=12), None)
    assert told.gives_up_at is not None
    assert told.gives_up_at > NOW
    ended = explanation_of(replace(clip, status="complete"), NOW, LED)
    assert (ended.next_look_at, ended.gives_up_at) == (None, None)


async def test_hostile_texts_are_told_as_text(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error", error_message="</script>\u202egnp\x1b[2J" * 100)
    document = json.loads(await (await client.get("/api/clips/one/explain")).text())
    assert document["explanation"].isprintable()
