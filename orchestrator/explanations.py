"""What a clip waits for, as fields beside the sentence: on whom, since when, until when, and what would unblock it.

Read from the top; the first row that applies says it. The order is that of the sentence (see `explaining`): whatever
stops everything stands first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestrator.explaining import Case, Leadership, explain, retry_moment
from orchestrator.storage.clips import Clip
from orchestrator.storage.heavy_steps import StepOnHand
from statusutils import COMPLETE, ERROR

# "time" is a wait that ends by itself, "program" this one's own work, "nobody" that nothing more happens.
WaitingOn = Literal["nobody", "monitor", "person", "time", "provider", "uploader", "caller", "program", "newer version"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The sentence and its fields; times are aware UTC, by the database's clock."""

    sentence: str
    waiting_on: WaitingOn
    unblocked_by: str | None
    since: datetime
    next_look_at: datetime | None
    gives_up_at: datetime | None
    retry_at: datetime | None
    monitor_leads: bool | None
    at: datetime


@dataclass(frozen=True, slots=True)
class _Wait:
    applies: Callable[[Case], bool]
    on: WaitingOn
    unblocked_by: str | None


def _has_work(case: Case) -> bool:
    return case.clip.pending > 0 or case.clip.look_at is not None


def _is_unled(case: Case) -> bool:
    return _has_work(case) and case.leadership is not None and not case.leadership.leads


def _is_hung(case: Case) -> bool:
    return _has_work(case) and case.leadership is not None and case.leadership.hangs


def _at(*statuses: str) -> Callable[[Case], bool]:
    return lambda case: case.clip.pipeline == "stream" and case.clip.status in statuses


def _needs_bytes(case: Case) -> bool:
    fetches = case.text("cloudflare_status") == "downloading" or case.has("has_source_url")
    return _at("uploading")(case) and not fetches


WAITS = (
    _Wait(lambda case: not case.is_known, "newer version", "a newer version of this program that knows the status"),
    _Wait(_is_unled, "monitor", "a running `orchestrator monitor`"),
    _Wait(_is_hung, "monitor", "the monitor's next round, or its restart"),
    _Wait(lambda case: case.clip.pending > 0, "monitor", "the monitor's judgement of what was asked, within a second"),
    _Wait(lambda case: case.removes_video, "provider", "the removal of the video at the provider"),
    _Wait(lambda case: case.clip.status == COMPLETE, "nobody", None),
    _Wait(
        lambda case: case.clip.status == ERROR and case.resume_status is None,
        "nobody",
        "a new clip: nothing of this one is left to start from",
    ),
    _Wait(lambda case: retry_moment(case.clip) is not None, "time", "the next try, which comes by itself; or a retry"),
    _Wait(lambda case: case.clip.status == ERROR, "person", "a retry"),
    _Wait(lambda case: case.problem is not None, "time", "the next try, or whatever mends the problem"),
    _Wait(lambda case: case.waits_for_copy, "provider", "the provider's consent to fetch it"),
    _Wait(
        lambda case: _at("uploading")(case) and case.clip.cloudflare_uid is None,
        "caller",
        "a signal that names its video at the provider",
    ),
    _Wait(_needs_bytes, "uploader", "the rest of its bytes, at the upload address"),
    _Wait(_at("uploading"), "provider", "the end of the fetching at the provider"),
    _Wait(_at("queued"), "provider", "a free encoder at the provider"),
    _Wait(_at("processing", "stream_ready"), "provider", "the end of the encoding at the provider"),
    _Wait(_at("waitformp4", "mp4_processing"), "provider", "the MP4 that the provider makes"),
    _Wait(lambda case: case.waits_for_worker, "program", "a free place on a worker"),
    _Wait(_at("mp4downloading", "r2_uploading"), "program", "the end of the transfer into the bucket"),
    _Wait(lambda _: True, "program", "the end of this program's own work on it"),
)


def explanation_of(
    clip: Clip, now: datetime, leadership: Leadership | None = None, heavy_step: StepOnHand | None = None
) -> Explanation:
    """Sentence and fields for *clip* at *now*, as `explain` has them."""
    case = Case(clip, now, leadership, heavy_step)
    wait = next(row for row in WAITS if row.applies(case))
    return Explanation(
        sentence=explain(clip, now, leadership, heavy_step),
        waiting_on=wait.on,
        unblocked_by=wait.unblocked_by,
        since=clip.status_since,
        next_look_at=None if case.is_ended and not case.removes_video else clip.look_at,
        # Nobody gives up what nobody looks at.
        gives_up_at=case.gives_up_at if case.is_known and not case.is_ended and clip.look_at is not None else None,
        retry_at=retry_moment(clip),
        monitor_leads=None if leadership is None else leadership.leads,
        at=now,
    )
