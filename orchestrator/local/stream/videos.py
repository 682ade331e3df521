"""One video as the stand-in keeps it, and the object the API shows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["pendingupload", "downloading", "queued", "inprogress", "ready", "error"]
Arrival = Literal["form", "direct_form", "tus", "direct_tus", "copy", "clip"]

# What counts against the account's limit of videos being worked on.
IN_FLIGHT: frozenset[State] = frozenset({"downloading", "queued", "inprogress"})
DOWNLOAD_TYPES = {"default": "default.mp4", "audio": "audio.m4a"}


@dataclass(frozen=True, slots=True)
class Download:
    """One file offered for download; there is no queued state."""

    status: Literal["inprogress", "ready", "error"] = "inprogress"
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """What a clip is cut from: seconds within another video."""

    uid: str
    start_seconds: int
    end_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """Everything known of one video; changes make a new one (see `VideoStore.change`)."""

    uid: str
    arrival: Arrival
    state: State
    created_at: datetime
    modified_at: datetime
    uploaded_at: datetime | None = None
    ready_to_stream_at: datetime | None = None
    upload_expires_at: datetime | None = None
    scheduled_deletion_at: datetime | None = None
    step: str | None = None
    # None where no percentage is shown at all.
    percent: float | None = None
    error_code: str = ""
    error_text: str = ""
    error_spelling: Literal["error", "err", "both"] = "error"
    # Shown instead of the true state while a fault says so.
    shown_state: str | None = None
    duration_seconds: float = -1.0
    width: int = -1
    height: int = -1
    size_bytes: int = 0
    upload_length_bytes: int | None = None
    source_url: str | None = None
    cut: Cut | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    creator: str | None = None
    max_duration_seconds: int | None = None
    allowed_origins: list[str] = field(default_factory=list)
    require_signed_urls: bool = False
    thumbnail_share: float = 0.0
    public_details: dict[str, Any] | None = None
    downloads: dict[str, Download] = field(default_factory=dict)
    # True from ready or error until the notification was delivered or given up.
    webhook_due: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What a fault may call this video."""
        name = self.meta.get("name")
        return (self.uid, name) if isinstance(name, str) else (self.uid,)

    @property
    def is_playable(self) -> bool:
        return self.ready_to_stream_at is not None and self.state != "error"


def rfc3339(at: datetime | None) -> str | None:
    """*at* the way the API writes it: UTC, microseconds, `Z`."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def video_object(video: Video, base_url: str) -> dict[str, Any]:
    """The API's video object, with every address on *base_url*.

    {"uid": "…", "status": {"state": "inprogress", "pctComplete": "39.000000", …}, "readyToStream": false,
     "duration": -1, "input": {"width": -1, "height": -1}, "playback": {"hls": "…", "dash": "…"}, …}
    """
    address = f"{base_url}/{video.uid}"
    return {
        "uid": video.uid,
        "creator": video.creator,
        "thumbnail": f"{address}/thumbnails/thumbnail.jpg",
        "thumbnailTimestampPct": video.thumbnail_share,
        "readyToStream": video.is_playable,
        "readyToStreamAt": rfc3339(video.ready_to_stream_at),
        "status": _status(video),
        "meta": video.meta,
        "created": rfc3339(video.created_at),
        "modified": rfc3339(video.modified_at),
        "scheduledDeletion": rfc3339(video.scheduled_deletion_at),
        "size": video.size_bytes,
        "preview": f"{address}/watch",
        "allowedOrigins": video.allowed_origins,
        "requireSignedURLs": video.require_signed_urls,
        "uploaded": rfc3339(video.uploaded_at),
        "uploadExpiry": rfc3339(video.upload_expires_at),
        "maxSizeBytes": None,
        "maxDurationSeconds": video.max_duration_seconds,
        "duration": _number(video.duration_seconds),
        "input": {"width": video.width, "height": video.height},
        "playback": {"hls": f"{address}/manifest/video.m3u8", "dash": f"{address}/manifest/video.mpd"},
        "watermark": None,
        "clippedFrom": video.cut.uid if video.cut else None,
        "publicDetails": video.public_details,
    }


def downloads_object(video: Video, base_url: str) -> dict[str, Any]:
    """`{"default": {"status": "inprogress", "url": "…", "percentComplete": 12.0}}`, `{}` with none enabled."""
    return {
        kind: {
            "status": download.status,
            "url": f"{base_url}/{video.uid}/downloads/{DOWNLOAD_TYPES[kind]}",
            "percentComplete": download.percent,
        }
        for kind, download in video.downloads.items()
    }


def _status(video: Video) -> dict[str, Any]:
    status: dict[str, Any] = {"state": video.shown_state or video.state}
    if video.step is not None:
        status["step"] = video.step
    if video.percent is not None:
        status["pctComplete"] = f"{video.percent:.6f}"
    if video.error_spelling != "err":
        status |= {"errorReasonCode": video.error_code, "errorReasonText": video.error_text}
    if video.error_spelling != "error":
        status |= {"errReasonCode": video.error_code, "errReasonText": video.error_text}
    return status


def _number(seconds: float) -> float | int:
    return int(seconds) if seconds == int(seconds) else seconds
