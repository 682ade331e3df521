"""Whether the account takes one more video: not too many in flight, storage minutes left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.local.stream import faults
from orchestrator.local.stream.envelope import UNDOCUMENTED, ApiProblem
from orchestrator.local.stream.options import StandInOptions
from orchestrator.local.stream.store import VideoStore
from orchestrator.local.stream.switchboard import FaultSwitches
from orchestrator.local.stream.videos import Video

# What Stream reserves for a tus upload that names no longest duration.
TUS_RESERVATION_SECONDS = 14_400


class Admission:
    """The limits of the account, asked before anything is made."""

    def __init__(self, store: VideoStore, switches: FaultSwitches, options: StandInOptions) -> None:
        self._store = store
        self._switches = switches
        self._options = options

    def check(self, route: str, reserve_seconds: float = 0.0) -> None:
        """Raise ApiProblem (429 or 413) when one more video, *reserve_seconds* long, is too much."""
        in_flight = self._store.in_flight()
        if self._switches.bite(faults.QueueFull, route) or in_flight >= self._options.max_in_flight:
            raise ApiProblem(429, UNDOCUMENTED, "Too many videos are queued or being encoded; try again later.")
        minutes = self._used_minutes() + reserve_seconds / 60
        if self._switches.bite(faults.QuotaExceeded, route) or minutes > self._options.storage_minutes_limit:
            raise ApiProblem(413, UNDOCUMENTED, "Storage capacity exceeded: buy minutes or delete videos.")

    def usage(self, creator: str | None) -> dict[str, Any]:
        """The body of GET /stream/storage-usage."""
        videos = [video for video in self._store.oldest_first() if creator in (None, video.creator)]
        return {
            "creator": creator,
            "totalStorageMinutes": round(sum(_stored_seconds(video) for video in videos) / 60, 2),
            "totalStorageMinutesLimit": self._options.storage_minutes_limit,
            "videoCount": len(videos),
        }

    def _used_minutes(self) -> float:
        now = datetime.now(UTC)
        return sum(_stored_seconds(video) + _reserved_seconds(video, now) for video in self._store.oldest_first()) / 60


def _stored_seconds(video: Video) -> float:
    return video.duration_seconds if video.state == "ready" else 0.0


def _reserved_seconds(video: Video, now: datetime) -> float:
    """What an announced upload holds until it is over or its address expires."""
    if video.state != "pendingupload" or (video.upload_expires_at is not None and video.upload_expires_at < now):
        return 0.0
    if video.max_duration_seconds is not None:
        return video.max_duration_seconds
    return TUS_RESERVATION_SECONDS if video.arrival == "direct_tus" else 0.0
