"""What follows for a clip of the stream pipeline: a pure function of the row, what was seen, and the time.

When a clip is looked at again is `looks`'s subject; here it is said what has to be seen, and what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.drivers.cloudflare_models import Download, Video
from orchestrator.pipelines.limits import moment
from orchestrator.pipelines.stream.effects import AbandonTransfer, CopyFromUrl, DeleteVideo, EnableMp4, TransferToBucket
from orchestrator.pipelines.stream.limits import LIMITS, PASSING_ERRORS
from orchestrator.pipelines.stream.looks import (
    ADDRESS,
    CALL,
    PLACE,
    STAGES,
    Outlook,
    at_tick,
    class_of,
    dearness,
    expected_stays,
    is_at_tick,
    longest_wait,
    next_look,
    tick_of,
)
from orchestrator.pipelines.terms import LookKind, Pipeline, Plan, Step
from orchestrator.storage.clips import Clip
from orchestrator.storage.timing import NOT_BEFORE
from statusutils import COMPLETE, ERROR, STREAM


@dataclass(frozen=True, slots=True)
class VideoMissing:
    """The provider does not know the video."""


@dataclass(frozen=True, slots=True)
class NothingThere:
    """Nothing is at the MP4's address, which may have any reason."""


Seen = Video | Download | VideoMissing | NothingThere | None

NOTHING = LookKind("nothing", 500)
# The provider names no bound for ids in one list call; fifty keep the address below 2 KB.
VIDEO = LookKind("video", 50)
# There is no list of MP4s: each is a call of its own, some of them side by side.
DOWNLOAD = LookKind("download", 16)
# Whether the MP4 is at its address, which works once it is made: that asks the delivery host and costs no call.
DELIVERY = LookKind("delivery", 16)

# From so many clips a list on, one is asked for at every tick; whoever wants a look now waits for it.
CROWD = 10
# A clip that has only just come to its status was seen by whoever moved it. Any look that was planned comes later.
JUST_NOW = timedelta(seconds=2)
# The address does not tell an MP4 that failed from one that is being made. The provider is asked when nearly all others
# have been made, and again whenever twice the time has passed, up to every ten minutes.
DOUBTED_AFTER = timedelta(seconds=30)
LONGEST_DOUBT = timedelta(minutes=10)
# While an effect runs, a look only finds out whether it still does.
WHILE_WORKING = timedelta(seconds=5)
# A reserved address is removed by the provider at its own pace; the bytes may be on their way at the last moment.
EXPIRY_GRACE = timedelta(minutes=5)
# The provider's answers lag behind its creates and copies, which open a status; before that a missing video is no
# evidence.
MISSING_GRACE = timedelta(seconds=60)
# A failed MP4 is asked for afresh twice; a third failure will not heal.
MP4_MAKES = 3
# One that was taken and is not there is asked for once more: a reset of ours may have come late, and taken away what it
# was not meant for (decision 0012).
MP4_ASKS = MP4_MAKES + 1

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


def look_kind(clip: Clip, policy: StreamPolicy, outlook: Outlook) -> LookKind:
    """What has to be seen before the clip can be planned."""
    if clip.cloudflare_uid is None or _awaits_copy(clip) or clip.status not in STAGES:
        return NOTHING
    if clip.status != "stream_ready" and _has_just_come(clip, policy):
        return NOTHING
    if STAGES[clip.status] == "mp4":
        return DOWNLOAD if _is_doubtful(clip, policy, outlook) else DELIVERY
    tick = tick_of(policy.shortest_interval)
    if outlook.crowd >= CROWD and clip.look_at is not None and not is_at_tick(clip.look_at, tick):
        return NOTHING
    return VIDEO


def plan(clip: Clip, seen: Seen, now: datetime, policy: StreamPolicy, outlook: Outlook) -> Plan:
    """What should be so for *clip*, given what was *seen* of it at *now*."""
    if clip.status in (COMPLETE, ERROR):
        return _tidy_up(clip, now)
    if _awaits_copy(clip):
        effect = CopyFromUrl(clip.id, clip.attempt, clip.title)
        return Plan(look_at=now + WHILE_WORKING, effects=(effect,))
    return _PLANS[clip.status](_Case(clip, now, policy, outlook), seen)


@dataclass(frozen=True, slots=True)
class _Case:
    """One clip at one moment, and what is known of the future."""

    clip: Clip
    now: datetime
    policy: StreamPolicy
    outlook: Outlook

    def again(self, status: str | None = None, duration_seconds: float | None = None) -> datetime:
        """When to look again at a clip that stays where it is, or moves to *status* now."""
        clip, policy = self.clip, self.policy
        stage = STAGES[status or clip.status]
        stood = timedelta(0) if status not in (None, clip.status) else self.now - _began_at(clip, self.now)
        worth = (ADDRESS if stage == "mp4" else PLACE) * policy.shortest_interval.total_seconds()
        if _asks_alone(clip, stage):
            worth = CALL * policy.shortest_interval.total_seconds()
        seconds = next_look(
            max(0.0, stood.total_seconds()),
            _stays(clip, stage, policy, self.outlook, duration_seconds),
            worth * dearness(self.outlook.headroom),
        )
        longest = max(policy.shortest_interval, longest_wait(self.outlook.headroom))
        wait = max(policy.shortest_interval, min(timedelta(seconds=seconds), longest))
        at = self.now + wait
        return at if stage == "mp4" else at_tick(at, tick_of(policy.shortest_interval))

    def unseen(self) -> datetime:
        """When to look at a clip that was not looked at now: as predicted if it has just come, else with the others."""
        if (
            STAGES[self.clip.status] == "mp4"
            or _has_just_come(self.clip, self.policy)
            or self.clip.cloudflare_uid is None
        ):
            return self.again()
        return at_tick(self.now + timedelta(microseconds=1), tick_of(self.policy.shortest_interval))


def _stays(
    clip: Clip, stage: str, policy: StreamPolicy, outlook: Outlook, duration_seconds: float | None = None
) -> Sequence[float]:
    size = clip.processing_details.get("upload_size_bytes")
    is_size = isinstance(size, int) and not isinstance(size, bool)
    of_class = class_of(stage, duration_seconds or clip.duration, float(size) if is_size else None)  # type: ignore[arg-type]
    return expected_stays(outlook, stage, of_class, policy.shortest_interval.total_seconds())


def _began_at(clip: Clip, now: datetime) -> datetime:
    """When the present stage began: that of the MP4 when it was asked for, through both of its statuses."""
    return _asked_at(clip, now) if STAGES[clip.status] == "mp4" else clip.status_since


def _asks_alone(clip: Clip, stage: str) -> bool:
    """Whether each look at the clip is a call of its own: nobody reads a private video's MP4 without a token."""
    return stage == "mp4" and bool(clip.processing_details.get("require_signed_urls"))


def _has_just_come(clip: Clip, policy: StreamPolicy) -> bool:
    """Whether the clip came to its status a moment ago, and nobody has asked for a look since."""
    just_now = min(JUST_NOW, policy.shortest_interval / 2)
    if clip.look_at is None or not timedelta(0) <= clip.look_at - clip.status_since < just_now:
        return False
    asked_at = moment(clip.processing_details.get("requested_status_handled"))
    return asked_at is None or asked_at < clip.status_since


def _is_doubtful(clip: Clip, policy: StreamPolicy, outlook: Outlook) -> bool:
    """Whether the provider itself has to say what became of the MP4."""
    if _asks_alone(clip, "mp4") or clip.look_at is None:
        return True
    began_at = _asked_at(clip, clip.look_at)
    told_at = max(began_at, moment(clip.processing_details.get("mp4_seen_at")) or began_at)
    slowest = timedelta(seconds=_stays(clip, "mp4", policy, outlook)[-1])
    doubt = max(DOUBTED_AFTER, slowest) if told_at == began_at else max(DOUBTED_AFTER, told_at - began_at)
    return not timedelta(0) <= clip.look_at - told_at < min(doubt, LONGEST_DOUBT)


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


def _plan_encoding(case: _Case, seen: Seen) -> Plan:
    """`uploading`, `queued`, `processing`: wherever the provider says the video is."""
    clip, now = case.clip, case.now
    if isinstance(seen, VideoMissing):
        return _plan_missing(clip, now, case.again())
    if not isinstance(seen, Video):
        return Plan(look_at=case.unseen())
    details = _seen_details(seen, now)
    target = implied_status(seen.state)
    if target == ERROR:
        return _plan_provider_error(seen, now)
    if target == "uploading" and seen.state == "pendingupload" and _upload_is_over(clip, seen, now):
        text = "No bytes arrived before the upload address expired"
        return _failed(now, "upload_expired", text, delete_requested=True)
    if target is not None and STREAM[target].order > STREAM[clip.status].order:
        return _move_on(case, seen, target, details)
    percent = seen.percent if target == clip.status else None
    return Plan(look_at=case.again(), step_percent=percent, facts=_video_facts(seen), details=details)


def _move_on(case: _Case, seen: Video, target: str, details: Mapping[str, Any]) -> Plan:
    """A move on what was just seen; where that shows the video at full quality, its MP4 is asked for at once."""
    clip, now = case.clip, case.now
    step = Step(target, f"Cloudflare says {seen.state_raw}", _video_facts(seen), {**details, **_not_before(clip, now)})
    if target == "stream_ready" and _is_at_full_quality(seen) and clip.cloudflare_uid is not None:
        return Plan(look_at=now + WHILE_WORKING, step=step, effects=(_enable(clip, clip.cloudflare_uid),))
    return Plan(look_at=case.again(target, seen.duration_seconds), step=step)


def _not_before(clip: Clip, now: datetime) -> dict[str, str]:
    """What the history is told of the last look that saw the clip where it still is."""
    seen_at = moment(clip.processing_details.get("last_checked"))
    before = clip.status_since if seen_at is None or seen_at > now else max(seen_at, clip.status_since)
    return {NOT_BEFORE: before.isoformat()}


def _is_at_full_quality(seen: Video) -> bool:
    return seen.percent is None or seen.percent >= 100


def _enable(clip: Clip, uid: str) -> EnableMp4:
    """The first request for the MP4 in this attempt."""
    is_ours = clip.upload_expires_at is not None or bool(clip.processing_details.get("copied_from_url"))
    return EnableMp4(clip.id, clip.attempt, uid, is_fresh=is_ours and clip.attempt == 1)


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


def _plan_stream_ready(case: _Case, seen: Seen) -> Plan:
    """Wait for all renditions, for a while: an MP4 made early may be of lower quality. Then have it made."""
    clip, now = case.clip, case.now
    if isinstance(seen, VideoMissing):
        return _plan_missing(clip, now, case.again())
    if not isinstance(seen, Video) or clip.cloudflare_uid is None:
        return Plan(look_at=case.unseen())
    if seen.state == "error":
        return _plan_provider_error(seen, now)
    details = _seen_details(seen, now)
    if not _is_at_full_quality(seen) and now - clip.status_since < case.policy.full_quality_wait:
        return Plan(look_at=case.again(), step_percent=seen.percent, facts=_video_facts(seen), details=details)
    effect = _enable(clip, clip.cloudflare_uid)
    return Plan(look_at=now + WHILE_WORKING, effects=(effect,), facts=_video_facts(seen), details=details)


def _plan_mp4(case: _Case, seen: Seen) -> Plan:
    """`waitformp4`, `mp4_processing`: until the provider has made the MP4."""
    clip, now = case.clip, case.now
    if isinstance(seen, NothingThere):
        return Plan(look_at=case.again(), details={"last_checked": now.isoformat()})
    if not isinstance(seen, Download) or clip.cloudflare_uid is None:
        return Plan(look_at=case.unseen())
    details = {
        "mp4_status": seen.state,
        "mp4_percent_complete": seen.percent,
        "last_checked": now.isoformat(),
        "mp4_seen_at": now.isoformat(),
    }
    if seen.state == "ready" and seen.url:
        step = mp4_ready(seen)
        return Plan(look_at=now, step=replace(step, details={**step.details, **_not_before(clip, now)}))
    if seen.state == "error":
        return _plan_mp4_failed(clip, now, details)
    if seen.state == "absent":
        return _plan_mp4_lost(clip, now, case.again(), details)
    if clip.status == "waitformp4" and (seen.percent or 0) > 0:
        step = Step("mp4_processing", f"Cloudflare has made {seen.percent:g} % of the MP4", details=details)
        return Plan(look_at=case.again(), step=step, step_percent=seen.percent)
    return Plan(look_at=case.again(), step_percent=seen.percent, details=details)


def _plan_mp4_failed(clip: Clip, now: datetime, details: Mapping[str, Any]) -> Plan:
    made = _makes(clip)
    if made >= MP4_MAKES or clip.cloudflare_uid is None:
        return _failed(now, "mp4_failed", f"Cloudflare was asked for the MP4 {made} times and failed to make it")
    return _make_again(clip, clip.cloudflare_uid, now, details)


def _plan_mp4_lost(clip: Clip, now: datetime, again: datetime, details: Mapping[str, Any]) -> Plan:
    """It was asked for, and the provider shows none: its answer may lag behind, or it has lost the request.

    Each further request counts, whatever became of those before, so that a provider which takes them all and makes
    nothing is not asked for ever.
    """
    if now - max(_asked_at(clip, now), clip.status_since) < MISSING_GRACE:
        return Plan(look_at=again, details=details)
    made = _makes(clip)
    if made >= MP4_ASKS or clip.cloudflare_uid is None:
        text = f"Cloudflare was asked for the MP4 {made} times and has none"
        return _failed(now, "mp4_lost", text, heals=True)
    return _make_again(clip, clip.cloudflare_uid, now, details)


def _asked_at(clip: Clip, now: datetime) -> datetime:
    """When the MP4 was asked for last."""
    asked_at = moment(clip.processing_details.get("mp4_asked_at"))
    # By the clock of the process that asked, which may be a day ahead: that is no reason to wait for a day.
    return clip.status_since if asked_at is None or asked_at > now else asked_at


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


def _plan_transfer(case: _Case, seen: Seen) -> Plan:
    """`mp4downloading`, `r2_uploading`: the transfer runs, or is started again from its checkpoint."""
    clip, now = case.clip, case.now
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


_PLANS: Mapping[str, Callable[[_Case, Seen], Plan]] = {
    "uploading": _plan_encoding,
    "queued": _plan_encoding,
    "processing": _plan_encoding,
    "stream_ready": _plan_stream_ready,
    "waitformp4": _plan_mp4,
    "mp4_processing": _plan_mp4,
    "mp4downloading": _plan_transfer,
    "r2_uploading": _plan_transfer,
}


def stream_pipeline(policy: StreamPolicy, outlook: Callable[[], Outlook] = Outlook) -> Pipeline:
    """The stream pipeline under the owner's policy; *outlook* says what is known of the future at that moment."""
    return Pipeline(
        STREAM,
        LIMITS,
        lambda clip: look_kind(clip, policy, outlook()),
        lambda clip, seen, now: plan(clip, seen, now, policy, outlook()),
        resume_status,
    )


STREAM_PIPELINE = stream_pipeline(StreamPolicy())
