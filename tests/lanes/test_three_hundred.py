"""Three hundred clips at once, at a provider that blocks whoever calls too often."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from house import House

    from lanes.conftest import Figures

CLIPS = 300
# The provider's limit on a scale of one to ten: 1,200 calls in 30 seconds instead of 300.
WINDOW_SECONDS = 30.0


@pytest.fixture
def stream_options() -> dict[str, Any]:
    return {
        "encode": "copy",
        "webhook_url": None,
        "max_in_flight": 400,
        "encoders": 2,
        "rate_limit_count": 1200,
        "rate_limit_window_seconds": WINDOW_SECONDS,
    }


async def test_they_all_complete_without_a_single_429(house: House, sample: Path, figures: Figures) -> None:
    house.extra = {"CLOUDFLARE_CALLS": "1200", "CLOUDFLARE_CALLS_WINDOW_SECONDS": str(WINDOW_SECONDS)}
    await house.start_web()
    house.start("monitor")
    gate = asyncio.Semaphore(8)

    async def send(number: int) -> str:
        async with gate:
            made = await house.create_upload(f"clip {number}")
            await house.upload_form(made["upload_url"], sample)
            return str(made["id"])

    ids = await asyncio.gather(*(send(number) for number in range(CLIPS)))
    for clip_id in ids:
        await house.until_complete(clip_id, seconds=240)
    calls = house.stream.calls
    rows = [entry.uids_asked for entry in calls.lists]
    figures.tell(clips=CLIPS, calls_a_clip=f"{calls.total / CLIPS:.1f}", in_the_largest_list=max(rows))
    assert calls.limited == 0
    assert max(rows) > 10, "clips were not seen many per call"
    assert calls.count("GET /stream/{uid}") <= CLIPS // 10
