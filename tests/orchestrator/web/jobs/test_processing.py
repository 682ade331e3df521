"""Asking for clips: the answer tells what will be made, each range is checked, and nothing is done twice."""

from __future__ import annotations

import json
import re

import pytest
from aiohttp import FormData


@pytest.fixture
async def uploaded(client, video):
    made = FormData()
    made.add_field("file", video.read_bytes(), filename="video.mp4")
    assert (await client.post("/api/videos/upload?uploadId=up", data=made)).status == 200
    return "up"


async def ask(client, **body):
    return await client.post("/api/process-video", json={"uploadId": "up", **body})


async def test_explicit_ranges_are_echoed_and_kept(client, place, uploaded):
    clips = [{"start": 0, "end": 1.5}, {"start": 2, "end": 5}]
    answer = await ask(client, mode="manual", clipDuration=3, maxClips=10, clips=clips)
    said = await answer.json()
    assert answer.status == 200, said
    assert (said["success"], said["status"], said["message"]) == (True, "running", "Story processing started")
    assert said["clips"] == [{"start": 0.0, "end": 1.5}, {"start": 2.0, "end": 5.0}]
    assert re.fullmatch(r"job_[0-9]{13}_[0-9a-z]{8}", said["jobId"])
    row = await place.owner.fetchrow("SELECT pipeline, status, title, processing_details FROM clips")
    assert (row["pipeline"], row["status"], row["title"]) == ("cut", "pending", "video.mp4")
    details = json.loads(row["processing_details"])
    assert (details["mode"], details["clips"], details["upload_id"]) == ("manual", said["clips"], "up")


async def test_even_slices_by_default(client, uploaded):
    said = await (await ask(client)).json()
    assert (said["mode"], said["clipDuration"], said["maxClips"]) == ("automatic", 5.0, 50)
    assert said["clips"] == [{"start": 0.0, "end": 5.0}]
    said = await (await ask(client, clipDuration=1, maxClips=3)).json()
    assert [clip["end"] for clip in said["clips"]] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"clips": [{"start": 0, "end": 1}, {"start": 4, "end": 9}]}, "clips.1", "5.000 s long"),
        ({"clips": [{"start": 2, "end": 1}]}, "clips.0", "does not end after its start"),
        ({"clips": [{"start": 1, "end": 1.001}]}, "clips.0", "shorter than"),
        ({"clips": [{"start": -1, "end": 1}]}, "clips.0.start", ""),
        ({"clips": [{"start": "a", "end": 1}]}, "clips.0.start", ""),
        ({"mode": "manual"}, "clips", "at least one"),
        ({"mode": "automatic", "clips": [{"start": 0, "end": 1}]}, "clips", "leave them out"),
        ({"maxClips": 1, "clips": [{"start": 0, "end": 1}, {"start": 1, "end": 2}]}, "clips", "maxClips is 1"),
        ({"clipDuration": 0}, "clipDuration", ""),
        ({"maxClips": 0}, "maxClips", ""),
        ({"mode": "sometimes"}, "mode", ""),
        ({"surprise": 1}, "surprise", ""),
    ],
)
async def test_what_cannot_be_cut_is_refused_by_name(client, place, uploaded, body, field, says):
    answer = await ask(client, **body)
    problem = await answer.json()
    assert (answer.status, problem["errors"][0]["field"]) == (422, field)
    assert says in problem["errors"][0]["reason"]
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 0


async def test_an_upload_nobody_knows(client, uploaded):
    answer = await client.post("/api/process-video", json={"uploadId": "other"})
    assert (answer.status, (await answer.json())["code"]) == (404, "unknown-upload")


async def test_a_file_that_cannot_be_read_makes_a_job_that_will_say_so(client, place):
    made = FormData()
    made.add_field("file", b"no video", filename="a.mp4")
    await client.post("/api/videos/upload?uploadId=up", data=made)
    said = await (await ask(client)).json()
    assert (said["success"], said["clips"]) == (True, None)
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_a_key_makes_one_job_of_two_calls(client, place, uploaded):
    calls = [
        await client.post("/api/process-video", json={"uploadId": "up"}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    first, second = [await answer.json() for answer in calls]
    assert first == second
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_asking_keeps_the_upload_for_another_while(client, place, uploaded):
    await place.owner.execute("UPDATE uploads SET used_at = used_at - interval '20 hours'")
    await ask(client)
    assert await place.owner.fetchval("SELECT clock_timestamp() - used_at < interval '1 minute' FROM uploads")
