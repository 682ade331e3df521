"""A real monitor on a real database, with a provider that is always done at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.pipelines.stream.effects import AbandonTransfer, EnableMp4
from orchestrator.pipelines.stream.plan import DOWNLOAD, StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Effect, LookKind, Reports, Step
from orchestrator.storage.clips import Clip
from orchestrator.storage.pool import connect, create_pool

_POLICY = StreamPolicy(timedelta(milliseconds=50), timedelta(seconds=1))


class ReadyHands:
    """Whatever is looked at is ready; whatever is to be done has been done."""

    def queue_of(self, effect: Effect) -> str | None:
        return None

    def capacity(self, effect: Effect) -> int:
        return 50

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        if kind == DOWNLOAD:
            return {
                clip.id: Download(DownloadState.READY, 100.0, f"https://d/{clip.cloudflare_uid}.mp4") for clip in clips
            }
        state = VideoState.READY
        return {
            clip.id: Video(clip.cloudflare_uid or "", state, state.value, 100.0, hls_url="https://h/") for clip in clips
        }

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        if isinstance(effect, AbandonTransfer):
            return Done(details={"abandoned_in_attempt": effect.attempt})
        if isinstance(effect, EnableMp4):
            return Done(step=Step("waitformp4", "taken"))
        await reports.step(Step("r2_uploading", "first part"))
        return Done(step=Step("complete", "verified", facts={"r2_url": "https://b/k.mp4", "file_size": 7}))

    async def tidy(self) -> Mapping[str, int]:
        return {}


@asynccontextmanager
async def leading(database: str) -> AsyncIterator[asyncio.Task[None]]:
    """A monitor that leads for the length of the block."""
    pool = await create_pool(database, "orchestrator_monitor", "monitor")
    parts = MonitorParts(
        pool=pool,
        connect=lambda: connect(database, "orchestrator_monitor", "listener"),
        pipelines={"stream": stream_pipeline(_POLICY)},
        hands={"stream": ReadyHands()},
    )
    stop = asyncio.Event()
    task = asyncio.create_task(Monitor(parts).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await task
        await pool.close()
