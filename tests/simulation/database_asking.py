"""The statements of those who ask, and of those who read, over simulated rows: signals, new clips, Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from operator import itemgetter
from typing import Any

from signals import WAKE_CHANNEL
from simulation.database_law import insert_clip, to_json_time, update_clip
from simulation.database_locks import Mode
from simulation.database_monitor import selected, updated
from simulation.database_rows import Row, read_json, shape, write_json
from simulation.database_server import Answer, Session, Values

_ATTEMPT = shape("attempt")
_STATUS = shape("status")
_PENDING_NAMES = ("requested_status", "attempt", "source", "at")
_PENDING = shape(*_PENDING_NAMES)
_PENDING_VALUES = itemgetter(*_PENDING_NAMES)
_WRITTEN = shape("number", "id", "pipeline", "status", "attempt")
_WHICH_NAMES = ("id", "cloudflare_uid", "pipeline", "pending")
_WHICH = shape(*_WHICH_NAMES)
_WHICH_VALUES = itemgetter(*_WHICH_NAMES)
_PENDING_MAX = 1000
_EVENT = shape("id", "at", "kind", "attempt", "from_status", "to_status", "progress", "source", "details")
_NEW_CLIP = (
    "id", "pipeline", "cloudflare_uid", "title", "processing_details", "source_url", "upload_expires_at",
)  # fmt: skip
_KEPT = timedelta(hours=24)
_ABANDONED = timedelta(seconds=60)
_FORGOTTEN_AT_ONCE = 20


# --- Signals ---------------------------------------------------------------------------------------------


def _merge(session: Session, clip_id: str, merged: Values) -> Answer:
    """UPDATE … SET processing_details = processing_details || … RETURNING attempt."""
    row = session.get("clips", clip_id)
    if row is None:
        return updated(0)
    session.lock("clips", clip_id, Mode.NO_KEY_UPDATE)
    new = update_clip(session, row, {"processing_details": {**row["processing_details"], **merged}})
    return updated(1, [Row(_ATTEMPT, (new["attempt"],))])


def signal(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, details, status, request = args
    asked = {
        "requested_status": status,
        "status_request_time": to_json_time(session.now()),
        "request": read_json(request),
    }
    return _merge(session, clip_id, {**read_json(details), **asked})


def signals_together(session: Session, args: tuple[Any, ...]) -> Answer:
    return _together(session, args, session.try_lock)


def signals_waiting(session: Session, args: tuple[Any, ...]) -> Answer:
    def lock(table: str, key: Any, mode: Mode) -> bool:
        session.lock(table, key, mode)
        return True

    return _together(session, args, lock)


def _together(session: Session, args: tuple[Any, ...], lock: Callable[[str, Any, Mode], bool]) -> Answer:
    asked: dict[str, tuple[Any, ...]] = {}
    named: set[str] = set()
    for number, clip_id, uid, status, only_in, shown, request in zip(*args, strict=True):
        given = (number, status, only_in, read_json(shown), read_json(request))
        row = session.get("clips", clip_id) if clip_id is not None else _by_uid(session, uid)
        if row is None or row["id"] in named:
            continue
        named.add(row["id"])
        if (not only_in or row["pipeline"] in only_in.split(",")) and row["pending"] < _PENDING_MAX:
            asked[row["id"]] = given
    written = []
    for clip_id in sorted(asked):
        if not lock("clips", clip_id, Mode.NO_KEY_UPDATE):
            continue
        number, status, _, shown, request = asked[clip_id]
        added = {"requested_status": status, "status_request_time": to_json_time(session.now()), "request": request}
        row = session.get("clips", clip_id)
        assert row is not None
        new = update_clip(session, row, {"processing_details": {**row["processing_details"], **shown, **added}})
        written.append(Row(_WRITTEN, (number, clip_id, new["pipeline"], new["status"], new["attempt"])))
    return updated(len(written), written)


def _by_uid(session: Session, uid: str) -> Values | None:
    return next((row for row in session.all("clips") if row["cloudflare_uid"] == uid), None)


def which_clips(session: Session, args: tuple[Any, ...]) -> Answer:
    ids, uids = args
    found = [row for row in session.all("clips") if row["id"] in ids]
    found += [
        row for row in session.all("clips") if row["cloudflare_uid"] is not None and row["cloudflare_uid"] in uids
    ]
    return selected([Row(_WHICH, _WHICH_VALUES(row)) for row in found])


def merge_details(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, details = args
    return _merge(session, clip_id, read_json(details))


def retry(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, resume_at, source = args
    row = session.get("clips", clip_id)
    if row is None:
        return updated(0)
    request = {"source": source, "attempt": row["attempt"] + 1}
    asked = {
        "requested_status": resume_at,
        "status_request_time": to_json_time(session.now()),
        "request": request,
    }
    return _merge(session, clip_id, asked)


def read_pending(session: Session, args: tuple[Any, ...]) -> Answer:
    rows = sorted(session.of_clip("clip_signals", args[0]), key=itemgetter("id"))[:1000]
    return selected([Row(_PENDING, _PENDING_VALUES(row)) for row in rows])


def wake(session: Session, args: tuple[Any, ...]) -> Answer:
    session.notify(WAKE_CHANNEL, "")
    return [], "NOTIFY"


# --- Clips and their history -----------------------------------------------------------------------------


def new_clip(session: Session, args: tuple[Any, ...]) -> Answer:
    given = dict(zip(_NEW_CLIP, args, strict=True))
    given["processing_details"] = read_json(given["processing_details"])
    row = insert_clip(session, given)
    return [Row(_STATUS, (row["status"],))], "INSERT 0 1"


def read_events(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, after, limit = args
    rows = sorted(session.of_clip("clip_events", clip_id), key=itemgetter("id"))
    return selected([_event_row(row) for row in rows if row["id"] > after][:limit])


def _event_row(row: Values) -> Row:
    values = [row[name] for name in _EVENT]
    values[6] = None if values[6] is None else float(values[6])
    values[8] = write_json(values[8])
    return Row(_EVENT, values)


# --- Live changes ----------------------------------------------------------------------------------------

_LIVE = shape(
    "id", "pipeline", "status", "progress", "error_message", "updated_at", "attempt", "version", "event_id"
)  # fmt: skip
_RESUME_MAX = 20_000
_SNAPSHOT_MAX = 500


def newest_event(session: Session, args: tuple[Any, ...]) -> Answer:
    return selected([Row(shape("coalesce"), (_newest(session),))])


def _newest(session: Session) -> int:
    return max((row["id"] for row in session.all("clip_events")), default=0)


def _live_row(session: Session, row: Values) -> Row:
    newest = max((event["id"] for event in session.of_clip("clip_events", row["id"])), default=None)
    values = [newest if name == "event_id" else row[name] for name in _LIVE]
    values[3] = float(values[3])
    return Row(_LIVE, values)


def changed_clips(session: Session, args: tuple[Any, ...]) -> Answer:
    rows = [session.get("clips", clip_id) for clip_id in dict.fromkeys(args[0])]
    return selected([_live_row(session, row) for row in rows if row is not None])


def recent_clips(session: Session, args: tuple[Any, ...]) -> Answer:
    after = max(args[0], _newest(session) - _RESUME_MAX)
    unfinished = sorted((row["id"] for row in session.all("clips") if row["look_at"] is not None), reverse=True)
    told = dict.fromkeys(row["clip_id"] for row in session.all("clip_events") if row["id"] > after)
    wanted = {**dict.fromkeys(unfinished[:_SNAPSHOT_MAX]), **dict.fromkeys(sorted(told, reverse=True)[:_SNAPSHOT_MAX])}
    return changed_clips(session, (sorted(wanted),))


# --- Idempotency-Key -------------------------------------------------------------------------------------


def claim_key(session: Session, args: tuple[Any, ...]) -> Answer:
    scope, key, call = args
    name = (scope, key)
    session.lock("idempotency_keys", name, Mode.UPDATE)
    row = session.get("idempotency_keys", name)
    now = session.now()
    if row is not None:
        age = now - row["claimed_at"]
        is_abandoned = row["status"] is None and row["call_sha256"] == call and age > _ABANDONED
        if not (age > _KEPT or is_abandoned):
            return [], "INSERT 0 0"
    new = {
        "scope": scope, "key_sha256": key, "call_sha256": call, "claimed_at": now, "status": None, "answer": None,
    }  # fmt: skip
    session.put("idempotency_keys", name, new)
    return [Row(shape("claimed_at"), (now,))], "INSERT 0 1"


def read_key(session: Session, args: tuple[Any, ...]) -> Answer:
    row = session.get("idempotency_keys", args)
    names = ("call_sha256", "status", "answer")
    return selected([] if row is None else [Row(shape(*names), [row[name] for name in names])])


def keep_answer(session: Session, args: tuple[Any, ...]) -> Answer:
    scope, key, claimed_at, status, answer = args
    row = _claimed(session, scope, key, claimed_at)
    if row is None:
        return updated(0)
    session.put("idempotency_keys", (scope, key), {**row, "status": status, "answer": answer})
    return updated(1, [Row(shape("bool"), (True,))])


def give_back_key(session: Session, args: tuple[Any, ...]) -> Answer:
    scope, key, claimed_at = args
    if _claimed(session, scope, key, claimed_at) is None:
        return [], "DELETE 0"
    session.put("idempotency_keys", (scope, key), None)
    return [], "DELETE 1"


def _claimed(session: Session, scope: str, key: bytes, claimed_at: Any) -> Values | None:
    row = session.get("idempotency_keys", (scope, key))
    if row is None or row["claimed_at"] != claimed_at or row["status"] is not None:
        return None
    session.lock("idempotency_keys", (scope, key), Mode.UPDATE)
    return row


def forget_keys(session: Session, args: tuple[Any, ...]) -> Answer:
    horizon = session.now() - _KEPT
    old = sorted(
        (row for row in session.all("idempotency_keys") if row["claimed_at"] < horizon), key=itemgetter("claimed_at")
    )
    names = [(row["scope"], row["key_sha256"]) for row in old]
    free = [name for name in names if session.try_lock("idempotency_keys", name, Mode.UPDATE)][:_FORGOTTEN_AT_ONCE]
    for name in free:
        session.put("idempotency_keys", name, None)
    return [], f"DELETE {len(free)}"
