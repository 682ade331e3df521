"""What looks at the provider rest on, over simulated rows: notes of what was asked for, and how long clips took."""

from __future__ import annotations

from itertools import islice
from typing import Any

from simulation.database_locks import Mode
from simulation.database_monitor import selected
from simulation.database_rows import Row, as_text, shape
from simulation.database_server import Answer, Session, Values

_NOTED = shape("bool")
_ARRIVAL = shape("pipeline", "status", "clip_id", "seconds", "at", "not_before", "duration_seconds", "size_bytes")
_LINES, _CLIPS = 4000, 200


def note_ask(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, what = args
    # Whoever comes second waits for the first, and then sees whether he has kept it.
    session.lock("provider_asks", args, Mode.UPDATE)
    if session.get("provider_asks", args) is not None:
        return [], "INSERT 0 0"
    session.put("provider_asks", args, {"clip_id": clip_id, "what": what, "asked_at": session.now()})
    return [Row(_NOTED, (True,))], "INSERT 0 1"


def forget_asks(session: Session, args: tuple[Any, ...]) -> Answer:
    oldest = session.now() - args[0]
    gone = [(row["clip_id"], row["what"]) for row in session.all("provider_asks") if row["asked_at"] < oldest]
    for key in gone:
        session.lock("provider_asks", key, Mode.UPDATE)
        session.put("provider_asks", key, None)
    return [], f"DELETE {len(gone)}"


def read_arrivals(session: Session, args: tuple[Any, ...]) -> Answer:
    recent = sorted(session.all("clip_events"), key=lambda row: row["id"], reverse=True)[:_LINES]
    ended = islice((row for row in recent if (row["kind"], row["to_status"]) == ("moved", "complete")), _CLIPS)
    ends = {(row["clip_id"], row["attempt"]): row["at"] for row in ended}
    moves: dict[tuple[str, int, str], list[Values]] = {}
    for row in recent:
        key = (row["clip_id"], row["attempt"], row["to_status"])
        if row["kind"] in ("created", "moved") and row["to_status"] != "complete" and key[:2] in ends:
            moves.setdefault(key, []).append(row)
    rows = []
    for (clip_id, attempt, status), found in moves.items():
        clip = session.get("clips", clip_id)
        if clip is not None:
            at = min(row["at"] for row in found)
            told = [text for row in found if (text := as_text(row["details"].get("not_before"))) is not None]
            values = (
                clip["pipeline"], status, clip_id, (ends[clip_id, attempt] - at).total_seconds(), at,
                min(told, default=None), clip["duration"],
                as_text(clip["processing_details"].get("upload_size_bytes")),
            )  # fmt: skip
            rows.append(Row(_ARRIVAL, values))
    return selected(rows)
