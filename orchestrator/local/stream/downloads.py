"""MP4 and M4A files on request: made once asked for, offered once ready, removed when told.

The MP4 is the rendition itself, a faststart file that ffmpeg made; the sound alone is taken out of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.local.stream import faults
from orchestrator.local.stream.media import Media, ProcessingFailed, audio_arguments
from orchestrator.local.stream.options import Dwell
from orchestrator.local.stream.pacing import Fraction, paced
from orchestrator.local.stream.store import VideoGone, VideoStore
from orchestrator.local.stream.switchboard import FaultSwitches
from orchestrator.local.stream.tasks import Tasks
from orchestrator.local.stream.videos import DOWNLOAD_TYPES, Download, Video


class Downloads:
    """The files for download of every video."""

    def __init__(self, store: VideoStore, media: Media, switches: FaultSwitches, dwell: Dwell) -> None:
        self._store = store
        self._media = media
        self._switches = switches
        self._dwell = dwell
        self._tasks = Tasks()
        # Reported as ready, and not to be had before this moment of time.monotonic().
        self._withheld_until: dict[tuple[str, str], float] = {}

    def enable(self, uid: str, kind: str) -> Video:
        """Begin to make the file, unless it was asked for before. Raises VideoGone."""
        video = self._store.get(uid)
        if kind not in video.downloads:
            video = self._store.change(uid, downloads={**video.downloads, kind: Download()})
            self._tasks.start((uid, kind), self._make(uid, kind))
        return video

    async def remove(self, uid: str, kind: str) -> None:
        """Stop offering the file. Raises KeyError when it was never asked for."""
        video = self._store.get(uid)
        remaining = dict(video.downloads)
        del remaining[kind]
        await self._tasks.cancel((uid, kind))
        self._store.change(uid, downloads=remaining)
        if kind != "default":
            self._path(uid, kind).unlink(missing_ok=True)

    def resume(self) -> None:
        """Take up files that an earlier run left unfinished."""
        for video in self._store.oldest_first():
            for kind, download in video.downloads.items():
                if download.status == "inprogress":
                    self._tasks.start((video.uid, kind), self._make(video.uid, kind))

    def file(self, video: Video, kind: str) -> Path | None:
        """The file to serve, None while there is none."""
        download = video.downloads.get(kind)
        is_withheld = time.monotonic() < self._withheld_until.get((video.uid, kind), 0.0)
        if download is None or download.status != "ready" or is_withheld:
            return None
        return self._path(video.uid, kind)

    async def forget(self, uid: str) -> None:
        """Stop all work for the video."""
        for kind in DOWNLOAD_TYPES:
            await self._tasks.cancel((uid, kind))
            self._withheld_until.pop((uid, kind), None)

    async def close(self) -> None:
        """Stop all work."""
        await self._tasks.close()

    async def _make(self, uid: str, kind: str) -> None:
        try:
            video = self._store.get(uid)
            fraction = Fraction(video.duration_seconds)
            await paced(self._work(video, kind, fraction), fraction, self._dwell.mp4_seconds, self._shower(uid, kind))
            if late := self._switches.bite(faults.Mp4Late, *video.names):
                self._withheld_until[uid, kind] = time.monotonic() + late.seconds
            self._put(uid, kind, Download("ready", 100.0))
        except ProcessingFailed:
            self._put(uid, kind, Download("error", 0.0))
        except VideoGone:
            return

    async def _work(self, video: Video, kind: str, fraction: Fraction) -> None:
        if self._switches.bite(faults.DownloadFails, *video.names):
            raise ProcessingFailed("ERR_UNKNOWN", "The file could not be made.")
        if kind == "audio":
            target = self._path(video.uid, kind)
            draft = target.with_name("audio.part")
            await self._media.make(draft, audio_arguments(self._store.rendition(video.uid), draft), fraction.reached)
            os.replace(draft, target)
        elif not self._store.rendition(video.uid).exists():
            raise ProcessingFailed("ERR_UNKNOWN", "The rendition is gone.")
        fraction.done = 1.0

    def _shower(self, uid: str, kind: str) -> Callable[[float], None]:
        def show(share: float) -> None:
            downloads = self._store.get(uid).downloads
            self._store.show(uid, downloads={**downloads, kind: Download("inprogress", round(share * 99.0, 1))})

        return show

    def _put(self, uid: str, kind: str, download: Download) -> None:
        self._store.change(uid, downloads={**self._store.get(uid).downloads, kind: download})

    def _path(self, uid: str, kind: str) -> Path:
        return self._store.rendition(uid) if kind == "default" else self._store.folder(uid) / DOWNLOAD_TYPES[kind]
