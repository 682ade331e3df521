"""A clip, its history and what waits for it, as lines for people; every line is clean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.commands.printing import cut, fill, moment, painted, plain, table
from orchestrator.explaining import spell
from orchestrator.storage.clips import Clip, Event
from orchestrator.web.views import message_of, reason_of
from signals import PendingSignal

# As wide as the longest label.
_LABEL_CELLS = 16
# A document of 64 KiB is for `--json`; these many lines of it are for reading.
_DETAILS_SHOWN = 40
_DETAIL_CELLS = 200

# The columns people ask for, and what they are called.
_COLUMNS = (
    ("title", "title"),
    ("pipeline", "pipeline"),
    ("attempt", "attempt"),
    ("video", "cloudflare_uid"),
    ("duration", "duration"),
    ("file size", "file_size"),
    ("file", "r2_url"),
    ("MP4", "mp4_url"),
    ("HLS", "hls_url"),
    ("DASH", "dash_url"),
    ("thumbnail", "thumbnail_url"),
    ("error", "error_message"),
    ("upload ends", "upload_expires_at"),
    ("uploaded", "uploaded_at"),
    ("created", "created_at"),
    ("changed", "updated_at"),
    ("completed", "completed_at"),
)


def list_row(clip: Clip, now: datetime) -> tuple[str, str, str, str, str]:
    """One line of the list: id, status, progress, time at the status, title and what went wrong."""
    title = clip.title or "-"
    told = f"{title}  ({clip.error_message})" if clip.error_message else title
    return clip.id, clip.status, f"{clip.progress:g}", spell(now - clip.status_since), told


def clip_lines(clip: Clip, sentence: str) -> list[str]:
    """The clip in words: where it stands, why, and what is known of it."""
    message = message_of(clip.pipeline, clip.status)
    lines = [
        f"{plain(clip.id)}  {painted(clip.status)}  {clip.progress:g} %  {plain(message)}",
        plain(sentence),
        "",
    ]
    lines += [_labelled(label, _shown(name, getattr(clip, name))) for label, name in _COLUMNS if _has(clip, name)]
    return lines + _detail_lines(clip.processing_details)


def _has(clip: Clip, name: str) -> bool:
    return getattr(clip, name) is not None


def _shown(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return f"{moment(value)} UTC"
    if name == "file_size":
        return f"{value:,} bytes"
    return f"{value:g} s" if name == "duration" else str(value)


def _labelled(label: str, value: str) -> str:
    return f"  {fill(cut(plain(label), _LABEL_CELLS), _LABEL_CELLS)}  {plain(value)}"


def _detail_lines(details: Mapping[str, Any]) -> list[str]:
    """The clip's document, a line each; written by everybody who signals."""
    shown = sorted(details)[:_DETAILS_SHOWN]
    lines = [f"  {plain(str(name))}: {cut(plain(str(details[name])), _DETAIL_CELLS)}" for name in shown]
    left = len(details) - len(shown)
    more = [f"  and {left} more; --json shows them all"] if left else []
    return ["", "Details", *lines, *more] if details else []


def event_lines(events: Sequence[Event]) -> list[str]:
    """The history, oldest first, refused requests among it."""
    rows = [
        (moment(event.at), str(event.attempt), event.kind, _where(event), event.source, reason_of(event.details) or "")
        for event in events
    ]
    return ["History", *table(("AT (UTC)", "TRY", "WHAT", "STATUS", "BY", "WHY"), rows)] if rows else []


def _where(event: Event) -> str:
    return " > ".join(status for status in (event.from_status, event.to_status) if status) or "-"


def pending_lines(pending: Iterable[PendingSignal]) -> list[str]:
    """What has been asked and not judged."""
    rows = [(moment(signal.at), str(signal.attempt), signal.requested_status, signal.source) for signal in pending]
    return ["", "Waiting to be judged", *table(("AT (UTC)", "TRY", "ASKS FOR", "BY"), rows)] if rows else []
