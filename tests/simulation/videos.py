"""One video at the simulated provider: what becomes of it is drawn once, where it stands follows from the clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one video, and when; all of it seconds, shares 0-1, and bytes."""

    downloading_seconds: float = 3.0
    queued_seconds: float = 5.0
    encoding_seconds: float = 20.0
    #: The first rendition plays after this share of the encoding.
    playable_share: float = 0.6
    #: What is said of the encoding in `ready`; 100 follows after *full_after_seconds*.
    ready_percent: float = 100.0
    full_after_seconds: float = 0.0
    #: The encoding ends in this error.
    error: tuple[str, str] | None = None
    #: It was ready, and so long after that it is in error.
    breaks_after_seconds: float | None = None
    mp4_seconds: float = 15.0
    #: So many MP4s fail before one succeeds.
    mp4_failures: int = 0
    #: The file is served so long after the MP4 was called ready.
    file_lag_seconds: float = 0.0
    size_bytes: int = 2_500
    duration_seconds: float = 30.0
    is_private: bool = False


def draw_fate(rng: random.Random) -> Fate:
    """A fate as real ones are: quick or slow, most of them good."""
    is_early = rng.random() < 0.3
    return Fate(
        downloading_seconds=rng.uniform(0.5, 30),
        queued_seconds=rng.choice((0.0, rng.uniform(0, 60))),
        encoding_seconds=rng.uniform(1, 300),
        playable_share=rng.uniform(0.1, 1.0),
        ready_percent=round(rng.uniform(1, 99), 1) if is_early else 100.0,
        full_after_seconds=rng.uniform(5, 900) if is_early else 0.0,
        mp4_seconds=rng.uniform(0.5, 120),
        mp4_failures=rng.choices((0, 1, 2), (0.92, 0.05, 0.03))[0],
        file_lag_seconds=rng.choice((0.0, rng.uniform(0, 5))),
        size_bytes=rng.randint(200, 6_000),
        duration_seconds=round(rng.uniform(0.5, 4000), 2),
        is_private=rng.random() < 0.2,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a video is at one moment."""

    state: str
    percent: float | None = None
    step: str | None = None
    is_playable: bool = False
    error: tuple[str, str] | None = None


@dataclass(slots=True)
class SimulatedVideo:
    """One video, its MP4, and every file that was ever served as that MP4."""

    uid: str
    fate: Fate
    created_at: datetime
    creator: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    #: Where the provider itself fetches it from; None for what is uploaded.
    source_url: str | None = None
    expires_at: datetime | None = None
    #: When the last byte was there.
    arrived_at: datetime | None = None
    received_bytes: int = 0
    max_duration_seconds: int | None = None
    mp4_enabled_at: datetime | None = None
    #: MP4s begun, and when it was asked for one though there was one already.
    mp4_makes: int = 0
    mp4_repeated_at: list[datetime] = field(default_factory=list)
    #: The versions of the file; the last one is served.
    files: list[bytes] = field(default_factory=list)

    @property
    def encoded_at(self) -> datetime | None:
        """When it is ready, or in error; None while its bytes are not there."""
        if self.arrived_at is None:
            return None
        return self.arrived_at + timedelta(seconds=self.fate.queued_seconds + self.fate.encoding_seconds)

    def standing(self, now: datetime) -> Standing:
        """Where it is at *now*; a copy arrives by itself."""
        if self.arrived_at is None or now < self.arrived_at:
            return Standing("pendingupload" if self.source_url is None else "downloading")
        since = (now - self.arrived_at).total_seconds() - self.fate.queued_seconds
        if since < 0:
            return Standing("queued", 0.0)
        if since < self.fate.encoding_seconds:
            share = since / self.fate.encoding_seconds
            is_playable = share >= self.fate.playable_share and self.fate.error is None
            return Standing("inprogress", 100 * share, "encoding", is_playable)
        if self.fate.error is not None:
            return Standing("error", 39.0, "encoding", False, self.fate.error)
        since -= self.fate.encoding_seconds
        if self.fate.breaks_after_seconds is not None and since >= self.fate.breaks_after_seconds:
            return Standing("error", 100.0, None, False, ("ERR_UNKNOWN", "The video was ready and is not any more"))
        percent = 100.0 if since >= self.fate.full_after_seconds else self.fate.ready_percent
        return Standing("ready", percent, None, True)

    def mp4(self, now: datetime) -> tuple[str, float] | None:
        """State and percentage of the MP4 (``inprogress``, ``ready``, ``error``); None when there is none."""
        if self.mp4_enabled_at is None:
            return None
        since = (now - self.mp4_enabled_at).total_seconds()
        if since < self.fate.mp4_seconds:
            return "inprogress", round(100 * since / self.fate.mp4_seconds, 1)
        return ("error", 0.0) if self.mp4_makes <= self.fate.mp4_failures else ("ready", 100.0)

    def is_served(self, now: datetime) -> bool:
        """Whether the delivery host has the file."""
        state = self.mp4(now)
        if state is None or state[0] != "ready" or self.mp4_enabled_at is None:
            return False
        return (now - self.mp4_enabled_at).total_seconds() >= self.fate.mp4_seconds + self.fate.file_lag_seconds


def rfc3339(at: datetime | None) -> str | None:
    """*at* as the API writes it: UTC, microseconds, ``Z``."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def video_object(video: SimulatedVideo, now: datetime, delivery_origin: str) -> dict[str, Any]:
    """The API's object of *video* at *now*."""
    standing = video.standing(now)
    code, said = standing.error or ("", "")
    status: dict[str, Any] = {"state": standing.state, "errorReasonCode": code, "errorReasonText": said}
    if standing.percent is not None:
        status["pctComplete"] = f"{standing.percent:.6f}"
    if standing.step is not None:
        status["step"] = standing.step
    is_known = standing.state not in ("pendingupload", "downloading", "queued")
    address = f"{delivery_origin}/{video.uid}"
    return {
        "uid": video.uid,
        "creator": video.creator,
        "thumbnail": f"{address}/thumbnails/thumbnail.jpg",
        "readyToStream": standing.is_playable,
        "readyToStreamAt": rfc3339(video.encoded_at) if standing.is_playable else None,
        "status": status,
        "meta": video.meta,
        "created": rfc3339(video.created_at),
        "modified": rfc3339(video.arrived_at or video.created_at),
        "size": video.received_bytes,
        "preview": f"{address}/watch",
        "requireSignedURLs": video.fate.is_private,
        "uploaded": rfc3339(video.arrived_at),
        "uploadExpiry": rfc3339(video.expires_at),
        "maxDurationSeconds": video.max_duration_seconds,
        "duration": video.fate.duration_seconds if is_known else -1,
        "input": {"width": 1280 if is_known else -1, "height": 720 if is_known else -1},
        "playback": {"hls": f"{address}/manifest/video.m3u8", "dash": f"{address}/manifest/video.mpd"},
    }


def downloads_object(video: SimulatedVideo, now: datetime, delivery_origin: str) -> dict[str, Any]:
    """The API's object of the MP4 at *now*; the address stands there before it works."""
    state = video.mp4(now)
    if state is None:
        return {}
    address = f"{delivery_origin}/{video.uid}/downloads/default.mp4"
    return {"default": {"status": state[0], "percentComplete": state[1], "url": address}}
