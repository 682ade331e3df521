"""The monitor's statements over simulated rows: the lease, what is due, the inbox, moves, progress, effects."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import asyncpg

from orchestrator.storage.clips import COLUMNS
from simulation.database_law import add_event, add_signal, update_clip
from simulation.database_locks import Mode
from simulation.database_rows import (
    Row,
    as_text,
    jsonb_bytes,
    read_json,
    shape,
    to_bigint,
    to_float,
    to_moment,
    to_progress,
    write_json,
)
from simulation.database_server import Answer, Session, Values

EARLIEST = datetime.min
_NAMES = tuple(name.strip() for name in COLUMNS.split(","))
_CLIP = shape(*_NAMES)
_CLIP_VALUES = itemgetter(*_NAMES)
_DOCUMENT = _CLIP["processing_details"]
_EPOCH = shape("epoch")
_PAGED = shape("clip_id", "bytes")
_SIGNAL_NAMES = (
    "clip_id", "id", "attempt", "requested_status", "source", "details", "observed", "insists", "hearsay",
)  # fmt: skip
_SIGNAL = shape(*_SIGNAL_NAMES)
_SIGNAL_VALUES = itemgetter(*_SIGNAL_NAMES)
_STANDING_NAMES = ("id", "pipeline", "status", "progress", "attempt", "look_at", "tries")
_STANDING = shape(*_STANDING_NAMES, "last_checked")
_STANDING_VALUES = itemgetter(*_STANDING_NAMES)
_MOVE_NAMES = (
    "clip_id", "from_status", "from_attempt", "seen_look_at", "status", "attempt", "progress", "look_at", "tries",
    "judged", "facts", "details", "cleared", "signal_ids",
)  # fmt: skip
_WRITTEN = shape("leaders", "ids")
_ID = shape("id")
_NOW = shape("clock_timestamp")
_REQUEST_KEYS = ("requested_status", "requested_attempt", "status_request_time")


def clip_row(row: Values) -> Row:
    """A clip's row with `COLUMNS`."""
    values = list(_CLIP_VALUES(row))
    values[_DOCUMENT] = write_json(values[_DOCUMENT])
    return Row(_CLIP, values)


def updated(count: int, rows: list[Row] | None = None) -> Answer:
    """The answer of an UPDATE."""
    return rows or [], f"UPDATE {count}"


def selected(rows: list[Row]) -> Answer:
    """The answer of a SELECT."""
    return rows, f"SELECT {len(rows)}"


# --- The lease -------------------------------------------------------------------------------------------


def take_lease(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, seconds = args
    lease = _lease(session)
    too_late = session.now() + timedelta(seconds=seconds + 1)
    is_set_back = _is_before(too_late, lease["expires_at"])
    if lease["holder"] != holder and not _is_before(lease["expires_at"], session.now()) and not is_set_back:
        return updated(0)
    session.lock("monitor_lease", True, Mode.NO_KEY_UPDATE)
    now = session.now()
    epoch = lease["epoch"] + 1
    expires_at = now + timedelta(seconds=seconds)
    new = {**lease, "holder": holder, "epoch": epoch, "taken_at": now, "round_at": None, "expires_at": expires_at}
    session.put("monitor_lease", True, new)
    return updated(1, [Row(_EPOCH, (epoch,))])


def renew_lease(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, epoch, seconds, age_seconds = args
    lease = _lease(session)
    if lease["holder"] != holder or lease["epoch"] != epoch or not _is_before(session.now(), lease["expires_at"]):
        return updated(0)
    session.lock("monitor_lease", True, Mode.NO_KEY_UPDATE)
    now = session.now()
    round_at = lease["round_at"] if age_seconds is None else now - timedelta(seconds=age_seconds)
    new = {**lease, "expires_at": now + timedelta(seconds=seconds), "round_at": round_at}
    session.put("monitor_lease", True, new)
    return updated(1, [Row(_EPOCH, (epoch,))])


def release_lease(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, epoch = args
    lease = _lease(session)
    if (lease["holder"], lease["epoch"]) != (holder, epoch):
        return updated(0)
    session.lock("monitor_lease", True, Mode.NO_KEY_UPDATE)
    session.put("monitor_lease", True, {**lease, "expires_at": None})
    return updated(1)


def _lease(session: Session) -> Values:
    lease = session.get("monitor_lease", True)
    assert lease is not None
    return lease


def _is_before(moment: datetime | None, other: datetime | None) -> bool:
    """Whether one is before the other; None stands for the beginning of time, which the lease starts at."""
    if moment is None or other is None:
        return moment is None and other is not None
    return moment < other


def _lead(session: Session, holder: str, epoch: int) -> bool:
    """Whether the term is in force; then it stays so until the transaction ends."""
    lease = _lease(session)
    if (lease["holder"], lease["epoch"]) != (holder, epoch):
        return False
    session.lock("monitor_lease", True, Mode.SHARE)
    return True


# --- Finding and reading ---------------------------------------------------------------------------------


def read_due(session: Session, args: tuple[Any, ...]) -> Answer:
    but_not, pipelines, limit = args
    now = session.now()
    due = [
        row
        for row in session.all("clips")
        if row["look_at"] is not None
        and row["look_at"] <= now
        and row["id"] not in but_not
        and row["pipeline"] in pipelines
    ]
    due.sort(key=itemgetter("look_at"))
    return selected([clip_row(row) for row in due[:limit]])


def page_signals(session: Session, args: tuple[Any, ...]) -> Answer:
    after, limit = args
    rows = sorted((row for row in session.all("clip_signals") if row["clip_id"] > after), key=itemgetter("clip_id"))
    return selected([Row(_PAGED, (row["clip_id"], jsonb_bytes(row["details"]))) for row in rows[:limit]])


def lock_clips(session: Session, args: tuple[Any, ...]) -> Answer:
    rows = [session.get("clips", clip_id) for clip_id in sorted(dict.fromkeys(args[0]))]
    return selected(
        [_standing(row) for row in rows if row is not None and session.try_lock("clips", row["id"], Mode.NO_KEY_UPDATE)]
    )


def _standing(row: Values) -> Row:
    values = [*_STANDING_VALUES(row), as_text(row["processing_details"].get("last_checked"))]
    values[3] = float(values[3])
    return Row(_STANDING, values)


def read_signals(session: Session, args: tuple[Any, ...]) -> Answer:
    rows = []
    for clip_id in dict.fromkeys(args[0]):
        for signal in session.of_clip("clip_signals", clip_id):
            rows.append(signal)
    rows.sort(key=itemgetter("id"))
    return selected([_signal_row(row) for row in rows])


def _signal_row(row: Values) -> Row:
    values = list(_SIGNAL_VALUES(row))
    values[5] = write_json(values[5])
    return Row(_SIGNAL, values)


def read_clip(session: Session, args: tuple[Any, ...]) -> Answer:
    row = session.get("clips", args[0])
    return selected([] if row is None else [clip_row(row)])


def read_clip_by_uid(session: Session, args: tuple[Any, ...]) -> Answer:
    return selected([clip_row(row) for row in session.all("clips") if row["cloudflare_uid"] == args[0]])


_STANDS_NAMES = (
    "id", "pipeline", "status", "progress", "error_message", "updated_at", "status_since", "version",
)  # fmt: skip
_STANDS = shape(*_STANDS_NAMES)
_STANDS_VALUES = itemgetter(*_STANDS_NAMES)
_VERSION = shape("id", "version")


def read_standings(session: Session, args: tuple[Any, ...]) -> Answer:
    return selected(
        [Row(_STANDS, _STANDS_VALUES(row | {"progress": float(row["progress"])})) for row in _those(session, args)]
    )


def read_versions(session: Session, args: tuple[Any, ...]) -> Answer:
    return selected([Row(_VERSION, (row["id"], row["version"])) for row in _those(session, args)])


def _those(session: Session, args: tuple[Any, ...]) -> list[Values]:
    return [row for clip_id in args[0] if (row := session.get("clips", clip_id)) is not None]


def read_source_url(session: Session, args: tuple[Any, ...]) -> Answer:
    row = session.get("clips", args[0])
    return selected([] if row is None else [Row(shape("source_url"), (row["source_url"],))])


def read_clock(session: Session, args: tuple[Any, ...]) -> Answer:
    return selected([Row(_NOW, (session.now(),))])


# --- Writing ---------------------------------------------------------------------------------------------


def write_moves(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, epoch, *columns, entries_text = args
    by_clip = {move["clip_id"]: move for move in map(_read_move, zip(*columns, strict=True))}
    entries = read_json(entries_text)
    # The server locks the clips first; whoever does not lead any more holds them until his transaction ends.
    lockable = _lockable(session, by_clip)
    if not _lead(session, holder, epoch):
        return selected([Row(_WRITTEN, (0, []))])
    moved: dict[str, Values] = {}
    for clip_id in lockable:
        row, move = session.get("clips", clip_id), by_clip[clip_id]
        assert row is not None
        if row["status"] == move["from_status"] and row["attempt"] == move["from_attempt"]:
            moved[clip_id] = update_clip(session, row, _moved(session, row, move, epoch))
    _clear(session, [number for clip_id in moved for number in by_clip[clip_id]["signal_ids"]])
    for entry in sorted(entries, key=itemgetter("n")):
        row = moved.get(entry["clip_id"])
        if row is not None:
            add_event(
                session, clip_id=row["id"], kind=entry["kind"], attempt=entry["attempt"],
                from_status=entry["from_status"], to_status=entry["to_status"], progress=row["progress"],
                source=entry["source"], details=entry["details"],
            )  # fmt: skip
    return selected([Row(_WRITTEN, (1, list(moved)))])


def _lockable(session: Session, clip_ids: Iterable[str]) -> list[str]:
    """Those of the clips that exist and can be locked now."""
    return [
        clip_id
        for clip_id in sorted(clip_ids)
        if session.get("clips", clip_id) is not None and session.try_lock("clips", clip_id, Mode.NO_KEY_UPDATE)
    ]


def _read_move(values: tuple[Any, ...]) -> Values:
    move = dict(zip(_MOVE_NAMES, values, strict=True))
    move |= {name: read_json(move[name]) for name in ("facts", "details")}
    cleared, signal_ids = (list(filter(None, move[name][1:-1].split(","))) for name in ("cleared", "signal_ids"))
    return move | {"cleared": cleared, "signal_ids": list(map(int, signal_ids))}


def _clear(session: Session, signal_ids: Iterable[int]) -> None:
    for number in signal_ids:
        if session.get("clip_signals", number) is not None:
            session.lock("clip_signals", number, Mode.UPDATE)
            session.put("clip_signals", number, None)


def _moved(session: Session, row: Values, move: Values, epoch: int) -> Values:
    """The SET list of the statement."""
    stays_in_attempt = move["attempt"] == row["attempt"]
    stands = stays_in_attempt and move["status"] == row["status"]
    progress = to_progress(move["progress"])
    status, facts = move["status"], move["facts"]
    new: Values = {
        "status": status,
        "attempt": move["attempt"],
        "tries": row["tries"] if move["tries"] is None else move["tries"],
        "epoch": epoch,
        "progress": max(row["progress"], progress) if stays_in_attempt else progress,
        "look_at": _look_at(row["look_at"], move),
        "pending": max(row["pending"] - move["judged"], 0),
        "processing_details": _document(row, move),
        # By this the law knows the engine where nothing but the document changes.
        "version": row["version"] + 1,
    }
    if not stands:
        new["status_since"] = session.now()
    if not stays_in_attempt:
        new["r2_url"] = None
    if facts:
        new |= _facts(facts)
    if status == "complete":
        new["completed_at"] = session.now() if row["completed_at"] is None else row["completed_at"]
    elif not stays_in_attempt:
        new["completed_at"] = None
    if status != "error":
        new["error_message"] = None
    else:
        said = as_text(move["details"].get("error_message"))
        new["error_message"] = row["error_message"] if said is None else said
    if status == "complete" or "deleted_at" in row["processing_details"]:
        new["source_url"] = None
    return new


def _look_at(stands: datetime | None, move: Values) -> datetime | None:
    wanted = move["look_at"]
    if stands == move["seen_look_at"]:
        return wanted
    if stands is None or wanted is None:
        return stands or wanted
    return min(stands, wanted)


def _document(row: Values, move: Values) -> Any:
    doc = row["processing_details"]
    dropped = _REQUEST_KEYS if move["judged"] > 0 and move["judged"] >= row["pending"] else ()
    cleared = move["cleared"]
    if (dropped or cleared) and any(key in doc for key in (*dropped, *cleared)):
        doc = {key: value for key, value in doc.items() if key not in dropped and key not in cleared}
    return {**doc, **move["details"]} if move["details"] else doc


def _facts(facts: Values) -> Values:
    """The columns that are known now, in their types."""
    told = {
        name: as_text(facts.get(name))
        for name in ("cloudflare_uid", "thumbnail_url", "hls_url", "dash_url", "mp4_url", "r2_url")
    }
    known: Values = {name: text for name, text in told.items() if text is not None}
    for name, read in (("duration", to_float), ("file_size", to_bigint), ("uploaded_at", to_moment)):
        value = read(as_text(facts.get(name)))  # type: ignore[operator]
        if value is not None:
            known[name] = value
    return known


def write_progress(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, epoch, told_text = args
    told = {one["clip_id"]: one for one in read_json(told_text)}
    lockable = _lockable(session, told)
    if not lockable or not _lead(session, holder, epoch):
        return updated(0)
    ids = []
    for clip_id in lockable:
        row, one = session.get("clips", clip_id), told[clip_id]
        assert row is not None
        progress = to_progress(one["progress"])
        if row["attempt"] == one["attempt"] and row["status"] == one["status"] and row["progress"] < progress:
            update_clip(session, row, {"progress": progress, "epoch": epoch})
            ids.append(clip_id)
    return updated(len(ids), [Row(_ID, (clip_id,)) for clip_id in ids])


def report_step(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, epoch, clip_id, attempt, status, source, details = args
    said = read_json(details)
    if not _lead(session, holder, epoch):
        return [], "INSERT 0 0"
    add_signal(session, clip_id, attempt, status, source, said, observed=True)
    return [], "INSERT 0 1"


def merge_details(session: Session, args: tuple[Any, ...]) -> Answer:
    holder, epoch, clip_id, details, attempt = args
    merged = read_json(details)
    if not _lead(session, holder, epoch):
        return updated(0)
    row = session.get("clips", clip_id)
    if row is None or row["attempt"] != attempt:
        return updated(0)
    session.lock("clips", clip_id, Mode.NO_KEY_UPDATE)
    update_clip(session, row, {"processing_details": {**row["processing_details"], **merged}})
    return updated(1)


def notify(session: Session, args: tuple[Any, ...]) -> Answer:
    channel, payload = args
    if len(payload.encode()) >= 8000:
        raise asyncpg.InvalidParameterValueError("payload string too long")
    session.notify(channel, payload)
    return selected([Row(shape("pg_notify"), ("",))])
