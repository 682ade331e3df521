"""Every address this process serves, as rows: method, path, handler, guard, and what the reference says of it."""

from __future__ import annotations

from orchestrator.noticing import VIEWS
from orchestrator.web import (
    asking,
    assets,
    board,
    creation,
    deliveries,
    events,
    explanations,
    health,
    metrics,
    openapi,
    prior,
    reading,
    retrying,
    webhooks,
)
from orchestrator.web import schemas as s
from orchestrator.web.access import Guard
from orchestrator.web.jobs import health as jobs_health
from orchestrator.web.jobs import outputs, processing, status, tus, uploads
from orchestrator.web.pages import (
    actions,
    board_page,
    clip_page,
    cut_page,
    docs_page,
    retry_page,
    sign_in,
    theme,
    upload_page,
)
from orchestrator.web.route import Parameter, Route


def _text(name: str, text: str) -> Parameter:
    return Parameter(name, text, {"type": "string"})


def _whole(name: str, text: str, low: int, high: int | None, default: int) -> Parameter:
    bounds = {"minimum": low} | ({} if high is None else {"maximum": high})
    return Parameter(name, text, {"type": "integer", "default": default, **bounds})


_STATUS: dict[str, object] = {"$ref": "#/components/schemas/Status"}
_VIEW: dict[str, object] = {"type": "string", "enum": list(VIEWS)}
_BODY = ("bad-json", "too-large", "too-slow", "unsupported-media", "invalid")
_PRIOR = (
    "bad-json",
    "bad-request",
    "missing-video",
    "unknown-clip",
    "too-large",
    "too-slow",
    "unsupported-media",
    "too-many-signals",
)

API_ROUTES = (
    Route(
        "POST", "/api/clips", creation.create_clip, "Make a clip",
        body=(s.NewUpload, s.NewFromUrl, s.NewFromStream), success=(201, s.CreatedClip), once=True,
        problems=(*_BODY, "already-known", "provider-refused", "provider-away"),
    ),
    Route(
        "GET", "/api/clips", reading.list_clips, "List clips, newest first", success=(200, s.ClipList),
        parameters=(
            Parameter("status", "only clips at this status; repeats", _STATUS, repeats=True),
            _text("pipeline", "only clips of this pipeline"),
            _text("search", "part of the title, start of the id, or the whole cloudflare_uid"),
            _text("error_code", "only clips that failed with this code"),
            Parameter("view", "only clips of this view", _VIEW),
            _text("cursor", "next_cursor of the page before"),
            _whole("limit", "clips on the page", 1, reading.MAX_LIMIT, reading.DEFAULT_LIMIT),
        ),
        problems=("invalid", "unknown-status"),
    ),
    Route(
        "POST", "/api/clips/retry", retrying.retry_clips, "Try failed clips again, all that fit a filter",
        body=(s.BulkRetry,), success=(202, s.RetryResult), once=True, problems=(*_BODY, "count-changed"),
    ),
    Route(
        "GET", "/api/board", board.show_board, "Show the figures of the board", success=(200, s.BoardAnswer),
    ),
    Route(
        "GET", "/api/board/retry", retrying.preview_retries, "Count what trying failed clips again would do",
        success=(200, s.RetryCount),
        parameters=(
            _text("pipeline", "only clips of this pipeline"),
            _text("search", "part of the title, start of the id, or the whole cloudflare_uid"),
            _text("error_code", "only clips that failed with this code"),
            Parameter("view", "only clips of this view", _VIEW),
        ),
        problems=("invalid",),
    ),
    Route(
        "GET", "/api/clips/{id}", reading.show_clip, "Show a clip",
        success=(200, s.ClipAnswer), etag=True, problems=("unknown-clip",),
    ),
    Route(
        "GET", "/api/clips/{id:.*}/status", reading.show_status, "Show where a clip stands; never 404",
        success=(200, s.StatusAnswer), etag=True,
    ),
    Route(
        "GET", "/api/clips/{id}/events", reading.show_events, "Show a clip's history, refused signals too",
        success=(200, s.EventList),
        parameters=(
            _whole("after", "only lines past this event id", 0, None, 0),
            _whole("limit", "lines on the page", 1, reading.MAX_LIMIT, reading.MAX_LIMIT),
        ),
        problems=("unknown-clip", "invalid"),
    ),
    Route(
        "GET", "/api/clips/{id}/explain", explanations.show_explanation, "Say why a clip is where it is",
        success=(200, s.ExplanationAnswer), problems=("unknown-clip",),
    ),
    Route(
        "GET", "/api/clips/{id}/deliveries", deliveries.show_deliveries, "List the notifications that came for a clip",
        success=(200, s.DeliveryList), problems=("unknown-clip",),
    ),
    Route(
        "GET", "/api/clips/{id}/calls", deliveries.show_calls, "List the calls to the provider about a clip",
        success=(200, s.CallList), problems=("unknown-clip",),
    ),
    Route(
        "POST", "/api/clips/{id}/deliveries/{delivery}/replay", deliveries.replay_delivery,
        "Act on a notification again", body=(s.Empty,), body_required=False, success=(202, s.AskedAnswer), once=True,
        problems=(*_BODY, "unknown-clip", "unknown-delivery", "cannot-replay", "too-many-signals"),
    ),
    Route(
        "POST", "/api/clips/{id}/signals", asking.send_signal, "Ask that a clip move to a status",
        body=(s.SignalRequest,), success=(202, s.AskedAnswer), once=True,
        problems=(*_BODY, "unknown-clip", "unknown-status", "too-many-signals"),
    ),
    Route(
        "POST", "/api/clips/{id}/retry", asking.retry_clip, "Try a failed clip again",
        body=(s.Empty,), body_required=False, success=(202, s.AskedAnswer), once=True,
        problems=(*_BODY, "unknown-clip", "not-failed", "cannot-retry", "too-many-signals"),
    ),
    Route(
        "DELETE", "/api/clips/{id}", asking.delete_clip, "Remove a clip's video at the provider and end the clip",
        success=(202, s.AskedAnswer), problems=("unknown-clip", "too-many-signals"),
    ),
    Route(
        "GET", "/api/events", events.stream_events, "Follow many clips in one stream of events",
        media_type="text/event-stream",
        parameters=(
            Parameter("clip", "only this clip; repeats; none means all", {"type": "string"}, repeats=True),
            _text("after", "the id of the last event that was got, where the header Last-Event-ID cannot be sent"),
            _text("beats", "1: send an event named beat with every heartbeat, for readers that see no comments"),
        ),
        problems=("invalid", "too-many-streams", "shutting-down"),
    ),
    Route(
        "POST", "/webhooks/cloudflare", webhooks.receive_notification, "Take a notification of the provider",
        guard=Guard.OPEN, success=(200, s.Recorded),
        problems=("bad-signature", "bad-json", "too-large", "too-slow", "unsupported-media", "too-many-signals"),
    ),
    Route(
        "POST", "/api/cloudflare/enable-mp4", prior.enable_mp4, "Ask that a video's MP4 be made",
        body=(s.VideoRequest,), success=(200, s.PriorAnswer), once=True,
        problems=(*_PRIOR, "not-ready", "clip-failed", "provider-away", "provider-refused"),
    ),
    Route(
        "POST", "/api/cloudflare/upload-to-r2", prior.upload_to_r2, "Ask that a video's MP4 be written to the bucket",
        body=(s.VideoRequest,), success=(200, s.PriorAnswer), once=True,
        problems=(*_PRIOR, "upload-under-way", "clip-failed"),
    ),
    Route(
        "POST", "/api/cloudflare/poll-mp4-status", prior.poll_mp4_status, "Show where a video's MP4 is",
        body=(s.VideoRequest,), success=(200, s.Mp4Answer), problems=(*_PRIOR, "provider-away", "provider-refused"),
    ),
    Route(
        "POST", "/api/cloudflare/delete-video", prior.delete_video, "Ask that a video be deleted and its clip end",
        body=(s.VideoRequest,), success=(200, s.PriorAnswer), once=True, problems=_PRIOR,
    ),
    Route(
        "POST", "/api/videos/upload", uploads.take_upload, "Send a file to be cut", takes_file=True,
        parameters=(_text("uploadId", "the id of the upload; a new one when left out"),),
        problems=("bad-request", "too-large", "too-slow", "unsupported-media", "invalid", "upload-differs", "no-space",
                  "cutting-is-off"),
    ),
    Route("OPTIONS", "/api/videos/tus", tus.show_options, "What resumable uploads can do",
          success=(204, None)),
    Route(
        "POST", "/api/videos/tus", tus.create, "Begin a resumable upload of a file to be cut", success=(201, None),
        problems=("invalid", "wrong-tus", "too-large", "no-space", "upload-differs", "cutting-is-off"),
    ),
    Route(
        "HEAD", "/api/videos/tus/{id}", tus.show_offset, "Show how much of an upload has arrived",
        problems=("wrong-tus", "unknown-upload", "cutting-is-off"),
    ),
    Route(
        "PATCH", "/api/videos/tus/{id}", tus.append, "Send the next piece of a file", takes_file=True,
        success=(204, None),
        problems=("wrong-tus", "unknown-upload", "wrong-offset", "upload-busy", "too-large", "no-space", "too-slow",
                  "unsupported-media", "invalid", "cutting-is-off"),
    ),
    Route(
        "DELETE", "/api/videos/tus/{id}", tus.terminate, "Give an unfinished upload up", success=(204, None),
        problems=("wrong-tus", "unknown-upload", "cutting-is-off"),
    ),
    Route(
        "POST", "/api/process-video", processing.process_video, "Cut an upload into clips",
        body=(processing.ProcessVideo,), once=True, problems=(*_BODY, "unknown-upload", "cutting-is-off"),
    ),
    Route("GET", "/api/jobs/{id:.*}/status", status.show_job, "Show where a job stands; never 404"),
    Route("GET", "/api/v1/jobs/{id:.*}/status", status.show_job_v1, "The same in the words of version 1"),
    Route(
        "GET", "/outputs/{id}/{name}", outputs.show_output, "A finished clip of a job",
        guard=Guard.OPEN, media_type="video/mp4", problems=("not-found", "cutting-is-off"),
    ),
    Route(
        "GET", "/api/health/unified", jobs_health.show_unified_health, "Show everything that cutting needs",
        guard=Guard.OPEN,
    ),
    Route(
        "GET", "/healthz", health.show_health, "Say that the process answers",
        guard=Guard.OPEN, success=(200, s.Health),
    ),
    Route(
        "GET", "/readyz", health.show_readiness, "Say whether calls can be served",
        guard=Guard.OPEN, success=(200, s.Readiness), problems=("not-ready-yet",),
    ),
    Route(
        "GET", "/metrics", metrics.show_metrics, "Show figures for Prometheus",
        guard=Guard.OPEN, media_type="text/plain",
    ),
    Route(
        "GET", "/api/openapi.json", openapi.show_document, "Show this reference for programs",
        guard=Guard.OPEN, etag=True,
    ),
    Route(
        "GET", "/api/docs", docs_page.show_docs, "Show this reference for people",
        guard=Guard.OPEN, media_type="text/html",
    ),
)  # fmt: skip

PAGE_ROUTES = (
    Route("GET", "/", board_page.show_board, "The clips", is_api=False),
    Route("GET", "/retry", retry_page.show_retry, "What trying failed clips again would do", is_api=False),
    Route("POST", "/retry", retry_page.take_retry, "Try failed clips again", is_api=False),
    Route("GET", "/upload", upload_page.show_upload, "Upload", is_api=False),
    Route("POST", "/upload", upload_page.take_address, "Upload from an address", is_api=False),
    Route("GET", "/cut", cut_page.show_cut, "Cut a video", is_api=False),
    Route("GET", "/clips/{id}", clip_page.show_page, "One clip", is_api=False),
    Route("POST", "/clips/{id}/retry", actions.retry, "Try again", is_api=False),
    Route("POST", "/clips/{id}/delete", actions.delete, "Delete", is_api=False),
    Route("POST", "/clips/{id}/deliveries/{delivery}/replay", actions.replay, "Replay", is_api=False),
    Route("GET", "/sign-in", sign_in.show_form, "Sign in", guard=Guard.OPEN, is_api=False),
    Route("POST", "/sign-in", sign_in.take_token, "Sign in", guard=Guard.OPEN, is_api=False),
    Route("POST", "/sign-out", sign_in.sign_out, "Sign out", guard=Guard.OPEN, is_api=False),
    Route("POST", "/theme", theme.choose_theme, "Choose light or dark", guard=Guard.OPEN, is_api=False),
    Route("GET", "/assets/{version}/{name}", assets.show_asset, "A file for browsers", guard=Guard.OPEN, is_api=False),
    Route("GET", "/favicon.ico", assets.show_asset, "The icon", guard=Guard.OPEN, is_api=False),
)

ROUTES = API_ROUTES + PAGE_ROUTES
