"""A clip as others see it: the columns of its row, and what follows from them for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from orchestrator.identifiers import minted_at
from orchestrator.storage.clips import Clip, Event, Standing
from orchestrator.web.schemas import State
from statusutils import COMPLETE, ERROR, TABLES, get_status_message
from statusutils.transitions import NEEDS_EVIDENCE, RULES

# What an id can be at all; nothing else is asked of the database.
CLIP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A row is written before its id is told. Ten minutes cover a database that catches up after a failover.
_MAY_STILL_APPEAR = timedelta(minutes=10)
# Clocks of several web processes differ by less.
_CLOCK_SKEW = timedelta(minutes=1)
_RULE_SENTENCES = {rule.name: rule.sentence for rule in RULES} | {
    NEEDS_EVIDENCE: "it states something about the outside; the monitor looks for itself first"
}

_SHOWN = (
    "id", "pipeline", "cloudflare_uid", "title", "status", "processing_details", "attempt", "duration", "file_size",
    "thumbnail_url", "hls_url", "dash_url", "mp4_url", "r2_url", "error_message", "uploaded_at", "completed_at",
    "created_at", "updated_at", "upload_expires_at", "status_since", "look_at", "tries", "pending", "version",
)  # fmt: skip


def state_of(pipeline: str, status: str) -> State:
    """The one word for programs: a status name differs by pipeline, this does not."""
    if status == COMPLETE:
        return "done"
    if status == ERROR:
        return "failed"
    table = TABLES.get(pipeline)
    return "pending" if table is not None and status == table.first.name else "running"


def is_terminal(status: str) -> bool:
    """Whether the clip stays where it is unless somebody acts."""
    return status in (COMPLETE, ERROR)


def message_of(pipeline: str, status: str, error_message: str | None = None) -> str:
    """The sentence people see."""
    table = TABLES.get(pipeline)
    if table is None or status not in table:
        # Written by a newer version of this program.
        return status
    message = get_status_message(status, table)
    return f"{message}: {error_message}" if status == ERROR and error_message else message


def clip_as_json(clip: Clip) -> dict[str, Any]:
    """The document of one clip."""
    document = {name: _plain(getattr(clip, name)) for name in _SHOWN}
    return document | {
        "state": state_of(clip.pipeline, clip.status),
        "progress": clip.progress,
        "message": message_of(clip.pipeline, clip.status, clip.error_message),
        "terminal": is_terminal(clip.status),
    }


def status_as_json(clip: Standing, eta_seconds: float | None) -> dict[str, Any]:
    """The short document for those who poll."""
    return {
        "id": clip.id,
        "known": True,
        "status": clip.status,
        "state": state_of(clip.pipeline, clip.status),
        "progress": clip.progress,
        "message": message_of(clip.pipeline, clip.status, clip.error_message),
        "terminal": is_terminal(clip.status),
        "error": (clip.error_message or "Failed") if clip.status == ERROR else None,
        "eta_seconds": eta_seconds,
        "updated_at": _plain(clip.updated_at),
    }


def unknown_as_json(clip_id: str, now: datetime) -> dict[str, Any]:
    """The same for an id without a row; its message tells a wrong id from one not seen yet."""
    message, _ = why_unknown(clip_id, now)
    return {
        "id": clip_id[:128],
        "known": False,
        "status": None,
        "state": "pending",
        "progress": 0.0,
        "message": message,
        "terminal": False,
        "error": None,
        "eta_seconds": None,
        "updated_at": None,
    }


def why_unknown(clip_id: str, now: datetime) -> tuple[str, bool]:
    """Why nothing is known of an id, and whether waiting may help."""
    minted = minted_at(clip_id)
    if minted is None or minted > now + _CLOCK_SKEW:
        return "This id was never issued here; check it for a typing error", False
    if now - minted < _MAY_STILL_APPEAR:
        return "Not seen yet; it may appear in a moment", True
    return f"Issued on {minted:%Y-%m-%d %H:%M} UTC, but there is no such clip here", False


def event_as_json(event: Event) -> dict[str, Any]:
    """One line of the history."""
    return {name: _plain(getattr(event, name)) for name in Event.__slots__} | {"reason": reason_of(event.details)}


def reason_of(details: Mapping[str, Any]) -> str | None:
    """Why it happened, in a sentence, from what the monitor left in the details."""
    for name in ("reason", "sentence", "error_message", "message"):
        if isinstance(details.get(name), str):
            return str(details[name])
    rule = details.get("rule")
    return _RULE_SENTENCES.get(rule, rule) if isinstance(rule, str) else None


def json_response(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """*document* as JSON; never kept by caches, unless *headers* say so."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return web.Response(
        status=status,
        body=body,
        headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", **(headers or {})},
    )


def unchanged(request: web.Request, tag: str) -> web.Response | None:
    """The 304 for a caller who has what *tag* stands for; None for all others."""
    if matches_etag(request.headers.get("If-None-Match", ""), tag):
        return web.Response(status=304, headers=_versioned(tag))
    return None


def versioned_response(tag: str, document: Mapping[str, Any]) -> web.Response:
    """*document* with its ETag."""
    return json_response(document, headers=_versioned(tag))


def _versioned(tag: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}


def matches_etag(header: str, tag: str) -> bool:
    """Whether an If-None-Match header names *tag*; weak and strong count alike for a GET."""
    return bool(header) and (
        header.strip() == "*" or any(part.strip().removeprefix("W/") == f'"{tag}"' for part in header.split(","))
    )


def _plain(value: Any) -> Any:
    """Times as RFC 3339 in UTC, everything else as it is."""
    return timestamp(value) if isinstance(value, datetime) else value


def timestamp(value: datetime) -> str:
    """RFC 3339 in UTC with milliseconds; infinity, which a date cannot tell, as it is."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def timestamp_or_none(value: datetime | None) -> str | None:
    """The same where there may be none."""
    return None if value is None else timestamp(value)
