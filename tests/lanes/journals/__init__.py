"""Journals of clips: what happened to each, and what was decided; kept beside this file, and decided anew by the lane.

    PYTHONPATH=tests:. python -m lanes.journals --write     after a change that is meant

A story is what a clip meets, minute by minute. The decisions are the program's own pure functions: the plan, the
engine's limits, the judge. A journal that reads differently means that clips under way would be treated differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from house.standing import standing_of

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.monitor.deadlines import Sight
from orchestrator.monitor.failures import Failure, after_failure
from orchestrator.monitor.judging import Signal, settle
from orchestrator.monitor.looking import _outcome
from orchestrator.monitor.moves import Move
from orchestrator.pipelines.stream.plan import NOTHING, StreamPolicy, VideoMissing, stream_pipeline
from orchestrator.pipelines.terms import Step
from orchestrator.storage.clips import Clip
from statusutils import STREAM

JOURNALS = Path(__file__).parent
START = datetime(2026, 1, 1, tzinfo=UTC)
_PIPELINE = stream_pipeline(StreamPolicy())


@dataclass(frozen=True)
class Does:
    """An effect is done, and asks for this step."""

    status: str
    facts: Any = None
    details: Any = None


@dataclass(frozen=True)
class Fails:
    """An effect fails."""

    problem: DriverError


@dataclass(frozen=True)
class Asks:
    """Somebody outside asks for a status."""

    status: str
    insists: bool = False


@dataclass(frozen=True)
class Story:
    """What a clip meets: after how many minutes, and what. Anything else than the above is seen by a look."""

    name: str
    meets: Sequence[tuple[float, Any]]
    columns: Any = None


def _video(state: str, percent: float | None = None, **more: Any) -> Video:
    return Video("u", VideoState(state), state, percent, **more)


def _download(state: str, percent: float | None = None) -> Download:
    return Download(DownloadState(state), percent, "https://d/m.mp4" if state == "ready" else None)


_READY = _video("ready", 100.0, hls_url="https://h/x.m3u8")
_AWAY = TransientError("provider_unavailable", "the provider is away")
_TAKEN = {"mp4_makes": 1, "mp4_makes_in_attempt": 1}
_TO_MP4 = (
    (0, _video("queued")),
    (1, _video("inprogress", 40.0)),
    (2, _READY),
    (3, _READY),
    (3, Does("waitformp4", details=_TAKEN)),
)
_TO_TRANSFER = (*_TO_MP4, (5, _download("ready", 100.0)), (5, None))
_DONE = Does("complete", {"r2_url": "https://b/k.mp4"})
_COPIED = Does("queued", {"cloudflare_uid": "u"}, {"copied_in_attempt": 1, "copied_from_url": True})


def _each(first: int, last: int, met: Any, step: int = 1) -> tuple[tuple[float, Any], ...]:
    """The same, over and over, by the minute."""
    return tuple((float(minute), met) for minute in range(first, last, step))


def _made(times: int) -> Does:
    return Does("waitformp4", details={**_TAKEN, "mp4_makes": times})


_CUT = Fails(TransientError("source_cut", "the line was cut"))
_KEYS = Fails(PermanentError("store_refused", "the keys are refused"))

STORIES = (
    Story("all-the-way", (*_TO_TRANSFER, (6, Does("r2_uploading")), (7, None), (8, _DONE), (9, None))),
    Story(
        "a-webhook-hastens",
        ((0, _video("queued")), (1, Asks("stream_ready")), (1, _READY), (2, Asks("queued"))),
    ),
    Story("an-outage-is-sat-out", ((0, _video("queued")), *_each(1, 700, _AWAY), (701, _READY))),
    Story("an-outage-without-end", ((0, _video("queued")), *_each(1, 60 * 79, _AWAY))),
    Story("never-encoded", _each(0, 60 * 12 + 10, _video("inprogress", 9.0))),
    Story(
        "an-upload-that-never-came",
        (*_each(0, 370, _video("pendingupload")), (371, None)),
        {"upload_expires_at": START + timedelta(hours=6)},
    ),
    Story("a-deleted-video", ((0, _video("queued")), (0.5, VideoMissing()), (2, VideoMissing()))),
    Story(
        "no-video",
        ((0, _video("error", error_code="ERR_NON_VIDEO", error_text="not a video")), (1, None)),
    ),
    Story(
        "a-copy-that-is-tried-again",
        (
            (0, None),
            (0, _COPIED),
            (1, _video("error", error_code="ERR_FETCH_ORIGIN_ERROR")),
            *_each(2, 14, None),
        ),
        {"cloudflare_uid": None, "processing_details": {"has_source_url": True}},
    ),
    Story(
        "an-mp4-that-fails-thrice",
        (
            *_TO_MP4,
            (5, _download("error")),
            (5, _made(2)),
            (6, _download("error")),
            (6, _made(3)),
            (7, _download("error")),
            (8, None),
        ),
    ),
    Story(
        "an-mp4-that-is-forgotten",
        (
            *_TO_MP4,
            (3.5, _download("absent")),
            (5, _download("absent")),
            (5, _made(2)),
            (9, _download("absent")),
            (9, _made(3)),
            (12, _download("absent")),
            (12, _made(4)),
            (15, _download("absent")),
            *_each(16, 27, None),
        ),
    ),
    Story("a-line-that-is-always-cut", (*_TO_TRANSFER, *_each(6, 21, _CUT), *_each(22, 32, None))),
    Story(
        "a-line-that-is-cut-in-every-attempt",
        (
            *_TO_TRANSFER,
            *_each(6, 21, _CUT),
            *_each(21, 32, None),
            *_each(32, 47, _CUT),
            *_each(47, 109, None),
            *_each(109, 124, _CUT),
            *_each(124, 300, None),
        ),
    ),
    Story(
        "a-transfer-that-is-refused",
        (*_TO_TRANSFER, (6, Fails(PermanentError("source_too_large", "too large"))), (17, None)),
    ),
    Story(
        "keys-that-a-person-mends",
        (*_TO_TRANSFER, *_each(6, 2500, _KEYS, 5), (2500, Does("r2_uploading")), (2501, _DONE)),
    ),
    Story(
        "stopped-by-hand-while-it-waits",
        (*_TO_TRANSFER, *_each(6, 21, _CUT), (22, Asks("error", insists=True)), *_each(23, 40, None)),
    ),
)


def journal_of(story: Story) -> str:
    """Everything that is decided in *story*, a line each."""
    values: dict[str, Any] = {one.name: None for one in fields(Clip)} | {
        "id": "c", "pipeline": "stream", "cloudflare_uid": "u", "status": STREAM.first.name, "attempt": 1, "version": 1,
        "progress": 15.0, "processing_details": {}, "tries": 0, "pending": 0, "epoch": 1, "created_at": START,
        "updated_at": START, "status_since": START, "look_at": START,
    }  # fmt: skip
    clip, lines, last = Clip(**(values | (story.columns or {}))), [], ""
    for minutes, met in story.meets:
        now = START + timedelta(minutes=minutes)
        move, effects = _decided(clip, met, now)
        line = _line(met, move, effects)
        if line != last:  # what is decided again and again is told once
            lines.append(f"{now:%d %H:%M:%S} | {line}\n")
        clip, last = _applied(clip, move, now), line
    return "".join(lines)


def _decided(clip: Clip, met: Any, now: datetime) -> tuple[Move, tuple[Any, ...]]:
    if isinstance(met, Does):
        step = Step(met.status, f"done: {met.status}", met.facts or {}, met.details or {})
        said = {"reason": step.reason, "facts": dict(step.facts), **step.details}
        return settle(
            STREAM, standing_of(clip), [Signal(1, clip.attempt, step.status, "effect", said, True, False)], now
        ), ()
    if isinstance(met, Asks):
        return settle(
            STREAM, standing_of(clip), [Signal(1, clip.attempt, met.status, "api", {}, False, met.insists)], now
        ), ()
    if isinstance(met, Fails):
        return after_failure(_PIPELINE.limits, clip, Failure("effect", met.problem, now), now), ()
    problem = met if isinstance(met, DriverError) else None
    outcome = _outcome(_PIPELINE, clip, met, Sight(_PIPELINE.look_kind(clip) != NOTHING, problem), now)
    return outcome.move, outcome.effects


def _applied(clip: Clip, move: Move, now: datetime) -> Clip:
    kept = {key: value for key, value in clip.processing_details.items() if key not in move.cleared}
    return replace(
        clip,
        **{name: value for name, value in move.facts.items() if name in Clip.__slots__},
        status=move.after.status,
        attempt=move.after.attempt,
        progress=move.after.progress,
        status_since=now if move.changes_status else clip.status_since,
        look_at=move.look_at,
        tries=clip.tries if move.tries is None else move.tries,
        processing_details=kept | dict(move.details),
    )


def _line(met: Any, move: Move, effects: Sequence[Any]) -> str:
    """What was met, where the clip stands then, and what is said of it. No waits with a chance in them."""
    entries = "; ".join(f"{entry.kind} {entry.details.get('reason', '')}" for entry in move.entries)
    doing = ", ".join(repr(effect) for effect in effects)
    said = {key: move.details[key] for key in ("error_code", "retry_at") if key in move.details}
    words = [
        _name_of(met), f"{move.after.attempt}/{move.after.status}/{move.after.progress:g}",
        entries, doing, str(said) if said else "", "rests" if move.look_at is None else "",
    ]  # fmt: skip
    return " | ".join(word for word in words if word)


def _name_of(met: Any) -> str:
    match met:
        case Video() | Download():
            return f"sees {met.state}"
        case Does():
            return f"does {met.status}"
        case Asks():
            return f"asks {met.status}"
        case Fails():
            return f"fails {met.problem.code}"
        case DriverError():
            return f"sees nothing: {met.code}"
        case _:
            return "looks" if met is None else "sees no video"


def write() -> None:
    """Keep today's journals."""
    for story in STORIES:
        (JOURNALS / f"{story.name}.txt").write_text(journal_of(story), "utf-8")
