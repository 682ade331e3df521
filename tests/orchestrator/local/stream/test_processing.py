from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.local.stream import Dwell


async def _seen(account, uid: str) -> list[dict]:
    """Every different view of the video until it is done."""
    views: list[dict] = []
    while True:
        video = await account.video(uid)
        if not views or views[-1] != video:
            views.append(video)
        state, percent = video["status"]["state"], video["status"]["pctComplete"]
        if state == "error" or (state == "ready" and percent == "100.000000"):
            return views
        await asyncio.sleep(0.005)


SLOW = Dwell(0.1, 0.1, 0.2, 0.1, 0.1, 0.1)


async def test_a_video_walks_through_its_states_in_order(open_account, media: Path) -> None:
    account = await open_account(dwell=SLOW, ready_at_percent=80.0)
    announced = await account.announce()
    assert (await account.video(announced["uid"]))["status"]["state"] == "pendingupload"
    await account.send(announced["uploadURL"], media / "clip.mp4")
    states = [view["status"]["state"] for view in await _seen(account, announced["uid"])]
    assert [state for n, state in enumerate(states) if state not in states[:n]] == [
        "queued",
        "inprogress",
        "ready",
    ] or [state for n, state in enumerate(states) if state not in states[:n]] == [
        "pendingupload",
        "queued",
        "inprogress",
        "ready",
    ]
    assert states == sorted(states, key=["pendingupload", "queued", "inprogress", "ready"].index)


async def test_percentages_grow_as_text_with_six_decimals(open_account, media: Path) -> None:
    account = await open_account(dwell=SLOW, ready_at_percent=80.0)
    uid = await account.upload(media / "clip.mp4")
    views = await _seen(account, uid)
    texts = [view["status"]["pctComplete"] for view in views]
    assert all(len(text.partition(".")[2]) == 6 for text in texts)
    percents = [float(text) for text in texts]
    assert percents == sorted(percents)
    assert len({p for p, v in zip(percents, views, strict=True) if v["status"]["state"] == "inprogress"}) > 3


async def test_it_plays_before_it_is_ready_and_is_ready_before_100(open_account, media: Path) -> None:
    account = await open_account(dwell=SLOW, ready_at_percent=80.0)
    views = await _seen(account, await account.upload(media / "clip.mp4"))
    kinds = [(v["status"]["state"], v["readyToStream"], v["status"]["pctComplete"] == "100.000000") for v in views]
    assert kinds.index(("inprogress", True, False)) < kinds.index(("ready", True, False))
    assert kinds[-1] == ("ready", True, True)


async def test_duration_and_size_are_unknown_until_it_is_in_progress(open_account, media: Path) -> None:
    account = await open_account(dwell=SLOW)
    for view in await _seen(account, await account.upload(media / "clip.mp4")):
        if view["status"]["state"] in ("pendingupload", "queued"):
            assert (view["duration"], view["input"]) == (-1, {"width": -1, "height": -1})
        else:
            assert (round(view["duration"]), view["input"]) == (2, {"width": 320, "height": 180})


@pytest.mark.parametrize("encode", ["h264", "copy"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("text.mp4", "ERR_NON_VIDEO"),
        ("sound.m4a", "ERR_NON_VIDEO"),
        ("broken.mp4", "ERR_MALFORMED_VIDEO"),
        ("blink.mp4", "ERR_DURATION_TOO_SHORT"),
    ],
)
async def test_what_cannot_be_a_video_ends_in_error(
    open_account, media: Path, encode: str, name: str, code: str
) -> None:
    account = await open_account(encode=encode)
    uid = await account.upload(media / name)
    video = await account.until_state(uid, "error")
    assert video["status"]["errorReasonCode"] == code
    assert video["status"]["errorReasonText"]
    assert video["readyToStream"] is False


async def test_too_long_is_found_out_in_processing_not_at_upload(account, media: Path) -> None:
    uid = await account.upload(media / "long.mp4", maxDurationSeconds=3)
    video = await account.until_state(uid, "error")
    assert video["status"]["errorReasonCode"] == "ERR_DURATION_EXCEED_CONSTRAINT"
    assert video["status"]["step"] == "encoding"


async def test_encoding_makes_h264_and_aac_of_anything(open_account, media: Path, ffmpeg: str, tmp_path: Path) -> None:
    account = await open_account(encode="h264")
    _, address = await account.mp4(media / "clip.mkv")
    target = tmp_path / "got.mp4"
    async with account.session.get(address) as answer:
        target.write_bytes(await answer.read())
    probe = await asyncio.create_subprocess_exec(ffmpeg, "-i", str(target), stderr=asyncio.subprocess.PIPE)
    said = (await probe.communicate())[1].decode()
    assert "Video: h264" in said
    assert "yuv420p" in said
    body = target.read_bytes()
    assert body.index(b"moov") < body.index(b"mdat")


async def test_copy_mode_serves_an_mp4_as_it_came_and_remuxes_the_rest(account, media: Path) -> None:
    _, address = await account.mp4(media / "clip.mp4")
    async with account.session.get(address) as answer:
        assert await answer.read() == (media / "clip.mp4").read_bytes()
    _, address = await account.mp4(media / "clip.mkv")
    async with account.session.get(address) as answer:
        assert (await answer.read())[4:8] == b"ftyp"


async def test_one_encoder_takes_one_video_at_a_time(open_account, media: Path) -> None:
    account = await open_account(encode="h264", encoders=1, dwell=Dwell(0, 0, 60, 0, 0, 0))
    first = await account.upload(media / "clip.mp4")
    await account.until_state(first, "inprogress")
    second = await account.upload(media / "clip.mp4")
    await account.until_state(second, "queued")
    assert (await account.video(first))["status"]["state"] == "inprogress"
    await account.call("DELETE", f"/stream/{first}")
    await account.until_state(second, "inprogress")


async def test_a_restart_goes_on_where_the_record_stands(open_account, media: Path) -> None:
    never = Dwell(60, 60, 60, 60, 60, 60)
    account = await open_account(dwell=never)
    uid = await account.upload(media / "clip.mp4")
    await account.until_state(uid, "queued")
    waiting = await account.announce()
    await account.stream.stop()
    again = await open_account()
    assert (await again.until_state(uid, "ready"))["size"] == (media / "clip.mp4").stat().st_size
    # The address from before the restart still takes its upload.
    path = waiting["uploadURL"].removeprefix(account.address.partition("/client")[0])
    assert await again.send(again.stream.base_url + path, media / "clip.mp4") == 200
    await again.until_state(waiting["uid"], "ready")


async def test_an_unfinished_encoding_begins_anew_after_a_restart(open_account, media: Path) -> None:
    account = await open_account(encode="h264", dwell=Dwell(0, 0, 60, 0, 0, 0))
    uid = await account.upload(media / "clip.mp4")
    await account.until_state(uid, "inprogress")
    await account.stream.stop()
    again = await open_account(encode="h264")
    video = await again.until_state(uid, "ready")
    assert round(video["duration"]) == 2
