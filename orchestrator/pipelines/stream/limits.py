"""The limits of the stream pipeline: each stay several times what the slowest clip needs (30 GB, 10 hours of video)."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.pipelines.limits import Limit, Limits

LIMITS: Limits = {
    # Nobody but its owner can send a clip's bytes, and a second wait for them would be as vain.
    "uploading": Limit(timedelta(hours=48), heals=False),
    # The provider queues and encodes what it has once; a new attempt would only wait for the same again.
    "queued": Limit(timedelta(hours=6), heals=False),
    "processing": Limit(timedelta(hours=12), heals=False),
    "stream_ready": Limit(timedelta(hours=3)),
    "waitformp4": Limit(timedelta(hours=6)),
    "mp4_processing": Limit(timedelta(hours=6)),
    "mp4downloading": Limit(timedelta(hours=6)),
    "r2_uploading": Limit(timedelta(hours=12)),
}

# Of the provider's reasons for an error, those that a new copy from the same address may not meet again. The others
# (no video, too long, too short, broken) are about the file.
PASSING_ERRORS = frozenset({"ERR_FETCH_ORIGIN_ERROR", "ERR_UNKNOWN"})
