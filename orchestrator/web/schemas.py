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

    # Checks are built when the first request of a kind comes: most kinds never come to most processes.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


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


class BulkRetry(Strict):
    """Which failed clips are to be tried again, and the count that was confirmed."""

    expected: int = Field(ge=0, description="how many clips the count said; a few more or less are taken")
    failed_before: str = Field(max_length=64, description="failed_before of the count; later failures are left out")
    pipeline: str | None = Field(None, max_length=64, description="only clips of this pipeline")
    search: str | None = Field(None, max_length=200, description="as for the list of clips")
    error_code: str | None = Field(None, max_length=200, description="only clips that failed with this code")
    view: str | None = Field(None, max_length=64, description="only clips of this view")


class VideoRequest(Strict):
    """A call of the prior system's clients."""

    model_config = ConfigDict(extra="ignore")

    videoUid: str = Field(pattern=UID_PATTERN, description="the provider's id of the video")


class Answer(BaseModel):
    """What is answered: only the reference reads these shapes, so they are built when it is made."""

    model_config = ConfigDict(defer_build=True)


class CreatedClip(Answer):
    """A clip that was made just now."""

    id: str
    cloudflare_uid: str | None
    status: StatusName
    upload_url: str | None = Field(description="one-time address for the bytes; null unless the source is upload")
    page_url: str
    protocol: Literal["form", "tus"] | None
    upload_expires_at: datetime | None


class ClipAnswer(Answer):
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


class ClipList(Answer):
    """A page of clips, newest first."""

    clips: list[ClipAnswer]
    next_cursor: str | None = Field(description="for the next page; null at the end")


class StatusAnswer(Answer):
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


class EventAnswer(Answer):
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


class PendingAnswer(Answer):
    """A signal that waits to be judged."""

    requested_status: StatusName
    attempt: int
    source: str
    at: datetime


class EventList(Answer):
    """A clip's history, oldest first."""

    events: list[EventAnswer]
    pending: list[PendingAnswer]
    next_after: int | None = Field(description="for the next page; null at the end")
    pruned_before: datetime | None = Field(
        description="before then only the ends of attempts are kept, the rest was pruned; null while nothing was"
    )


class ExplanationAnswer(Answer):
    """Why a clip is where it is, and what happens next."""

    id: str
    status: StatusName
    state: State
    attempt: int
    explanation: str = Field(description="one sentence, the same as on the page and the command line")
    waiting_on: Literal[
        "nobody", "monitor", "person", "time", "provider", "uploader", "caller", "program", "newer version"
    ]
    unblocked_by: str | None = Field(description="what would move it")
    since: datetime = Field(description="when it came to its status")
    next_look_at: datetime | None = Field(description="when the monitor looks next")
    gives_up_at: datetime | None = Field(description="when it is failed if it does not move")
    retry_at: datetime | None = Field(description="when a failed clip is tried again by itself")
    monitor_leads: bool | None
    at: datetime = Field(description="the moment all this is said of, by the database's clock")


class DeliveryAnswer(Answer):
    """A notification that was really signed, however often the same one came."""

    id: int
    cloudflare_uid: str
    received_at: datetime = Field(description="when it came first")
    last_at: datetime = Field(description="when it came last")
    times: int = Field(description="how often it came")
    signature: Literal["valid", "stale"] = Field(description="stale: signed, but at a time too far from ours")
    state: str | None = Field(description="what the provider reported, in its own word")
    outcome: Literal["recorded", "ignored", "refused"]
    size_bytes: int
    body: str = Field(description="without secrets; a large one is cut to the fields that count")


class RefusalAnswer(Answer):
    """How often notifications were refused for one reason, whatever clip they spoke of."""

    reason: str
    times: int
    last_at: datetime


class DeliveryList(Answer):
    """The notifications of a clip, newest first, and what was refused within a day."""

    deliveries: list[DeliveryAnswer]
    refused_within_a_day: list[RefusalAnswer]


class CallAnswer(Answer):
    """One try of one call to the provider."""

    at: datetime
    operation: str
    call_class: str = Field(description="who waited for it: a person, the clip's progress, or a look")
    attempt: int = Field(description="which try of the call")
    waited_ms: int = Field(description="for a place in the call budget")
    took_ms: int
    http_status: int | None = Field(description="null when no answer came")
    problem: str | None = Field(description="the code of what was wrong with it")


class CallList(Answer):
    """The last calls about a clip's video, newest first, as long as they are kept."""

    calls: list[CallAnswer]


class AskedAnswer(Answer):
    """A request was recorded; the monitor judges it."""

    id: str
    requested_status: StatusName
    attempt: int
    recorded: Literal[True]
    status: StatusName = Field(description="where the clip stands now")


class RetryCount(Answer):
    """What retrying the failed clips of a filter would do."""

    clips: int = Field(description="clips a new attempt would be asked for")
    not_retried: dict[str, int] = Field(description="how many of the others, by the word for why not")
    automatic: int = Field(description="of those clips, the ones that would be tried again by themselves, later")
    whole: bool = Field(description="false when more fit than one count considers; the newest come first")
    failed_before: datetime = Field(description="when the count was made; send it with the retry")


class RetryResult(Answer):
    """What one call asked for; the monitor judges it."""

    asked: int
    refused: int = Field(description="clips whose documents are too full to take a request")
    remaining: int = Field(description="clips that can still be asked for: call again with this as expected")
    not_retried: dict[str, int]
    whole: bool = Field(description="false when more fit than one call counts: count again when these are judged")
    failed_before: datetime
    recorded: Literal[True]


class BoardCount(Answer):
    """How many clips stand at one status of one pipeline."""

    pipeline: str
    status: StatusName
    state: State
    message: str
    clips: int
    at_least: bool = Field(description="counting was ended here: there may be more")


class BoardView(Answer):
    """How many clips one view holds."""

    view: str
    title: str
    clips: int
    at_least: bool


class BoardBudget(Answer):
    """The calls to the provider that are left."""

    calls_left: float = Field(description="calls that may be made now")
    calls_at_once: float
    calls_per_second: float = Field(description="how fast they come back")
    blocked_seconds: float = Field(description="nobody calls for so long: the provider refused")
    provider_left: int | None = Field(description="what the provider itself said is left, as long as that holds")


class BoardEngine(Answer):
    """Who leads, and what waits."""

    leader: str | None = Field(description="the monitor that leads; null when none does")
    epoch: int
    leads_since: datetime | None
    round_age_seconds: float | None
    signals_waiting: int
    oldest_signal_seconds: float
    looks_due: int
    latest_look_seconds: float
    workers: int = Field(description="workers that live; without one the monitor does heavy steps itself")
    steps_queued: int = Field(description="heavy steps that wait for a worker")
    steps_running: int = Field(description="heavy steps that a worker is at")
    waiting_counted_to: int = Field(description="the counts of what waits end here")
    budget: BoardBudget | None = Field(description="null before the first call to the provider")


class BoardReason(Answer):
    """How many of the clips that failed last did so for one reason."""

    error_code: str
    clips: int


class BoardBar(Answer):
    """Clips completed in the span that began at a moment."""

    at: datetime
    clips: int


class BoardCompleted(Answer):
    """Clips completed, by the minute for an hour and by the hour for a day."""

    minutes: list[BoardBar]
    hours: list[BoardBar]


class BoardStage(Answer):
    """How long the clips completed last stood at one status."""

    pipeline: str
    status: StatusName
    median_seconds: float
    p90_seconds: float = Field(description="nine of ten clips stood there no longer")


class BoardAnswer(Answer):
    """The figures of the board."""

    at: datetime
    age_seconds: float
    stale: bool = Field(description="the database is away: these are the last figures there were")
    problem: str | None
    clips_estimate: int = Field(description="all clips, as the planner estimates")
    counts: list[BoardCount]
    views: list[BoardView]
    engine: BoardEngine
    reasons: list[BoardReason]
    completed: BoardCompleted
    stages: list[BoardStage]


class PriorAnswer(Answer):
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


class Recorded(Answer):
    """A notification was taken."""

    received: Literal[True]


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(Answer):
    """The database answers and is up to date."""

    status: Literal["ready"]
    version: str
    migrations: Literal["applied", "differ"] = Field(description="differ: the database is newer than this program")
    monitor_round_age_seconds: float | None = Field(description="age of the monitor's last round; null if none yet")


class FaultAnswer(Answer):
    """One thing to mend."""

    field: str
    value: str | None = None
    reason: str


class ProblemAnswer(Answer):
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
