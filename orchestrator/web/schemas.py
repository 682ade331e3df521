"""The shapes of requests and answers: checked on the way in, published in the OpenAPI document."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

# The provider takes a form upload under this size; anything larger must be resumable.
FORM_MAX_BYTES = 200_000_000
# The provider's largest file, by whatever way.
UPLOAD_MAX_BYTES = 30_000_000_000
# The longest reservation the provider accepts, in seconds.
DURATION_MAX_SECONDS = 36_000
TITLE_MAX_CHARACTERS = 500
URL_MAX_CHARACTERS = 4096
UID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"

# What an address never holds unescaped.
_NOT_IN_ADDRESSES = re.compile(r"[\x00-\x20\x7f\"<>\\^`{|}]")

# The reference puts the list of the law in its place.
STATUS_FORMAT = "clip-status"
StatusName = Annotated[str, WithJsonSchema({"type": "string", "format": STATUS_FORMAT})]
State = Literal["pending", "running", "done", "failed"]


class Strict(BaseModel):
    """A request: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewUpload(Strict):
    """A clip whose bytes the caller will upload."""

    source: Literal["upload"]
    size_bytes: int = Field(ge=1, le=UPLOAD_MAX_BYTES, description="size of the file")
    title: str | None = Field(None, max_length=TITLE_MAX_CHARACTERS, description="name for people; data, never a path")
    max_duration_seconds: int | None = Field(
        None, ge=1, le=DURATION_MAX_SECONDS, description="longest duration the provider will accept for this clip"
    )
    protocol: Literal["form", "tus"] | None = Field(
        None, description="how the bytes will come; by default a form up to 200 MB and tus above"
    )

    @model_validator(mode="after")
    def _fits_its_protocol(self) -> Self:
        if self.protocol == "form" and self.size_bytes > FORM_MAX_BYTES:
            raise ValueError(f"a form upload has at most {FORM_MAX_BYTES} bytes; leave protocol out or say tus")
        return self

    @property
    def by_tus(self) -> bool:
        """Whether the bytes come in resumable chunks."""
        return self.protocol == "tus" or (self.protocol is None and self.size_bytes > FORM_MAX_BYTES)


class NewFromUrl(Strict):
    """A clip that the provider fetches."""

    source: Literal["url"]
    url: str = Field(max_length=URL_MAX_CHARACTERS, description="public http or https address of the file")
    title: str | None = Field(None, max_length=TITLE_MAX_CHARACTERS)

    @field_validator("url")
    @classmethod
    def _is_fetchable(cls, value: str) -> str:
        # The address may carry its owner's signature, so no reason repeats it.
        if _NOT_IN_ADDRESSES.search(value):
            raise ValueError("has a character that addresses do not have; percent-encode it")
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must be an http or https address with a host")
        if "@" in parts.netloc:
            raise ValueError("must not carry a user name or password")
        return value


class NewFromStream(Strict):
    """A clip whose video is already at the provider."""

    source: Literal["stream"]
    cloudflare_uid: str = Field(pattern=UID_PATTERN, description="the provider's id of the video")
    title: str | None = Field(None, max_length=TITLE_MAX_CHARACTERS)


NewClip = NewUpload | NewFromUrl | NewFromStream
NEW_CLIP_BY_SOURCE: dict[str, type[NewUpload] | type[NewFromUrl] | type[NewFromStream]] = {
    "upload": NewUpload,
    "url": NewFromUrl,
    "stream": NewFromStream,
}


class SignalRequest(Strict):
    """A request that a clip move to a status."""

    requested_status: StatusName = Field(description="a status of the clip's pipeline")
    details: dict[str, Any] = Field(default_factory=dict, description="merged into the clip's processing_details")


class Empty(Strict):
    """No fields; the body may be left out."""


class VideoRequest(Strict):
    """A call of the prior system's clients."""

    model_config = ConfigDict(extra="ignore")

    videoUid: str = Field(pattern=UID_PATTERN, description="the provider's id of the video")


class CreatedClip(BaseModel):
    """A clip that was made just now."""

    id: str
    cloudflare_uid: str | None
    status: StatusName
    upload_url: str | None = Field(description="one-time address for the bytes; null unless the source is upload")
    page_url: str
    protocol: Literal["form", "tus"] | None
    upload_expires_at: datetime | None


class ClipAnswer(BaseModel):
    """A clip: the columns of its row, and what follows from them for people."""

    id: str
    pipeline: str
    cloudflare_uid: str | None
    title: str | None
    status: StatusName
    state: State
    progress: float = Field(ge=0, le=100)
    message: str
    terminal: bool
    processing_details: dict[str, Any]
    attempt: int
    duration: float | None = Field(description="seconds")
    file_size: int | None = Field(description="bytes of the finished file")
    thumbnail_url: str | None
    hls_url: str | None
    dash_url: str | None
    mp4_url: str | None
    r2_url: str | None = Field(description="the finished file; null until complete")
    error_message: str | None
    uploaded_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    upload_expires_at: datetime | None
    status_since: datetime
    look_at: datetime | None = Field(description="when the monitor looks next")
    tries: int = Field(description="failed tries at this status")
    pending: int = Field(description="signals that wait to be judged")
    version: int


class ClipList(BaseModel):
    """A page of clips, newest first."""

    clips: list[ClipAnswer]
    next_cursor: str | None = Field(description="for the next page; null at the end")


class StatusAnswer(BaseModel):
    """Where a clip stands; also for an id that nobody knows."""

    id: str
    known: bool
    status: StatusName | None
    state: State
    progress: float = Field(ge=0, le=100)
    message: str
    terminal: bool
    error: str | None
    eta_seconds: float | None = Field(description="null when nothing reliable is known")
    updated_at: datetime | None


class EventAnswer(BaseModel):
    """One line of a clip's history."""

    id: int
    at: datetime
    kind: str
    attempt: int
    from_status: StatusName | None
    to_status: str | None = Field(description="where it went, or was asked to go")
    progress: float | None
    source: str
    reason: str | None = Field(description="why, in a sentence: the rule that refused it, the step that moved it")
    details: dict[str, Any]


class PendingAnswer(BaseModel):
    """A signal that waits to be judged."""

    requested_status: StatusName
    attempt: int
    source: str
    at: datetime


class EventList(BaseModel):
    """A clip's history, oldest first."""

    events: list[EventAnswer]
    pending: list[PendingAnswer]
    next_after: int | None = Field(description="for the next page; null at the end")


class AskedAnswer(BaseModel):
    """A request was recorded; the monitor judges it."""

    id: str
    requested_status: StatusName
    attempt: int
    recorded: Literal[True]
    status: StatusName = Field(description="where the clip stands now")


class PriorAnswer(BaseModel):
    """What the prior system's clients get."""

    success: Literal[True]
    message: str
    videoUid: str
    clip_id: str
    status: StatusName


class Mp4Answer(PriorAnswer):
    """The state of a video's MP4 at the provider."""

    mp4_status: Literal["absent", "inprogress", "ready", "error"]
    mp4_percent_complete: float | None
    ready: bool


class Recorded(BaseModel):
    """A notification was taken."""

    received: Literal[True]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(BaseModel):
    """The database answers and is up to date."""

    status: Literal["ready"]
    version: str
    migrations: Literal["applied", "differ"] = Field(description="differ: the database is newer than this program")
    monitor_round_age_seconds: float | None = Field(description="age of the monitor's last round; null if none yet")


class FaultAnswer(BaseModel):
    """One thing to mend."""

    field: str
    value: str | None = None
    reason: str


class ProblemAnswer(BaseModel):
    """Why a call was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str
    errors: list[FaultAnswer]
    request_id: str
