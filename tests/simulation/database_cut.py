"""The statements of the cut pipeline, over simulated rows: uploads, and what jobs have made."""

from __future__ import annotations

from typing import Any

from simulation.database_locks import Mode
from simulation.database_monitor import selected
from simulation.database_rows import Row, read_json, shape
from simulation.database_server import Answer, Session

_UPLOAD_NAMES = ("id", "filename", "size_bytes", "sha256", "created_at")
_UPLOAD = shape(*_UPLOAD_NAMES)
_CHANGED = ("start_seconds", "end_seconds", "duration_seconds", "size_bytes")


def read_upload(session: Session, args: tuple[Any, ...]) -> Answer:
    row = session.get("uploads", args[0])
    return selected([] if row is None else [Row(_UPLOAD, [row[name] for name in _UPLOAD_NAMES])])


def note_artifacts(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, found = args
    noted = read_json(found)
    for each in noted:
        key = (clip_id, each["number"])
        session.lock("artifacts", key, Mode.UPDATE)
        before = session.get("artifacts", key)
        if before is None:
            new = {**each, "clip_id": clip_id, "published_as": None}
        else:
            new = {**before, **{name: each[name] for name in _CHANGED}}
        session.put("artifacts", key, new)
    return [], f"INSERT 0 {len(noted)}"


def write_artifacts(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, found = args
    numbers = {each["number"] for each in read_json(found)}
    gone = [
        row["number"] for row in session.all("artifacts") if row["clip_id"] == clip_id and row["number"] not in numbers
    ]
    for number in gone:
        session.put("artifacts", (clip_id, number), None)
    return note_artifacts(session, args)
