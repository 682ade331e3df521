"""The prior system's four calls: their answers one by one, and that they only ask."""

from __future__ import annotations

import pytest

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.drivers.errors import TransientError

CALLS = ("enable-mp4", "upload-to-r2", "poll-mp4-status", "delete-video")


def path(call: str) -> str:
    return f"/api/cloudflare/{call}"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", [{}, {"videoUid": ""}, {"videoUid": None}, {"videoUid": 7}, {"videoUid": ["u"]}])
async def test_without_a_video_it_is_a_400(client, call, body):
    answer = await client.post(path(call), json=body)
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (400, "videoUid")


@pytest.mark.parametrize("call", CALLS)
async def test_whatever_is_no_json_object_is_a_400(client, call):
    for body in (b"", b"{", b"[]", b"null", b'{"videoUid": "a\\u0000"}', b'{"videoUid": NaN}', b"[" * 5000):
        answer = await client.post(path(call), data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 400


@pytest.mark.parametrize("call", CALLS)
async def test_an_unknown_video_is_a_404(client, call):
    for uid in ("nope", "../../x", "a" * 500):
        assert (await client.post(path(call), json={"videoUid": uid})).status == 404


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_a_405_that_names_the_right_one(client, call, method):
    answer = await client.request(method, path(call))
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert (await answer.json())["code"] == "method-not-allowed"


async def test_the_mp4_is_asked_for_once_the_video_plays(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "stream_ready")
    answer = await client.post(path("enable-mp4"), json={"videoUid": "u1", "userId": "an old field"})
    assert answer.status == 200
    assert (await answer.json())["success"] is True
    [signal] = await place.signals("one")
    assert (signal["requested_status"], signal["source"], signal["observed"]) == ("waitformp4", "api", False)
    assert place.stream.asked == []


@pytest.mark.parametrize("stage", ["waitformp4", "mp4_processing", "mp4downloading", "r2_uploading", "complete"])
async def test_an_mp4_that_was_asked_for_is_already_there(client, place, stage):
    await place.clip("one", uid="u1")
    await place.move("one", stage)
    answer = await client.post(path("enable-mp4"), json={"videoUid": "u1"})
    assert (answer.status, "already" in (await answer.json())["message"]) == (200, True)
    assert await place.signals("one") == []


async def test_below_ready_the_provider_is_asked_whether_it_plays(client, place):
    await place.clip("one", uid="u1")
    for seen in (None, Video("u1", VideoState.IN_PROGRESS)):
        place.stream.videos = {"u1": seen} if seen else {}
        answer = await client.post(path("enable-mp4"), json={"videoUid": "u1"})
        assert (answer.status, (await answer.json())["code"]) == (400, "not-ready")
    assert await place.signals("one") == []
    place.stream.videos = {"u1": Video("u1", VideoState.READY, ready_to_stream=True)}
    assert (await client.post(path("enable-mp4"), json={"videoUid": "u1"})).status == 200
    assert len(await place.signals("one")) == 1


async def test_the_upload_is_asked_for_refused_while_under_way_and_already_done(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "mp4downloading")
    assert (await client.post(path("upload-to-r2"), json={"videoUid": "u1"})).status == 200
    assert [signal["requested_status"] for signal in await place.signals("one")] == ["r2_uploading"]
    await place.move("one", "r2_uploading")
    answer = await client.post(path("upload-to-r2"), json={"videoUid": "u1"})
    assert (answer.status, (await answer.json())["code"]) == (409, "upload-under-way")
    await place.move("one", "complete")
    answer = await client.post(path("upload-to-r2"), json={"videoUid": "u1"})
    assert (answer.status, "already complete" in (await answer.json())["message"]) == (200, True)
    assert await place.signals("one") == []


@pytest.mark.parametrize("call", ["enable-mp4", "upload-to-r2"])
async def test_a_failed_clip_has_to_be_tried_again_first(client, place, call):
    await place.clip("one", uid="u1")
    await place.move("one", "error", error_message="corrupt")
    answer = await client.post(path(call), json={"videoUid": "u1"})
    assert (answer.status, (await answer.json())["code"]) == (400, "clip-failed")


async def test_the_state_of_the_mp4_is_the_providers_and_a_finished_one_hastens_the_clip(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "waitformp4")
    place.stream.downloads["u1"] = Download(DownloadState.IN_PROGRESS, 12.5, "https://d.example/canary.mp4")
    answer = await client.post(path("poll-mp4-status"), json={"videoUid": "u1"})
    said = await answer.json()
    assert (answer.status, said["mp4_status"], said["mp4_percent_complete"], said["ready"]) == (
        200, "inprogress", 12.5, False,
    )  # fmt: skip
    assert await place.signals("one") == []
    place.stream.downloads["u1"] = Download(DownloadState.READY, 100.0, "https://d.example/canary.mp4")
    said = await (await client.post(path("poll-mp4-status"), json={"videoUid": "u1"})).json()
    assert (said["mp4_status"], said["ready"]) == ("ready", True)
    assert [signal["requested_status"] for signal in await place.signals("one")] == ["mp4downloading"]


async def test_a_provider_out_of_reach_is_told(client, place):
    await place.clip("one", uid="u1")
    place.stream.fails = TransientError("call_budget", "no calls left", 12)
    for call in ("poll-mp4-status", "enable-mp4"):
        answer = await client.post(path(call), json={"videoUid": "u1"})
        assert (answer.status, answer.headers["Retry-After"]) == (503, "12")


async def test_a_deletion_ends_the_clip_on_a_persons_word(client, place):
    await place.clip("one", uid="u1")
    for _ in range(2):
        assert (await client.post(path("delete-video"), json={"videoUid": "u1"})).status == 200
    assert [(s["requested_status"], s["insists"]) for s in await place.signals("one")] == [("error", True)] * 2
    clip = await (await client.get("/api/clips/one")).json()
    assert (clip["status"], clip["processing_details"]["delete_requested"]) == ("uploading", True)
