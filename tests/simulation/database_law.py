"""What the triggers and the checks of the tables do, as `migrations/law.sql` has it, over rows of Python.

The status tables are the law's own; the rest is compared with PostgreSQL by the lane *sql*, step by step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from orchestrator.storage.clips import COLUMNS
from simulation.database_locks import Blocked, Mode
from simulation.database_rows import (
    MISSING,
    as_text,
    holds_number_beyond,
    is_deeper_than,
    is_surely_small,
    jsonb_bytes,
    same_json,
    to_attempt,
    to_progress,
)
from simulation.database_server import Session, Values
from statusutils import ERROR, TABLES, is_valid_status_transition
from statusutils.progress import span

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FLOORS = {
    (table.pipeline, status.name): tuple(to_progress(bound) for bound in span(status.name, table))
    for table in TABLES.values()
    for status in table.statuses
}
_ORDERS = {(table.pipeline, status.name): status.order for table in TABLES.values() for status in table.statuses}
_MOVES = {
    (table.pipeline, old.name, new.name)
    for table in TABLES.values()
    for old in table.statuses
    for new in table.statuses
    if is_valid_status_transition(old.name, new.name, table)
}
_ENDS = ("complete", "error")
CLIP_COLUMNS = (*(name.strip() for name in COLUMNS.split(",")), "source_url")
# Those first that change most often: a comparison ends at the first difference.
_OFTEN = ("epoch", "look_at", "tries", "pending", "status", "progress", "attempt")
_REST = (*_OFTEN, *(name for name in CLIP_COLUMNS if name not in (*_OFTEN, "processing_details")))


def refused(constraint: str, text: str) -> asyncpg.CheckViolationError:
    """A check violation that names its constraint."""
    problem = asyncpg.CheckViolationError(text)
    problem.constraint_name = constraint
    return problem


def not_unique(constraint: str) -> asyncpg.UniqueViolationError:
    """A unique violation that names its constraint."""
    problem = asyncpg.UniqueViolationError(f'duplicate key value violates unique constraint "{constraint}"')
    problem.constraint_name = constraint
    return problem


def to_json_time(moment: datetime) -> str:
    """A moment as ``to_jsonb`` writes it."""
    return moment.isoformat()


# --- Statements on clips go through these two ------------------------------------------------------------


def insert_clip(session: Session, given: Mapping[str, Any]) -> Values:
    """INSERT INTO clips: the row as it is after the triggers."""
    now = session.now()
    row: Values = dict.fromkeys(CLIP_COLUMNS)
    row |= {
        "pipeline": "stream", "processing_details": {}, "attempt": 1, "created_at": now, "updated_at": now,
        "status_since": now, "look_at": now, "tries": 0, "pending": 0, "epoch": 0, "version": 1,
    }  # fmt: skip
    row |= given
    begin_at_the_beginning(session, row)
    _check(row)
    enter(session, "clips", "clips_pkey", row["id"], row["id"])
    if row["cloudflare_uid"] is not None:
        _claim_uid(session, row)
    session.put("clips", row["id"], row)
    _announce(session, row)
    return row


def update_clip(session: Session, old: Values, changes: Mapping[str, Any]) -> Values:
    """UPDATE clips, of a row whose lock is held: the row as it is after the trigger."""
    new = {**old, **changes}
    if new["progress"] is not old["progress"]:
        new["progress"] = to_progress(new["progress"])
    _obey(session, old, new)
    _check(new)
    if new["cloudflare_uid"] != old["cloudflare_uid"] and new["cloudflare_uid"] is not None:
        _claim_uid(session, new)
    session.put("clips", new["id"], new)
    return new


def enter(session: Session, table: str, constraint: str, key: Any, value: Any) -> None:
    """Make sure that nobody has, or is about to have, a row with this key."""
    session.lock(constraint, value, Mode.UPDATE)
    if session.get(table, key) is not None:
        _wait_for_its_change(session, table, key)
        raise not_unique(constraint)


def _wait_for_its_change(session: Session, table: str, key: Any) -> None:
    """A row that somebody is changing or deleting may be another one soon: who meets it as a duplicate waits."""
    for other in session.server.sessions:
        if other is not session and key in other.changes.get(table, ()):
            raise Blocked((table, key), Mode.NO_KEY_UPDATE)


def _claim_uid(session: Session, row: Values) -> None:
    session.lock("clips_cloudflare_uid_key", row["cloudflare_uid"], Mode.UPDATE)
    for other in session.all("clips"):
        if other["cloudflare_uid"] == row["cloudflare_uid"] and other["id"] != row["id"]:
            _wait_for_its_change(session, "clips", other["id"])
            raise not_unique("clips_cloudflare_uid_key")


# --- The triggers ----------------------------------------------------------------------------------------


def begin_at_the_beginning(session: Session, row: Values) -> None:
    law = TABLES.get(row["pipeline"])
    if law is None:
        raise refused("unknown-pipeline", f"unknown pipeline {row['pipeline']}")
    first = law.first
    floor = _FLOORS[law.pipeline, first.name][0]
    row["status"] = row["status"] or first.name
    row["progress"] = floor if row["progress"] is None else to_progress(row["progress"])
    if (row["status"], row["progress"], row["attempt"]) != (first.name, floor, 1):
        raise refused("starts-elsewhere", f"a new clip starts at {first.name} with progress {floor} in attempt 1")
    doc = row["processing_details"]
    if row["source_url"] is not None and type(doc) is dict:
        doc = {**doc, "has_source_url": True}
    _check_document(doc, is_from_outside=True)
    row["pending"] = 0
    doc = _without_request(doc)
    asked = doc.get("requested_status") if type(doc) is dict else None
    if asked is not None:
        row["pending"] = 1
        doc = {
            **doc,
            "requested_attempt": 1,
            "status_request_time": doc.get("status_request_time", MISSING),
        }
        if doc["status_request_time"] is MISSING:
            doc["status_request_time"] = to_json_time(session.now())
    row["processing_details"] = doc


def _announce(session: Session, row: Values) -> None:
    doc = row["processing_details"]
    author = as_text(doc.get("created_by"))
    author = ("api" if author is None else author)[:100]
    add_event(
        session, clip_id=row["id"], kind="created", attempt=1, from_status=None, to_status=row["status"],
        progress=row["progress"], source=author, details={},
    )  # fmt: skip
    if row["pending"] > 0:
        add_signal(session, row["id"], 1, (as_text(doc["requested_status"]) or "")[:100], author, {})


def add_event(session: Session, **columns: Any) -> None:
    """INSERT INTO clip_events."""
    number = session.next_id("clip_events")
    session.put("clip_events", number, {"id": number, "at": session.now(), **columns})


def add_signal(
    session: Session, clip_id: str, attempt: int, status: str, source: str, details: Any,
    *, observed: bool = False, insists: bool = False, hearsay: bool = False,
) -> None:  # fmt: skip
    """INSERT INTO clip_signals."""
    number = session.next_id("clip_signals")
    row = {
        "id": number, "clip_id": clip_id, "attempt": attempt, "requested_status": status, "source": source,
        "details": details, "observed": observed, "insists": insists, "hearsay": hearsay, "at": session.now(),
    }  # fmt: skip
    session.put("clip_signals", number, row)


def _without_request(doc: Any) -> Any:
    if type(doc) is dict and "request" in doc:
        return {key: value for key, value in doc.items() if key != "request"}
    return doc


def _check_document(doc: Any, *, is_from_outside: bool) -> None:
    if is_deeper_than(doc, 33):
        raise refused("processing_details_is_shallow", "processing_details is nested more than 32 levels deep")
    if is_surely_small(doc):
        return
    if holds_number_beyond(doc, 1e300):
        raise refused("processing_details_has_plain_numbers", "processing_details holds a number beyond 1e300")
    if is_from_outside:
        request = doc.get("request", MISSING) if type(doc) is dict else MISSING
        if jsonb_bytes(_without_request(doc)) > 49152 or (request is not MISSING and jsonb_bytes(request) > 49152):
            raise refused("processing_details_is_bounded", "processing_details would have more than 48 KiB")


def _obey(session: Session, old: Values, new: Values) -> None:
    if (new["id"], new["pipeline"], new["created_at"]) != (old["id"], old["pipeline"], old["created_at"]):
        raise refused("identity", "id, pipeline and created_at of a clip never change")
    if new["epoch"] < old["epoch"]:
        raise refused("stale-epoch", f"epoch {new['epoch']} is over, the clip was written in {old['epoch']}")
    if (new["status"], new["attempt"], new["progress"]) != (old["status"], old["attempt"], old["progress"]):
        _check_move(old, new)
    doc = new["processing_details"]
    if not same_json(doc, old["processing_details"]):
        is_from_outside = not any(new[name] != old[name] for name in _REST)
        _check_document(doc, is_from_outside=is_from_outside)
        if is_from_outside and new["look_at"] is None:
            new["look_at"] = session.now()
        _take_request(session, new, old["processing_details"])
    new["version"] = old["version"] + 1
    new["updated_at"] = max(session.now(), old["updated_at"])


def _check_move(old: Values, new: Values) -> None:
    pipeline, status, progress = new["pipeline"], new["status"], new["progress"]
    if new["attempt"] == old["attempt"]:
        if status != old["status"] and (pipeline, old["status"], status) not in _MOVES:
            raise refused("backward", f"a clip may not move from {old['status']} to {status}")
        if progress < old["progress"] or (status == ERROR and progress != old["progress"]):
            raise refused("progress-falls", f"progress may not go from {old['progress']} to {progress} at {status}")
    elif new["attempt"] != old["attempt"] + 1 or old["status"] != ERROR or status in _ENDS:
        raise refused("attempt", f"attempt {new['attempt']} cannot open at {status}")
    bounds = _FLOORS.get((pipeline, status))
    if bounds is None or (status != ERROR and not bounds[0] <= progress <= bounds[1]):
        raise refused("progress-span", f"progress {progress} does not belong to status {status}")


def _take_request(session: Session, clip: Values, before: Any) -> None:
    doc = clip["processing_details"]
    request = doc.get("request", MISSING) if type(doc) is dict else MISSING
    doc = _without_request(doc)
    clip["processing_details"] = doc
    asked = as_text(doc.get("requested_status")) if type(doc) is dict else None
    if asked is None:
        return
    asked = asked[:100]
    if request is MISSING and clip["pending"] > 0 and _is_the_same_request(doc, before):
        return
    if type(request) is not dict:
        request = {}
    attempt = to_attempt(request.get("attempt"))
    if attempt is None and not _same_key(doc, before, "requested_attempt"):
        attempt = to_attempt(doc.get("requested_attempt"))
    if attempt is None:
        attempt = clip["attempt"]
    details = request.get("details")
    source = as_text(request.get("source"))
    add_signal(
        session,
        clip["id"],
        attempt,
        asked,
        ("unknown" if source is None else source)[:100],
        details if type(details) is dict else {},
        insists=request.get("insists") is True,
        hearsay=request.get("hearsay") is True,
    )
    clip["pending"] += 1
    doc = {**doc, "requested_attempt": attempt}
    if "status_request_time" not in doc:
        doc["status_request_time"] = to_json_time(session.now())
    shown = as_text(before.get("requested_status"))
    if shown is not None and clip["pending"] > 1:
        shown_attempt = to_attempt(before.get("requested_attempt"))
        there = (clip["attempt"] if shown_attempt is None else shown_attempt, _order(clip, shown))
        if there > (attempt, _order(clip, asked)):
            doc["requested_status"] = before.get("requested_status")
            doc["requested_attempt"] = before.get("requested_attempt")
            doc["status_request_time"] = before.get("status_request_time")
    clip["processing_details"] = doc


def _is_the_same_request(doc: Any, before: Any) -> bool:
    return _same_key(doc, before, "requested_status") and _same_key(doc, before, "status_request_time")


def _same_key(doc: Any, before: Any, key: str) -> bool:
    return same_json(doc.get(key, MISSING), before.get(key, MISSING))


def _order(clip: Values, status: str) -> int:
    return _ORDERS.get((clip["pipeline"], status), 0)


# --- The checks of the table -----------------------------------------------------------------------------


def _check(row: Values) -> None:
    """The table's CHECKs, in the order in which PostgreSQL looks: by their names."""
    doc = row["processing_details"]
    if row["cloudflare_uid"] is not None and not _ID.fullmatch(row["cloudflare_uid"]):
        raise refused("clips_cloudflare_uid_check", "a cloudflare_uid may not look like that")
    if not _ID.fullmatch(row["id"]):
        raise refused("clips_id_check", "an id may not look like that")
    if not 0 <= row["progress"] <= 100:
        raise refused("clips_progress_check", "progress is 0 to 100")
    if row["source_url"] is not None and len(row["source_url"]) > 4096:
        raise refused("clips_source_url_check", "source_url is too long")
    if row["title"] is not None and len(row["title"]) > 500:
        raise refused("clips_title_check", "title is too long")
    if not 0 <= row["pending"] <= 1000:
        raise refused("pending_signals_are_bounded", "too many signals are pending")
    if type(doc) is not dict:
        raise refused("processing_details_is_an_object", "processing_details is no object")
    if not is_surely_small(doc) and jsonb_bytes(doc) > 65536:
        raise refused("processing_details_is_bounded", "processing_details is too large")
    if row["status"] not in _ENDS and row["look_at"] is None:
        raise refused("unfinished_clips_are_looked_at", "an unfinished clip is always looked at again")
