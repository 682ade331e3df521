"""What Cloudflare Stream says, as values for the rest of the house.

The provider's documents are read field by field (`lenient`): the schema calls every field optional, its pages
and its answers differ in names and types, and both change. Only the uid is required. A video, shortened:

    {"uid": "ea95132c15732412d22c1476fa83f27a", "readyToStream": true,
     "status": {"state": "ready", "pctComplete": "39.000000", "errorReasonCode": "", "errorReasonText": ""},
     "created": "2026-01-02T03:04:05.678901Z", "duration": 5.5, "size": 123456, "meta": {"name": "x.mp4"},
     "playback": {"hls": "https://…/manifest/video.m3u8", "dash": "https://…/manifest/video.mpd"}}

Source: https://developers.cloudflare.com/api/resources/stream/ and the pages beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic.alias_generators import to_camel

from orchestrator.drivers import lenient
from orchestrator.drivers.strict_json import BadDocument, decode_object

# Today's uids are 32 hex digits. Whatever they become, they must fit into a path and into our column.
_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A notification is one video object of 2 KB; its owner's `meta` is the only part that can grow.
WEBHOOK_MAX_BYTES = 64 * 1024


class VideoState(StrEnum):
    """Where the provider says a video is; the set grows, and a new word is UNKNOWN: still being processed."""

    PENDING_UPLOAD = "pendingupload"
    DOWNLOADING = "downloading"
    QUEUED = "queued"
    IN_PROGRESS = "inprogress"
    READY = "ready"
    ERROR = "error"
    LIVE_IN_PROGRESS = "live-inprogress"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Video:
    """One video at one moment. None means that the provider does not say, or not yet."""

    uid: str
    state: VideoState = VideoState.UNKNOWN
    # The provider's own word, also where we do not know it.
    state_raw: str = ""
    # Of the encoding, 0-100. It can be below 100 in `ready`: better renditions still follow.
    percent: float | None = None
    # At least one rendition plays.
    ready_to_stream: bool = False
    duration_seconds: float | None = None
    # Of the file that was uploaded, not of an MP4 made from it.
    size_bytes: int | None = None
    error_code: str | None = None
    error_text: str | None = None
    thumbnail_url: str | None = None
    # The addresses exist before anything plays there.
    hls_url: str | None = None
    dash_url: str | None = None
    preview_url: str | None = None
    created_at: datetime | None = None
    modified_at: datetime | None = None
    uploaded_at: datetime | None = None
    upload_expires_at: datetime | None = None
    require_signed_urls: bool = False
    creator: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)


class DownloadState(StrEnum):
    """Where the MP4 of a video is; a word we do not know is taken for IN_PROGRESS."""

    ABSENT = "absent"
    IN_PROGRESS = "inprogress"
    READY = "ready"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Download:
    """The MP4 of a video at one moment. The address is given early and works only when READY."""

    state: DownloadState = DownloadState.ABSENT
    percent: float | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class DirectUpload:
    """A one-time address for one upload. Whoever has it may upload, so it prints nowhere."""

    uid: str
    upload_url: str = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VideoPage:
    """Part of the library, and how many there are in all if the provider says."""

    videos: tuple[Video, ...] = ()
    total: int | None = None


@dataclass(frozen=True, slots=True)
class WebhookRegistration:
    """Where the account's notifications go, and the secret that signs them."""

    url: str
    secret: str = field(repr=False)
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StorageUsage:
    """Minutes of video kept and paid for, and the number of videos."""

    minutes: float | None = None
    minutes_limit: float | None = None
    video_count: int | None = None


Text = Annotated[str | None, PlainValidator(lenient.text)]
Reason = Annotated[str | None, PlainValidator(lenient.reason)]
Percent = Annotated[float | None, PlainValidator(lenient.percent)]
Number = Annotated[float | None, PlainValidator(lenient.number)]
Positive = Annotated[float | None, PlainValidator(lenient.positive)]
Whole = Annotated[int | None, PlainValidator(lenient.whole)]
PositiveWhole = Annotated[int | None, PlainValidator(lenient.positive_whole)]
Flag = Annotated[bool | None, PlainValidator(lenient.flag)]
Moment = Annotated[datetime | None, PlainValidator(lenient.moment)]
Address = Annotated[str | None, PlainValidator(lenient.web_address)]
Details = Annotated[dict[str, str], PlainValidator(lenient.details)]


class _Wire(BaseModel):
    """A document of the provider: camel case, unknown fields passed over, no field required."""

    # Built when the first document comes: to a process without work none does.
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, defer_build=True)


class _WireStatus(_Wire):
    state: Text = None
    pct_complete: Percent = None
    # The reference spells it `error…`, the example of a failed video `err…`.
    error_reason_code: Reason = None
    error_reason_text: Reason = None
    err_reason_code: Reason = None
    err_reason_text: Reason = None


class _WirePlayback(_Wire):
    hls: Address = None
    dash: Address = None


def _status(value: object) -> _WireStatus:
    """The status object; a bare word is taken for its state."""
    if isinstance(value, str):
        value = {"state": value}
    return _WireStatus.model_validate(value) if isinstance(value, dict) else _WireStatus()


def _playback(value: object) -> _WirePlayback:
    return _WirePlayback.model_validate(value) if isinstance(value, dict) else _WirePlayback()


class _WireVideo(_Wire):
    """A video in the names of the REST interface, and in those of bindings and queues where they differ."""

    uid: Text = None
    id: Text = None
    status: Annotated[_WireStatus, PlainValidator(_status)] = _WireStatus()
    ready_to_stream: Flag = None
    duration: Positive = None
    size: PositiveWhole = None
    thumbnail: Address = None
    playback: Annotated[_WirePlayback, PlainValidator(_playback)] = _WirePlayback()
    hls_playback_url: Address = None
    dash_playback_url: Address = None
    preview: Address = None
    created: Moment = None
    modified: Moment = None
    uploaded: Moment = None
    upload_expiry: Moment = None
    require_signed_urls: Flag = Field(default=None, alias="requireSignedURLs")
    creator: Text = None
    meta: Details = Field(default_factory=dict)


class _WireDownload(_Wire):
    status: Text = None
    percent_complete: Percent = None
    url: Address = None


class _WireDirectUpload(_Wire):
    uid: Text = None
    upload_url: Address = Field(default=None, alias="uploadURL")


class _WireWebhook(_Wire):
    notification_url: Text = None
    secret: Text = None
    modified: Moment = None


class _WireUsage(_Wire):
    total_storage_minutes: Number = None
    total_storage_minutes_limit: Number = None
    video_count: Whole = None


def is_uid(value: object) -> bool:
    """Whether *value* can be a uid: it goes into a path and a list parameter as it stands."""
    return isinstance(value, str) and _UID.fullmatch(value) is not None


def parse_video(value: object) -> Video | None:
    """The video that *value* describes; None if it has no uid and so describes none."""
    if not isinstance(value, dict):
        return None
    wire = _WireVideo.model_validate(value)
    uid = wire.uid or wire.id
    if uid is None or not is_uid(uid):
        return None
    status = wire.status
    state = _state(status.state)
    return Video(
        uid=uid,
        state=state,
        state_raw=status.state or "",
        percent=status.pct_complete,
        # Where the flag is missing, the state has to do.
        ready_to_stream=state is VideoState.READY if wire.ready_to_stream is None else wire.ready_to_stream,
        duration_seconds=wire.duration,
        size_bytes=wire.size,
        error_code=status.error_reason_code or status.err_reason_code,
        error_text=status.error_reason_text or status.err_reason_text,
        thumbnail_url=wire.thumbnail,
        hls_url=wire.playback.hls or wire.hls_playback_url,
        dash_url=wire.playback.dash or wire.dash_playback_url,
        preview_url=wire.preview,
        created_at=wire.created,
        modified_at=wire.modified,
        uploaded_at=wire.uploaded,
        upload_expires_at=wire.upload_expiry,
        require_signed_urls=bool(wire.require_signed_urls),
        creator=wire.creator,
        meta=wire.meta,
    )


def parse_page(result: object, total: object = None) -> VideoPage | None:
    """The rows of a list answer, those without a uid left out; None if it is no list."""
    if result is not None and not isinstance(result, list):
        return None
    videos = (parse_video(row) for row in result or ())
    return VideoPage(tuple(video for video in videos if video is not None), lenient.whole(total))


def parse_download(result: object) -> Download:
    """The MP4 in an answer of the downloads calls: under `default`, or flat; anything else means absent."""
    if not isinstance(result, dict):
        return Download()
    found = result.get("default", result)
    if not isinstance(found, dict) or not found.keys() & {"status", "percentComplete", "url"}:
        return Download()
    wire = _WireDownload.model_validate(found)
    try:
        state = DownloadState(wire.status or "")
    except ValueError:
        state = DownloadState.IN_PROGRESS
    if state is DownloadState.ABSENT:
        state = DownloadState.IN_PROGRESS
    return Download(state, wire.percent_complete, wire.url)


def parse_direct_upload(result: object, expires_at: datetime | None) -> DirectUpload | None:
    """The one-time address in an answer; None unless both the uid and a usable address are there."""
    if not isinstance(result, dict):
        return None
    wire = _WireDirectUpload.model_validate(result)
    if wire.uid is None or not is_uid(wire.uid) or wire.upload_url is None:
        return None
    return DirectUpload(wire.uid, wire.upload_url, expires_at)


def parse_webhook(result: object) -> WebhookRegistration | None:
    """The registration in an answer; None if there is none in it."""
    wire = _WireWebhook.model_validate(result) if isinstance(result, dict) else _WireWebhook()
    if wire.notification_url is None or wire.secret is None:
        return None
    return WebhookRegistration(wire.notification_url, wire.secret, wire.modified)


def parse_usage(result: object) -> StorageUsage | None:
    """The storage figures in an answer; None if it is no object."""
    if not isinstance(result, dict):
        return None
    wire = _WireUsage.model_validate(result)
    return StorageUsage(wire.total_storage_minutes, wire.total_storage_minutes_limit, wire.video_count)


def parse_webhook_video(raw: bytes) -> Video:
    """The video in the body of a notification whose signature was checked.

    Stricter than what is asked of the API: anybody who may name an upload has a hand in this text. Refusing
    costs nothing but time, for the provider is asked anyway.

    Raises:
        BadDocument: a ValueError whose reason is one of `strict_json`'s or `no_uid`.
    """
    video = parse_video(decode_object(raw, WEBHOOK_MAX_BYTES))
    if video is None:
        raise BadDocument("no_uid")
    return video


def _state(word: str | None) -> VideoState:
    try:
        return VideoState(word or "")
    except ValueError:
        return VideoState.UNKNOWN
