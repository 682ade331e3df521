"""What moves clips while others ask, in a process of its own: the product's monitor, or the bare drain it is held to.

    python -m benchmarks.leading product ADDRESS
    python -m benchmarks.leading bare ADDRESS

It prints one line once it leads, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.drain import BARE_DRAIN
from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.monitor.loop import Monitor, MonitorParts
from orchestrator.observability import configure_logging
from orchestrator.pipelines.stream.effects import EnableMp4
from orchestrator.pipelines.stream.looks import STAGES, Outlook
from orchestrator.pipelines.stream.plan import DELIVERY, DOWNLOAD, StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Effect, LookKind, Reports, Step
from orchestrator.storage.clips import Clip
from orchestrator.storage.pool import connect, create_pool
from statusutils import STREAM

WAKE_BARE, BARE_CHANGED = "bare_wake", "bare_changed"
START_SECONDS = 20.0
# As the monitor's own: what no hint came for is found within a second.
SWEEP_SECONDS = 1.0

# As often as may be, and what the history of such a provider tells: nothing takes any time.
_POLICY = StreamPolicy(timedelta(milliseconds=1), timedelta(0))
_AT_ONCE = Outlook({(stage, None): (0.0,) for stage in STAGES.values()})

_NEXT_STATE = {
    "uploading": VideoState.QUEUED,
    "queued": VideoState.IN_PROGRESS,
    "processing": VideoState.READY,
    "stream_ready": VideoState.READY,
}


class ReadyHands:
    """A provider that has always come one status further, and effects that are done at once."""

    def capacity(self, effect: Effect) -> int:
        """As many as are asked for."""
        return 1000

    def queue_of(self, effect: Effect) -> str | None:
        """Nothing is left to workers."""
        return None

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        """Each clip one status further than it stands."""
        if kind in (DOWNLOAD, DELIVERY):
            return {clip.id: _download(clip) for clip in clips}
        return {clip.id: _video(clip) for clip in clips}

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        """The MP4 is asked for; the transfer tells of its first part and of its end."""
        if isinstance(effect, EnableMp4):
            return Done(step=Step("waitformp4", "Cloudflare has taken the request for the MP4"))
        await reports.step(Step("r2_uploading", "The first part is in the bucket"))
        facts = {"r2_url": f"https://bucket.example/{effect.clip_id}.mp4", "file_size": 7}
        return Done(step=Step("complete", "The file is in the bucket, whole and verified", facts))

    async def tidy(self) -> Mapping[str, int]:
        """Nothing is left behind."""
        return {}


def _video(clip: Clip) -> Video:
    state = _NEXT_STATE[clip.status]
    return Video(clip.cloudflare_uid or "", state, state.value, 100.0, hls_url="https://video.example/")


def _download(clip: Clip) -> Download:
    if clip.status == "waitformp4":
        return Download(DownloadState.IN_PROGRESS, 50.0)
    return Download(DownloadState.READY, 100.0, f"https://video.example/{clip.cloudflare_uid}.mp4")


@asynccontextmanager
async def leading(what: str, database: str) -> AsyncIterator[int]:
    """A process that leads for the length of the block; its id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.leading", what, database,
        cwd=Path(__file__).parents[1], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            if not await process.stdout.readline():
                raise RuntimeError(f"the {what} leader ended before it led")
        yield process.pid
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(START_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _lead(database: str, stop: asyncio.Event) -> None:
    pool = await create_pool(database, "orchestrator_monitor", "benchmark monitor")
    parts = MonitorParts(
        pool=pool,
        connect=lambda: connect(database, "orchestrator_monitor", "benchmark listener"),
        pipelines={STREAM.pipeline: stream_pipeline(_POLICY, lambda: _AT_ONCE)},
        hands={STREAM.pipeline: ReadyHands()},
    )
    monitor = asyncio.create_task(Monitor(parts).run(stop))
    async with asyncio.timeout(START_SECONDS):
        listens = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'benchmark listener'"
        while not await pool.fetchval(f"SELECT round_at IS NOT NULL AND ({listens}) > 0 FROM monitor_lease"):
            await asyncio.sleep(0.02)
    print("leading", flush=True)
    await monitor
    await pool.close()


async def _drain_bare(database: str, stop: asyncio.Event) -> None:
    listener, worker = await asyncpg.connect(database), await asyncpg.connect(database)
    woken = asyncio.Event()
    await listener.add_listener(WAKE_BARE, lambda *_: woken.set())
    told = f"SELECT pg_notify('{BARE_CHANGED}', string_agg(id, ',')) FROM moved HAVING count(*) > 0"
    statement = BARE_DRAIN.replace("SELECT count(*) FROM moved", f"SELECT count(*) FROM ({told}) AS told")
    print("leading", flush=True)
    while not stop.is_set():
        woken.clear()
        # A payload holds 120 ids at most.
        while await worker.fetchval(statement, 120, 15):
            pass
        try:
            async with asyncio.timeout(SWEEP_SECONDS):
                await woken.wait()
        except TimeoutError:
            pass
    await listener.close()
    await worker.close()


async def _main(what: str, database: str) -> None:
    stop = asyncio.Event()
    # Who started this holds the other end of the line; it closes when that process ends, however it does.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    await (_lead if what == "product" else _drain_bare)(database, stop)


if __name__ == "__main__":
    configure_logging(as_json=False)
    asyncio.run(_main(*sys.argv[1:]))
