"""The faults that a lane's runs must really have met, each in every place where it can bite."""

from __future__ import annotations

_STATUSES = (
    "uploading",
    "queued",
    "processing",
    "stream_ready",
    "waitformp4",
    "mp4_processing",
    "mp4downloading",
    "r2_uploading",
    "complete",
    "error",
)
# What is sent to the database often enough that each fate must have met it.
_STATEMENTS = (
    "connect",
    "begin",
    "commit",
    "savepoint",
    "release",
    "take_lease",
    "renew_lease",
    "release_lease",
    "read_due",
    "page_signals",
    "lock_clips",
    "write_moves",
    "take_calls",
    "claim_key",
    "signals_together",
    "notify",
    "listen",
)
_FATES = ("refused before", "applied late", "reply lost", "reply never comes", "slow", "black hole")

# By fault: the statuses of the clips that stood there when it came, or the calls it met.
_PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("kill", "pause", "stop", "database restart", "api block", "cut connections"), _STATUSES),
    **dict.fromkeys(("clock jump", "forged webhook", "stale signal"), _STATUSES),
    **{f"database {fate}": _STATEMENTS for fate in _FATES},
    "notification lost": ("orchestrator_wake",),
    "webhook": _STATUSES[:7],
    **dict.fromkeys(("webhook lost", "webhook late", "webhook doubled"), ("uploading", "queued", "processing")),
    "person asks for error": ("uploading", "queued", "processing", "stream_ready", "mp4_processing", "complete"),
    "person asks for delete": ("uploading", "queued", "processing", "stream_ready", "mp4_processing", "complete"),
    "person asks for status": ("uploading", "queued", "processing", "stream_ready", "mp4_processing", "complete"),
    "person asks for retry": ("error", "uploading", "complete"),
    **dict.fromkeys(
        ("bucket answers 429", "bucket answers 500", "bucket answers 503", "bucket breaks off", "bucket is silent"),
        ("part", "complete"),
    ),
    "bucket breaks off, done": ("create", "part", "complete"),
    "bucket is slow after": ("create", "part", "complete"),
    "bucket fault": ("mp4downloading", "r2_uploading"),
    **dict.fromkeys(
        ("delivery answers 200", "delivery breaks off", "delivery is silent", "delivery is slow after"),
        ("probe", "span"),
    ),
    "delivery fault": ("mp4downloading", "r2_uploading"),
    "stream answers 429": ("list", "get_downloads", "direct_upload"),
    **dict.fromkeys(
        ("stream breaks off", "stream breaks off, done", "stream is silent", "stream is slow after", "stream drips"),
        ("list", "get_downloads", "enable_download"),
    ),
    "stream cuts its document": ("list", "get_downloads", "enable_download"),
    "stream answers 200": ("list", "get_downloads"),
    "stream fault": ("uploading", "stream_ready", "waitformp4", "mp4_processing"),
    **dict.fromkeys(
        ("connection refused", "connection black hole", "connection cut", "connection slow"),
        ("api.stream.example", "web"),
    ),
}

EXPECTED = frozenset(f"{fault} @ {place}" for fault, places in _PLACES.items() for place in places)
