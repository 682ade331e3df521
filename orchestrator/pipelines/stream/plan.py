"""What follows for a clip of the stream pipeline: a pure function of the row, what was seen, and the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.drivers.cloudflare_models import Download, Video
from orchestrator.pipelines.limits import moment
from orchestrator.pipelines.stream.effects import AbandonTransfer, CopyFromUrl, DeleteVideo, EnableMp4, TransferToBucket
from orchestrator.pipelines.stream.limits import LIMITS, PASSING_ERRORS
from orchestrator.pipelines.terms import LookKind, Pipeline, Plan, Step
from orchestrator.storage.clips import Clip
from statusutils import COMPLETE, ERROR, STREAM


@dataclass(frozen=True, slots=True)
class VideoMissing:
    """The provider does not know the video."""


Seen = Video | Download | VideoMissing | None

NOTHING = LookKind("nothing", 500)
# The provider names no bound for ids in one list call; fifty keep the address below 2 KB.
VIDEO = LookKind("video", 50)
# There is no list of MP4s: each is a call of its own.
DOWNLOAD = LookKind("download", 1)

# A look at a clip that has not moved grows rarer: an eighth of the time it has stood there, up to a minute.
LONGEST_INTERVAL = timedelta(seconds=60)
# While an effect runs, a look only finds out whether it still does.
WHILE_WORKING = timedelta(seconds=5)
# A reserved address is removed by the provider at its own pace; the bytes may be on their way at the last moment.
EXPIRY_GRACE = timedelta(minutes=5)
# The provider's answers lag behind its creates and copies, which open a status; before that a missing video is no
# evidence.
MISSING_GRACE = timedelta(seconds=60)
# A failed or forgotten MP4 is asked for afresh twice; a third failure will not heal.
MP4_MAKES = 3

# What a transfer ends with when the MP4 is not at its address: a new attempt asks the provider for it again.
_DEAD_ADDRESS = (
    "mp4_not_yet_there",
    "source_refused",
    "source_forbidden",
    "source_redirects",
    "source_address_not_allowed",
)

# The state at the provider, and the status it implies.
_IMPLIED = {
    "pendingupload": "uploading",
    "downloading": "uploading",
    "queued": "queued",
    "inprogress": "processing",
    "ready": "stream_ready",
    "error": ERROR,
}


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What the owner may turn."""

    shortest_interval: timedelta = timedelta(seconds=5)
    full_quality_wait: timedelta = timedelta(seconds=600)


def implied_status(state: str) -> str | None:
    """The status that a provider's state implies; None for a state this program does not know yet."""
    return _IMPLIED.get(state)


def look_kind(clip: Clip) -> LookKind:
    """What has to be seen before the clip can be planned."""
    if clip.cloudflare_uid is None or _awaits_copy(clip):
        return NOTHING
    if clip.status in ("uploading", "queued", "processing", "stream_ready"):
        return VIDEO
    if clip.status in ("waitformp4", "mp4_processing"):
        return DOWNLOAD
    return NOTHING


def plan(clip: Clip, seen: Seen, now: datetime, policy: StreamPolicy) -> Plan:
    """What should be so for *clip*, given what was *seen* of it at *now*."""
    if clip.status in (COMPLETE, ERROR):
        return _tidy_up(clip, now)
    if _awaits_copy(clip):
        effect = CopyFromUrl(clip.id, clip.attempt, clip.title)
        return Plan(look_at=now + WHILE_WORKING, effects=(effect,))
    return _PLANS[clip.status](clip, seen, now, policy)


def resume_status(clip: Clip) -> str | None:
    """Where a new attempt starts: the last place whose work need not be done again; None when there is no way on.

    A finished MP4 is not made again, a playable video is not encoded again. Without bytes at the provider
    there is nothing to try again from.
    """
    if clip.processing_details.get("delete_requested"):
        return None
    if clip.processing_details.get("error_code") in ("not_found_in_cloudflare", "upload_expired", "provider_error"):
        return "uploading" if clip.processing_details.get("copied_from_url") else None
    if clip.processing_details.get("has_source_url") and not clip.hls_url:
        return "uploading"
    if clip.mp4_url and not _has_dead_address(clip):
        return "mp4downloading"
    if clip.hls_url:
        return "stream_ready"
    return "uploading" if clip.cloudflare_uid else None


def _has_dead_address(clip: Clip) -> bool:
    details = clip.processing_details
    problem = details.get("last_problem")
    # What a person should have mended, and nobody did until the time was over, is told by the problem alone.
    last = problem.get("code") if isinstance(problem, Mapping) else None
    ended_by = last if details.get("error_code") == "deadline_passed" else details.get("error_code")
    return ended_by in _DEAD_ADDRESS


def _awaits_copy(clip: Clip) -> bool:
    details = clip.processing_details
    return (
        clip.status == "uploading"
        and bool(details.get("has_source_url"))
        and details.get("copied_in_attempt") != clip.attempt
    )


def _interval(clip: Clip, now: datetime, policy: StreamPolicy) -> timedelta:
    return max(policy.shortest_interval, min((now - clip.status_since) / 8, LONGEST_INTERVAL))


def _failed(now: datetime, code: str, text: str, *, heals: bool = False, **details: Any) -> Plan:
    said = {"error_code": code, "error_message": text, **details}
    return Plan(look_at=now, step=Step(ERROR, text, details=said, heals=heals))


def _tidy_up(clip: Clip, now: datetime) -> Plan:
    details = clip.processing_details
    if clip.status == ERROR and clip.mp4_url and details.get("abandoned_in_attempt") != clip.attempt:
        abandon = AbandonTransfer(clip.id, clip.attempt)
        return Plan(look_at=now + WHILE_WORKING, effects=(abandon,))
    if details.get("delete_requested") and not details.get("deleted_at") and clip.cloudflare_uid:
        effect = DeleteVideo(clip.id, clip.attempt, clip.cloudflare_uid)
        return Plan(look_at=now + WHILE_WORKING, effects=(effect,))
    return Plan(look_at=None)


def _plan_encoding(clip: Clip, seen: Seen, now: datetime, policy: StreamPolicy) -> Plan:
    """`uploading`, `queued`, `processing`: wherever the provider says the video is."""
    again = now + _interval(clip, now, policy)
    if isinstance(seen, VideoMissing):
        return _plan_missing(clip, now, again)
    if not isinstance(seen, Video):
        return Plan(look_at=again)
    details = _seen_details(seen, now)
    target = implied_status(seen.state)
    if target == ERROR:
        return _plan_provider_error(seen, now)
    if target == "uploading" and seen.state == "pendingupload" and _upload_is_over(clip, seen, now):
        text = "No bytes arrived before the upload address expired"
        return _failed(now, "upload_expired", text, delete_requested=True)
    if target is not None and STREAM[target].order > STREAM[clip.status].order:
        step = Step(target, f"Cloudflare says {seen.state_raw}", facts=_video_facts(seen), details=details)
        return Plan(look_at=now, step=step)
    percent = seen.percent if target == clip.status else None
    return Plan(look_at=again, step_percent=percent, facts=_video_facts(seen), details=details)


def _plan_missing(clip: Clip, now: datetime, again: datetime) -> Plan:
    if now - clip.status_since < MISSING_GRACE:
        return Plan(look_at=again)
    return _failed(now, "not_found_in_cloudflare", "Cloudflare no longer knows this video")


def _plan_provider_error(seen: Video, now: datetime) -> Plan:
    text = f"Cloudflare could not encode the video: {seen.error_text or seen.error_code or 'no reason given'}"
    heals = seen.error_code in PASSING_ERRORS
    said = {"provider_error_code": seen.error_code, "cloudflare_status": seen.state_raw}
    return _failed(now, "provider_error", text, heals=heals, **said)


def _upload_is_over(clip: Clip, seen: Video, now: datetime) -> bool:
    expires_at = seen.upload_expires_at or clip.upload_expires_at
    return expires_at is not None and now - EXPIRY_GRACE > expires_at


def _plan_stream_ready(clip: Clip, seen: Seen, now: datetime, policy: StreamPolicy) -> Plan:
    """Wait for all renditions, for a while: an MP4 made early may be of lower quality. Then have it made."""
    again = now + _interval(clip, now, policy)
    if isinstance(seen, VideoMissing):
        return _plan_missing(clip, now, again)
    if not isinstance(seen, Video) or clip.cloudflare_uid is None:
        return Plan(look_at=again)
    if seen.state == "error":
        return _plan_provider_error(seen, now)
    details = _seen_details(seen, now)
    at_full_quality = seen.percent is None or seen.percent >= 100
    if not at_full_quality and now - clip.status_since < policy.full_quality_wait:
        return Plan(look_at=again, step_percent=seen.percent, facts=_video_facts(seen), details=details)
    effect = EnableMp4(clip.id, clip.attempt, clip.cloudflare_uid)
    return Plan(look_at=now + WHILE_WORKING, effects=(effect,), facts=_video_facts(seen), details=details)


def _plan_mp4(clip: Clip, seen: Seen, now: datetime, policy: StreamPolicy) -> Plan:
    """`waitformp4`, `mp4_processing`: until the provider has made the MP4."""
    again = now + _interval(clip, now, policy)
    if not isinstance(seen, Download) or clip.cloudflare_uid is None:
        return Plan(look_at=again)
    details = {"mp4_status": seen.state, "mp4_percent_complete": seen.percent, "last_checked": now.isoformat()}
    if seen.state == "ready" and seen.url:
        return Plan(look_at=now, step=mp4_ready(seen))
    if seen.state == "error":
        return _plan_mp4_failed(clip, now, details)
    if seen.state == "absent":
        return _plan_mp4_lost(clip, now, again, details)
    if clip.status == "waitformp4" and (seen.percent or 0) > 0:
        step = Step("mp4_processing", f"Cloudflare has made {seen.percent:g} % of the MP4", details=details)
        return Plan(look_at=again, step=step, step_percent=seen.percent)
    return Plan(look_at=again, step_percent=seen.percent, details=details)


def _plan_mp4_failed(clip: Clip, now: datetime, details: Mapping[str, Any]) -> Plan:
    made = _makes(clip)
    if made >= MP4_MAKES or clip.cloudflare_uid is None:
        return _failed(now, "mp4_failed", f"Cloudflare failed to make the MP4 {made} times")
    return _make_again(clip, clip.cloudflare_uid, now, details)


def _plan_mp4_lost(clip: Clip, now: datetime, again: datetime, details: Mapping[str, Any]) -> Plan:
    """It was asked for, and the provider shows none: its answer may lag behind, or it has lost the request.

    Each further request counts, so that a provider which takes them all and makes nothing is not asked for ever.
    """
    asked_at = moment(clip.processing_details.get("mp4_asked_at"))
    if asked_at is None or asked_at > now:
        # By the clock of the process that asked, which may be a day ahead: that is no reason to wait for a day.
        asked_at = clip.status_since
    if now - max(asked_at, clip.status_since) < MISSING_GRACE:
        return Plan(look_at=again, details=details)
    made = _makes(clip)
    if made >= MP4_MAKES or clip.cloudflare_uid is None:
        text = f"Cloudflare took the request for the MP4 {made} times and made none"
        return _failed(now, "mp4_lost", text, heals=True)
    return _make_again(clip, clip.cloudflare_uid, now, details)


def _make_again(clip: Clip, uid: str, now: datetime, details: Mapping[str, Any]) -> Plan:
    effect = EnableMp4(clip.id, clip.attempt, uid, make=_makes(clip) + 1)
    return Plan(look_at=now + WHILE_WORKING, effects=(effect,), details=details)


def _makes(clip: Clip) -> int:
    """How often the MP4 was asked for in this attempt, at least once."""
    makes, attempt = (clip.processing_details.get(key) for key in ("mp4_makes", "mp4_makes_in_attempt"))
    return makes if isinstance(makes, int) and attempt == clip.attempt and makes > 0 else 1


def mp4_ready(download: Download) -> Step:
    """The step to fetching a finished MP4."""
    return Step(
        "mp4downloading",
        "The MP4 is ready",
        facts={"mp4_url": download.url},
        details={"mp4_status": download.state, "mp4_percent_complete": 100.0},
    )


def _plan_transfer(clip: Clip, seen: Seen, now: datetime, policy: StreamPolicy) -> Plan:
    """`mp4downloading`, `r2_uploading`: the transfer runs, or is started again from its checkpoint."""
    if clip.cloudflare_uid is None or clip.mp4_url is None:
        text = "The address of the MP4 is not known; a new attempt asks for it again"
        return _failed(now, "mp4_unknown", text, heals=True)
    effect = TransferToBucket(
        clip.id,
        clip.attempt,
        clip.cloudflare_uid,
        clip.mp4_url,
        clip.duration,
        bool(clip.processing_details.get("require_signed_urls")),
    )
    return Plan(look_at=now + WHILE_WORKING, effects=(effect,))


def _seen_details(video: Video, now: datetime) -> dict[str, Any]:
    details: dict[str, Any] = {"cloudflare_status": video.state_raw, "last_checked": now.isoformat()}
    # A private video's MP4 is read with a token; only a look tells that it is one.
    return details | ({"require_signed_urls": True} if video.require_signed_urls else {})


def _video_facts(video: Video) -> dict[str, Any]:
    facts = {
        "duration": video.duration_seconds,
        "thumbnail_url": video.thumbnail_url,
        "uploaded_at": video.uploaded_at.isoformat() if video.uploaded_at and video.state != "pendingupload" else None,
    }
    if video.state == "ready":
        facts |= {"hls_url": video.hls_url, "dash_url": video.dash_url}
    return {name: value for name, value in facts.items() if value is not None}


_PLANS: Mapping[str, Callable[[Clip, Seen, datetime, StreamPolicy], Plan]] = {
    "uploading": _plan_encoding,
    "queued": _plan_encoding,
    "processing": _plan_encoding,
    "stream_ready": _plan_stream_ready,
    "waitformp4": _plan_mp4,
    "mp4_processing": _plan_mp4,
    "mp4downloading": _plan_transfer,
    "r2_uploading": _plan_transfer,
}


def stream_pipeline(policy: StreamPolicy) -> Pipeline:
    """The stream pipeline under the owner's policy."""
    return Pipeline(STREAM, LIMITS, look_kind, partial(plan, policy=policy), resume_status)


STREAM_PIPELINE = stream_pipeline(StreamPolicy())
