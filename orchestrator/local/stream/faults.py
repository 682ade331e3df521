"""The faults a stand-in can be switched to: each a small class, all of them in `Faults`.

Every fault reads the same way:

    times   how often it bites; null means until it is taken away
    skip    how many occasions it lets pass first
    route   faults of API calls: only this one, written as in the calls log ("GET /stream/{uid}")
    video   faults of videos: only this one, by uid or by meta.name

What one bite is stands in the first line of each class. As JSON:

    {"api_5xx": {"times": 3, "route": "GET /stream"}, "mp4_late": {"seconds": 2}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# As the calls log names them. A misspelt route would never bite, so it is refused.
ROUTES = frozenset(
    {
        "GET /user/tokens/verify",
        "GET /tokens/verify",
        "GET /stream/storage-usage",
        "GET /stream/webhook",
        "PUT /stream/webhook",
        "DELETE /stream/webhook",
        "POST /stream/direct_upload",
        "POST /stream",
        "GET /stream",
        "POST /stream/copy",
        "POST /stream/clip",
        "GET /stream/{uid}",
        "POST /stream/{uid}",
        "DELETE /stream/{uid}",
        "GET /stream/{uid}/embed",
        "POST /stream/{uid}/token",
        "GET /stream/{uid}/downloads",
        "POST /stream/{uid}/downloads",
        "DELETE /stream/{uid}/downloads",
        "POST /stream/{uid}/downloads/{kind}",
        "DELETE /stream/{uid}/downloads/{kind}",
        "HEAD /media/{uid}",
        "PATCH /media/{uid}",
    }
)


class Fault(BaseModel):
    """What every fault has; *selector* names the field that narrows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    selector: ClassVar[str] = ""

    times: int | None = Field(default=None, ge=1)
    skip: int = Field(default=0, ge=0)

    def concerns(self, names: tuple[str, ...]) -> bool:
        """Whether an occasion known under *names* is meant."""
        wanted = getattr(self, self.selector, None)
        return wanted is None or wanted in names


class CallFault(Fault):
    """A fault of API calls; one bite is one answer."""

    selector = "route"
    route: str | None = None

    @field_validator("route")
    @classmethod
    def _is_known(cls, route: str | None) -> str | None:
        if route is not None and route not in ROUTES:
            raise ValueError(f"no such route; known are {', '.join(sorted(ROUTES))}")
        return route


class VideoFault(Fault):
    """A fault of one video's way, its notification or its delivery."""

    selector = "video"
    video: str | None = None


# --- API calls -------------------------------------------------------------------------------------


class Api5xx(CallFault):
    """One API answer is a server error; with *html* in the shape a proxy gives it."""

    status: int = Field(default=503, ge=500, le=599)
    html: bool = False


class Api429(CallFault):
    """One API answer is 429, with Retry-After when *retry_after* is given."""

    retry_after: int | None = Field(default=None, ge=0)


class ApiRefused(CallFault):
    """One API answer says that the token is wrong."""

    status: Literal[401, 403] = 401


class ApiSlow(CallFault):
    """One API call is answered late."""

    seconds: float = Field(gt=0)


class ApiAnswerLost(CallFault):
    """One API call is done, and its connection is cut before the answer."""


class QueueFull(CallFault):
    """One creation is refused as if 120 videos were in flight."""


class QuotaExceeded(CallFault):
    """One creation is refused as if the storage minutes were used up."""


class ListOmits(VideoFault):
    """One list answer lacks the video (without *video*: every row)."""


class TotalAsString(CallFault):
    """One list answer gives `total` and `range` as text."""


class DownloadsFlat(CallFault):
    """One answer to POST downloads is flat, without the key `default`."""


class DownloadsNone(CallFault):
    """One answer to GET downloads, with none enabled, is not the usual `{}`."""

    shape: Literal["null", "404"] = "404"


class DeleteConflict(VideoFault):
    """One DELETE of a video is answered 409 / 10046."""


# --- Uploads and processing ------------------------------------------------------------------------


class TusPatch408(VideoFault):
    """One tus PATCH is answered 408 "stream timeout" after half of its bytes."""


class StuckPendingUpload(VideoFault):
    """One video stays in `pendingupload` with all its bytes there, until the fault is taken away."""


class StuckQueued(VideoFault):
    """One video stays in `queued` until the fault is taken away."""


class StuckInProgress(VideoFault):
    """One video stays in `inprogress`, at the percentage it has, until the fault is taken away."""


class EncodingFails(VideoFault):
    """One encoding ends in `error` with *code*."""

    code: str = "ERR_UNKNOWN"
    text: str = "The video could not be processed."


class ErrorAfterReady(VideoFault):
    """One video goes from `ready` to `error`, *seconds* later."""

    seconds: float = Field(default=0.1, ge=0)
    code: str = "ERR_UNKNOWN"
    text: str = "The video could not be processed."


class UnknownState(VideoFault):
    """One video reports *state*, a word no client knows, while it is `inprogress`."""

    state: str = "optimizing"


class ErrorSpelling(VideoFault):
    """One failed video spells its reason `errReason…`, or both ways, instead of `errorReason…`."""

    spelling: Literal["err", "both"] = "err"


# --- MP4 -------------------------------------------------------------------------------------------


class DownloadFails(VideoFault):
    """One MP4 generation ends in `error`."""


class Mp4Late(VideoFault):
    """One MP4 is reported `ready` and answers 404 for *seconds* more."""

    seconds: float = Field(default=2.0, gt=0)


class Mp4Refused(VideoFault):
    """One request for an MP4 is answered *status*."""

    status: int = Field(default=404, ge=400, le=599)


class Mp4NotReady424(VideoFault):
    """One request for an MP4 that is not there yet is answered 424 instead of 404."""


class Mp4Truncated(VideoFault):
    """One MP4 answer stops after *share* of its bytes; *quietly* declares the short length as the whole."""

    share: float = Field(default=0.5, ge=0, lt=1)
    quietly: bool = False


class Mp4NoRanges(VideoFault):
    """One MP4 request's Range is ignored: 200 with the whole file."""


class Mp4NoLength(VideoFault):
    """One MP4 answer has no Content-Length (it is sent chunked)."""


class Mp4NoEtag(VideoFault):
    """One MP4 answer has no ETag."""


class Mp4Redirect(VideoFault):
    """One MP4 request is redirected once before it is answered."""

    status: Literal[301, 302, 303, 307, 308] = 302


class Mp4Slow(VideoFault):
    """One MP4 answer is sent no faster than *bytes_per_second*."""

    bytes_per_second: int = Field(gt=0)


# --- Webhooks --------------------------------------------------------------------------------------


class WebhookLost(VideoFault):
    """One notification is never sent."""


class WebhookDuplicated(VideoFault):
    """One notification is sent *copies* more times."""

    copies: int = Field(default=1, ge=1, le=100)


class WebhookDelayed(VideoFault):
    """One notification is sent *seconds* late."""

    seconds: float = Field(gt=0)


class WebhookReordered(VideoFault):
    """One notification waits until *batch* are together (or *seconds* passed); the last goes out first."""

    batch: int = Field(default=2, ge=2, le=1000)
    seconds: float = Field(default=5.0, gt=0)


class WebhookWrongSecret(VideoFault):
    """One attempt to notify is signed with a secret that is not ours."""


class WebhookSecretRotated(VideoFault):
    """One attempt to notify comes after the secret was changed: signed with the new one, which GET webhook tells."""


class WebhookStale(VideoFault):
    """One attempt to notify has a signature that is right and *seconds* old."""

    seconds: float = Field(default=3600.0, gt=0)


class Faults(BaseModel):
    """Every fault there is, each off (None) unless given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_5xx: Api5xx | None = None
    api_429: Api429 | None = None
    api_refused: ApiRefused | None = None
    api_slow: ApiSlow | None = None
    api_answer_lost: ApiAnswerLost | None = None
    queue_full: QueueFull | None = None
    quota_exceeded: QuotaExceeded | None = None
    list_omits: ListOmits | None = None
    total_as_string: TotalAsString | None = None
    downloads_flat: DownloadsFlat | None = None
    downloads_none: DownloadsNone | None = None
    delete_conflict: DeleteConflict | None = None
    tus_patch_408: TusPatch408 | None = None
    stuck_pendingupload: StuckPendingUpload | None = None
    stuck_queued: StuckQueued | None = None
    stuck_inprogress: StuckInProgress | None = None
    encoding_fails: EncodingFails | None = None
    error_after_ready: ErrorAfterReady | None = None
    unknown_state: UnknownState | None = None
    error_spelling: ErrorSpelling | None = None
    download_fails: DownloadFails | None = None
    mp4_late: Mp4Late | None = None
    mp4_refused: Mp4Refused | None = None
    mp4_not_ready_424: Mp4NotReady424 | None = None
    mp4_truncated: Mp4Truncated | None = None
    mp4_no_ranges: Mp4NoRanges | None = None
    mp4_no_length: Mp4NoLength | None = None
    mp4_no_etag: Mp4NoEtag | None = None
    mp4_redirect: Mp4Redirect | None = None
    mp4_slow: Mp4Slow | None = None
    webhook_lost: WebhookLost | None = None
    webhook_duplicated: WebhookDuplicated | None = None
    webhook_delayed: WebhookDelayed | None = None
    webhook_reordered: WebhookReordered | None = None
    webhook_wrong_secret: WebhookWrongSecret | None = None
    webhook_secret_rotated: WebhookSecretRotated | None = None
    webhook_stale: WebhookStale | None = None
