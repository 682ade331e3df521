"""What happens to a video between its last byte and `ready`: the states, in order, with real work inside.

    pendingupload ─► queued ─► inprogress ─► ready      any of them ─► error
    downloading ───►

Each state is durable before its work begins, so a restart goes on where the record stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from orchestrator.local.stream import faults
from orchestrator.local.stream.encoding import Encoder
from orchestrator.local.stream.fetching import fetch
from orchestrator.local.stream.media import TOO_SHORT_SECONDS, Facts, ProcessingFailed
from orchestrator.local.stream.options import StandInOptions
from orchestrator.local.stream.pacing import Fraction, nothing, paced
from orchestrator.local.stream.store import VideoGone, VideoStore
from orchestrator.local.stream.switchboard import FaultSwitches
from orchestrator.local.stream.tasks import Tasks
from orchestrator.local.stream.videos import Video

# Encoding fills this part of the way to `ready`; the rest is reached while the video already plays.
_PLAYABLE_SHARE = 0.9


class Processing:
    """Moves videos along, one task each; *notify* is called once a video is ready or failed."""

    def __init__(
        self,
        store: VideoStore,
        encoder: Encoder,
        switches: FaultSwitches,
        options: StandInOptions,
        notify: Callable[[str], None],
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._switches = switches
        self._options = options
        self._dwell = options.dwell
        self._notify = notify
        self._tasks = Tasks()

    def begin(self, uid: str) -> None:
        """Go on with the video from the state it is in. Safe to repeat."""
        self._tasks.start(uid, self._run(uid))

    def resume(self) -> None:
        """Take up everything an earlier run left unfinished."""
        for video in self._store.oldest_first():
            waits_for_bytes = video.state == "pendingupload" and not self._store.source(video.uid).exists()
            is_done = video.state == "error" or (video.state == "ready" and video.percent == 100)
            if waits_for_bytes and video.arrival == "form":
                # Its one request died with the earlier run, and nobody was told its uid.
                self._store.delete(video.uid)
            elif not waits_for_bytes and not is_done:
                self.begin(video.uid)

    async def forget(self, uid: str) -> None:
        """Stop the video's work; its ffmpeg is gone when this returns."""
        await self._tasks.cancel(uid)

    async def close(self) -> None:
        """Stop all work."""
        await self._tasks.close()

    async def _run(self, uid: str) -> None:
        try:
            await self._arrive(uid)
            await self._encode(uid)
            await self._become_ready(uid)
            await self._reach_all_levels(uid)
        except ProcessingFailed as failure:
            self._fail(uid, failure)
        except VideoGone:
            return

    async def _arrive(self, uid: str) -> None:
        """From `pendingupload` or `downloading` to `queued`."""
        video = self._store.get(uid)
        source = self._store.source(uid)
        if video.state == "pendingupload":
            await self._switches.hold(faults.StuckPendingUpload, *video.names)
            size = source.stat().st_size
        elif video.state == "downloading" and video.source_url is not None:
            work = fetch(video.source_url, source, self._options.file_limit_bytes)
            size = await paced(work, Fraction(), self._dwell.downloading_seconds, lambda _: None)
        else:
            return
        self._store.change(uid, state="queued", percent=0.0, size_bytes=size, uploaded_at=datetime.now(UTC))

    async def _encode(self, uid: str) -> None:
        """From `queued` to a finished rendition; the video waits in `queued` for an encoder."""
        video = self._store.get(uid)
        if video.state == "queued":
            await self._switches.hold(faults.StuckQueued, *video.names)
            await asyncio.sleep(self._dwell.queued_seconds)
        elif video.state != "inprogress":
            return
        async with self._encoder.slot(video):
            facts = await self._encoder.probe(video)
            await self._encode_now(self._enter_progress(video, facts), facts)
        await self._switches.hold(faults.StuckInProgress, *video.names)

    def _enter_progress(self, video: Video, facts: Facts) -> Video:
        unknown = self._switches.bite(faults.UnknownState, *video.names)
        return self._store.change(
            video.uid,
            state="inprogress",
            step="encoding",
            percent=0.0,
            shown_state=unknown.state if unknown else None,
            duration_seconds=-1.0 if facts.duration_seconds is None else facts.duration_seconds,
            width=facts.width,
            height=facts.height,
        )

    async def _encode_now(self, video: Video, facts: Facts) -> None:
        _check_duration(video, facts.duration_seconds)
        if failure := self._switches.bite(faults.EncodingFails, *video.names):
            raise ProcessingFailed(failure.code, failure.text)
        top = self._options.ready_at_percent * _PLAYABLE_SHARE
        fraction = Fraction(facts.duration_seconds)
        work = self._encoder.make_rendition(video, fraction)
        duration = await paced(work, fraction, self._dwell.inprogress_seconds, self._shower(video.uid, 0.0, top))
        if facts.duration_seconds is None and duration is not None:
            _check_duration(self._store.change(video.uid, duration_seconds=duration), duration)

    async def _become_ready(self, uid: str) -> None:
        """readyToStream first, `ready` a little later."""
        video = self._store.get(uid)
        if video.state != "inprogress":
            return
        ready_at = self._options.ready_at_percent
        self._store.change(
            uid,
            step="manifest",
            percent=ready_at * _PLAYABLE_SHARE,
            ready_to_stream_at=video.ready_to_stream_at or datetime.now(UTC),
        )
        await asyncio.sleep(self._dwell.playable_seconds)
        self._store.change(uid, state="ready", step=None, shown_state=None, percent=ready_at, webhook_due=True)
        self._notify(uid)

    async def _reach_all_levels(self, uid: str) -> None:
        video = self._store.get(uid)
        if video.state == "ready" and video.percent is not None and video.percent < 100:
            show = self._shower(uid, video.percent, 100.0)
            await paced(nothing(), Fraction(), self._dwell.remaining_seconds, show)
            self._store.change(uid, percent=100.0)
        if late := self._switches.bite(faults.ErrorAfterReady, *video.names):
            await asyncio.sleep(late.seconds)
            self._store.change(uid, **_failed(late.code, late.text), **self._spelling(video))

    def _shower(self, uid: str, low: float, high: float) -> Callable[[float], None]:
        def show(share: float) -> None:
            self._store.show(uid, percent=low + (high - low) * share)

        return show

    def _fail(self, uid: str, failure: ProcessingFailed) -> None:
        video = self._store.get(uid)
        self._store.change(uid, **_failed(failure.code, failure.text), **self._spelling(video), webhook_due=True)
        self._notify(uid)

    def _spelling(self, video: Video) -> dict[str, str]:
        fault = self._switches.bite(faults.ErrorSpelling, *video.names)
        return {"error_spelling": fault.spelling} if fault else {}


def _failed(code: str, text: str) -> dict[str, object]:
    return {
        "state": "error",
        "step": "encoding",
        "error_code": code,
        "error_text": text,
        "shown_state": None,
        "ready_to_stream_at": None,
    }


def _check_duration(video: Video, duration_seconds: float | None) -> None:
    if duration_seconds is None:
        return
    if duration_seconds < TOO_SHORT_SECONDS:
        raise ProcessingFailed("ERR_DURATION_TOO_SHORT", "The video is shorter than 0.1 seconds.")
    if video.max_duration_seconds is not None and duration_seconds > video.max_duration_seconds:
        raise ProcessingFailed("ERR_DURATION_EXCEED_CONSTRAINT", "The video is longer than maxDurationSeconds.")
