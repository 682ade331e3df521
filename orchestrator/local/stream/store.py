"""All videos of the account: in memory to be asked, one JSON file each to survive a restart.

data_dir/videos/<uid>/video.json    the record, replaced atomically
data_dir/videos/<uid>/…             its bytes: source, rendition, downloads, manifest, pictures
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from orchestrator.local.stream.videos import IN_FLIGHT, Arrival, State, Video

log = structlog.get_logger(__name__)

_RECORD = TypeAdapter(Video)


class VideoGone(LookupError):
    """No such video; it may have been deleted a moment ago."""


class VideoStore:
    """The videos, oldest first. Every change is on disk when the call returns, but for percentages."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._videos: dict[str, Video] = {}
        self._last_created_at = datetime.min.replace(tzinfo=UTC)

    def load(self) -> None:
        """Read what an earlier run left; a record that cannot be read is named in the log and left alone."""
        self._directory.mkdir(parents=True, exist_ok=True)
        found: list[Video] = []
        for path in self._directory.glob("*/video.json"):
            try:
                found.append(_RECORD.validate_json(path.read_bytes()))
            except ValidationError as exc:
                log.warning("A stored video cannot be read", path=str(path), problems=exc.error_count())
        for video in sorted(found, key=lambda video: video.created_at):
            self._videos[video.uid] = video
            self._last_created_at = video.created_at

    def create(self, arrival: Arrival, state: State, **fields: Any) -> Video:
        """A new video with a uid of its own; `created` differs from every other's."""
        now = max(datetime.now(UTC), self._last_created_at + timedelta(microseconds=1))
        self._last_created_at = now
        uid = secrets.token_hex(16)
        video = Video(uid=uid, arrival=arrival, state=state, created_at=now, modified_at=now, **fields)
        self.folder(uid).mkdir(parents=True)
        self._videos[uid] = video
        self._write(video)
        return video

    def get(self, uid: str) -> Video:
        """The video as it is now. Raises VideoGone."""
        try:
            return self._videos[uid]
        except KeyError:
            raise VideoGone(uid) from None

    def __contains__(self, uid: str) -> bool:
        return uid in self._videos

    def __len__(self) -> int:
        return len(self._videos)

    def oldest_first(self) -> Iterator[Video]:
        return iter(list(self._videos.values()))

    def change(self, uid: str, **fields: Any) -> Video:
        """Change some fields, and `modified`, durably. Raises VideoGone."""
        video = self.show(uid, modified_at=datetime.now(UTC), **fields)
        self._write(video)
        return video

    def note(self, uid: str, **fields: Any) -> None:
        """Change fields durably that the API does not show: `modified` stays. Raises VideoGone."""
        self._write(self.show(uid, **fields))

    def show(self, uid: str, **fields: Any) -> Video:
        """Change fields that need not survive a restart (percentages). Raises VideoGone."""
        video = dataclasses.replace(self.get(uid), **fields)
        self._videos[uid] = video
        return video

    def delete(self, uid: str) -> None:
        """Forget the video and remove its bytes. Raises VideoGone."""
        self.get(uid)
        del self._videos[uid]
        shutil.rmtree(self.folder(uid), ignore_errors=True)

    def in_flight(self) -> int:
        """How many videos are being fetched, waiting for an encoder or encoded."""
        return sum(video.state in IN_FLIGHT for video in self._videos.values())

    def folder(self, uid: str) -> Path:
        """Where the video's bytes are."""
        return self._directory / uid

    def source(self, uid: str) -> Path:
        """The bytes as they were uploaded; gone once the rendition is made."""
        return self.folder(uid) / "source"

    def rendition(self, uid: str) -> Path:
        """The playable MP4; there from readyToStream on."""
        return self.folder(uid) / "rendition.mp4"

    def _write(self, video: Video) -> None:
        path = self.folder(video.uid) / "video.json"
        draft = path.with_suffix(".new")
        draft.write_bytes(_RECORD.dump_json(video))
        os.replace(draft, path)
