"""From uploaded bytes to the rendition that plays: what the source is, and the MP4 made of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from orchestrator.local.stream.media import (
    Facts,
    Media,
    ProcessingFailed,
    clip_copy_arguments,
    encode_arguments,
    remux_arguments,
)
from orchestrator.local.stream.mp4 import looks_like_mp4, read_mp4
from orchestrator.local.stream.options import Encode
from orchestrator.local.stream.pacing import Fraction
from orchestrator.local.stream.store import VideoStore
from orchestrator.local.stream.videos import Video


class Encoder:
    """Makes renditions, a bounded number at a time; those that need no ffmpeg wait for nobody."""

    def __init__(self, store: VideoStore, media: Media, encode: Encode, at_once: int) -> None:
        self._store = store
        self._media = media
        self._encode = encode
        self._slots = asyncio.Semaphore(at_once)

    def slot(self, video: Video) -> contextlib.AbstractAsyncContextManager[object]:
        """Wait here for an encoder, if this video needs one."""
        return contextlib.nullcontext() if self._is_plain_copy(video) else self._slots

    async def probe(self, video: Video) -> Facts:
        """What the source is. Raises ProcessingFailed."""
        source = self._source(video)
        if not source.exists():
            raise ProcessingFailed("ERR_UNKNOWN", "The source is gone.")
        facts = self._media.probe_mp4(source) if self._is_plain_copy(video) else await self._media.probe(source)
        if video.cut is None:
            return facts
        return Facts(float(video.cut.end_seconds - video.cut.start_seconds), facts.width, facts.height)

    async def make_rendition(self, video: Video, fraction: Fraction) -> float | None:
        """Make the rendition and drop the source; its duration if that can be read. Raises ProcessingFailed."""
        rendition = self._store.rendition(video.uid)
        source = self._store.source(video.uid)
        if not rendition.exists():
            if self._is_plain_copy(video):
                os.replace(source, rendition)
            else:
                await self._work(video, rendition, fraction)
        source.unlink(missing_ok=True)
        facts = read_mp4(rendition)
        return facts.duration_seconds if facts else None

    async def _work(self, video: Video, rendition: Path, fraction: Fraction) -> None:
        """ffmpeg writes beside the rendition; only a whole one gets its name."""
        draft = rendition.with_name("rendition.part")
        source = self._source(video)
        if self._encode == "h264":
            arguments = encode_arguments(source, draft, video.cut)
        elif video.cut is not None:
            arguments = clip_copy_arguments(source, draft, video.cut)
        else:
            arguments = remux_arguments(source, draft)
        await self._media.make(draft, arguments, fraction.reached)
        os.replace(draft, rendition)

    def _source(self, video: Video) -> Path:
        """What to read: of a clip the other video's rendition, after a restart perhaps our own."""
        own = self._store.rendition(video.uid)
        if own.exists():
            return own
        return self._store.rendition(video.cut.uid) if video.cut is not None else self._store.source(video.uid)

    def _is_plain_copy(self, video: Video) -> bool:
        if self._encode != "copy" or video.cut is not None:
            return False
        source = self._source(video)
        return source.exists() and looks_like_mp4(source)
