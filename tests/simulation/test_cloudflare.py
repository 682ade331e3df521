"""The simulated provider moves by its clock, refuses whoever calls too often, and does nothing twice unnoticed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.drivers.cloudflare_models import DownloadState, VideoState
from orchestrator.drivers.errors import DriverError, TransientError
from simulation.cloudflare import API_CALLS
from simulation.faults import Answer, Broken, Reply
from simulation.surroundings import QUICK, Secrets, Surroundings, in_surroundings

SECRETS = Secrets("a-token", "a-secret", "https://videos.example.com/x.mp4")


def run(cell: Callable[[Surroundings], Awaitable[None]]) -> None:
    in_surroundings(cell, SECRETS)


def test_a_video_moves_by_the_clock():
    async def cell(around: Surroundings) -> None:
        stream = around.driver()
        video = await stream.copy_from_url("https://a.example/x.mp4", "mark", {"name": "x"})
        seen = [video.state]
        for _ in range(40):
            found = await stream.get(video.uid)
            assert found is not None
            seen.append(found.state)
            await around.wait(0.4)
        await stream.close()
        ways = [VideoState.DOWNLOADING, VideoState.QUEUED, VideoState.IN_PROGRESS, VideoState.READY]
        assert list(dict.fromkeys(seen)) == ways
        assert found.duration_seconds == QUICK.duration_seconds

    run(cell)


def test_one_call_too_many_is_answered_by_five_minutes_of_refusals():
    async def cell(around: Surroundings) -> None:
        around.stream.options = replace(around.stream.options)
        names = [around.stream._limiter.take().retry_after_seconds for _ in range(1_201)]
        assert names[:-1] == [None] * 1_200
        assert names[-1] == 300
        await around.wait(299)
        assert around.stream._limiter.take().retry_after_seconds is not None
        await around.wait(2)
        assert around.stream._limiter.take().retry_after_seconds is None

    run(cell)


def test_an_mp4_that_is_asked_for_twice_is_noticed():
    async def cell(around: Surroundings) -> None:
        stream = around.driver()
        video = around.stream.make("direct_upload", None, {})
        with pytest.raises(TransientError, match="not ready"):
            await stream.enable_download(video.uid)
        around.stream.receive(video.uid)
        await around.wait(60)
        around.stream_faults.once("enable_download", Broken(applied=True))
        for _ in range(2):
            try:
                await stream.enable_download(video.uid)
            except DriverError:
                assert (await stream.get_downloads(video.uid)).state is DownloadState.IN_PROGRESS
        await stream.close()
        assert (video.mp4_makes, len(video.mp4_repeated_at)) == (1, 1)

    run(cell)


def test_notifications_are_due_once_for_each_end():
    async def cell(around: Surroundings) -> None:
        around.fate = replace(QUICK, breaks_after_seconds=100.0)
        video = around.stream.make("direct_upload", None, {})
        around.stream.receive(video.uid)
        assert around.stream.due_notifications() == []
        assert around.stream.next_notification_at() == around.now() + timedelta(seconds=11)
        await around.wait(12)
        (ready,) = around.stream.due_notifications()
        assert b'"state": "ready"' in ready.body
        assert around.stream.due_notifications() == []
        await around.wait(120)
        (broken,) = around.stream.due_notifications()
        assert b'"state": "error"' in broken.body

    run(cell)


def test_a_private_file_is_shown_to_a_token_alone():
    async def cell(around: Surroundings) -> None:
        around.fate = replace(QUICK, is_private=True)
        stream = around.driver()
        video = around.stream.make("direct_upload", None, {})
        token = await stream.create_token(video.uid, expires_in=timedelta(minutes=5))
        await stream.close()
        assert around.stream.shown_under(token) == (video, True)
        assert around.stream.shown_under(video.uid) == (video, False)
        await around.wait(301)
        assert around.stream.shown_under(token) == (video, False)

    run(cell)


def test_every_call_may_be_befallen():
    async def cell(around: Surroundings) -> None:
        stream = around.driver()
        around.stream_faults.always("get", Answer(Reply(500)))
        with pytest.raises(TransientError):
            await stream.get("a" * 32)
        await stream.close()
        assert [call.name for call in around.stream.calls] == ["get"] * 3
        assert set(API_CALLS) >= {"copy", "list", "get", "get_downloads", "enable_download", "create_token"}

    run(cell)
