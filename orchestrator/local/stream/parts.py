"""The parts of a running stand-in, wired once and handed to the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.local.stream.admission import Admission
from orchestrator.local.stream.downloads import Downloads
from orchestrator.local.stream.encoding import Encoder
from orchestrator.local.stream.limiter import RateLimiter
from orchestrator.local.stream.media import Media
from orchestrator.local.stream.options import StandInOptions
from orchestrator.local.stream.processing import Processing
from orchestrator.local.stream.records import CallLog, Traffic
from orchestrator.local.stream.store import VideoStore
from orchestrator.local.stream.switchboard import FaultSwitches
from orchestrator.local.stream.videos import Video, video_object
from orchestrator.local.stream.webhooks import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a route may need; *base_url* is the upload and delivery host, *api_url* the account's API."""

    options: StandInOptions
    base_url: str
    api_url: str
    store: VideoStore
    media: Media
    switches: FaultSwitches
    calls: CallLog
    traffic: Traffic
    limiter: RateLimiter
    admission: Admission
    encoder: Encoder
    processing: Processing
    downloads: Downloads
    webhooks: Webhooks

    def show(self, video: Video) -> dict[str, Any]:
        """The video as the API shows it."""
        return video_object(video, self.base_url)

    async def delete(self, uid: str) -> None:
        """Stop all work for the video and remove it. Raises VideoGone."""
        self.store.get(uid)
        await self.processing.forget(uid)
        await self.downloads.forget(uid)
        self.store.delete(uid)
