"""Statements that the program does not have: what a person, a mistake or an attacker may send.

PostgreSQL runs their text; beside each stands what the simulated server does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
from simulation.database_law import begin_at_the_beginning, insert_clip, update_clip
from simulation.database_locks import Mode
from simulation.database_monitor import selected, updated
from simulation.database_rows import Row, read_json, shape
from simulation.database_server import Answer, Session, Statement

REPLACE = "UPDATE clips SET processing_details = $2::jsonb WHERE id = $1"
MERGE = "UPDATE clips SET processing_details = processing_details || $2::jsonb WHERE id = $1 RETURNING attempt"
MOVE = "UPDATE clips SET status = $2, attempt = $3, progress = $4, epoch = epoch + $5 WHERE id = $1"
RENAME = "UPDATE clips SET id = id || 'x' WHERE id = $1"
BLIND = "UPDATE clips SET look_at = NULL WHERE id = $1"
CLOSE = "UPDATE clips SET look_at = NULL, tries = tries + 1 WHERE id = $1"
FLOOD = "UPDATE clips SET pending = $2 WHERE id = $1"
LEASE_OVER = "UPDATE monitor_lease SET expires_at = clock_timestamp() - interval '1 s'"
HOLD = "SELECT id FROM clips WHERE id = $1 FOR UPDATE"
UPSERT = """
INSERT INTO clips (id, processing_details) VALUES ($1, $2::jsonb)
ON CONFLICT (id) DO UPDATE SET processing_details = excluded.processing_details
"""
INSERT_OR_NOT = """
INSERT INTO clips (id, cloudflare_uid, processing_details) VALUES ($1, $2, $3::jsonb) ON CONFLICT DO NOTHING
"""
REWRITE_HISTORY = "UPDATE clip_events SET source = 'somebody else' WHERE clip_id = $1"


def _update(session: Session, clip_id: str, changes: Any) -> Answer:
    row = session.get("clips", clip_id)
    if row is None:
        return updated(0)
    session.lock("clips", clip_id, Mode.NO_KEY_UPDATE)
    new = update_clip(session, row, changes(row))
    return updated(1, [Row(shape("attempt"), (new["attempt"],))])


def _replace(session: Session, args: tuple[Any, ...]) -> Answer:
    document = read_json(args[1])
    return updated(len(_update(session, args[0], lambda _: {"processing_details": document})[0]))


def _merge(session: Session, args: tuple[Any, ...]) -> Answer:
    added = read_json(args[1])

    def merged(row: dict[str, Any]) -> dict[str, Any]:
        stands = row["processing_details"]
        if isinstance(added, dict):
            return {"processing_details": stands | added}
        return {"processing_details": [stands, *(added if isinstance(added, list) else [added])]}

    return _update(session, args[0], merged)


def _move(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, status, attempt, progress, epochs = args
    return updated(
        len(
            _update(
                session,
                clip_id,
                lambda row: {
                    "status": status,
                    "attempt": attempt,
                    "progress": progress,
                    "epoch": row["epoch"] + epochs,
                },
            )[0]
        )
    )


def _change(*changes: Any) -> Any:
    def run(session: Session, args: tuple[Any, ...]) -> Answer:
        return updated(len(_update(session, args[0], lambda row: changes[0](row, args))[0]))

    return run


def _lease_over(session: Session, args: tuple[Any, ...]) -> Answer:
    session.lock("monitor_lease", True, Mode.NO_KEY_UPDATE)
    lease = session.get("monitor_lease", True)
    assert lease is not None
    session.put("monitor_lease", True, {**lease, "expires_at": session.now() - timedelta(seconds=1)})
    return updated(1)


def _hold(session: Session, args: tuple[Any, ...]) -> Answer:
    if session.get("clips", args[0]) is None:
        return selected([])
    session.lock("clips", args[0], Mode.UPDATE)
    return selected([Row(shape("id"), (args[0],))])


def _upsert(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, document = args[0], read_json(args[1])
    mark = len(session.undo)
    try:
        insert_clip(session, {"id": clip_id, "processing_details": document})
    except asyncpg.UniqueViolationError:
        session.undo_to(mark)
        # The document that is written is the one the insert's own trigger has made of it.
        made = _made(session, document)
        _update(session, clip_id, lambda _: {"processing_details": made})
    return [], "INSERT 0 1"


def _made(session: Session, document: Any) -> Any:
    row = {
        "pipeline": "stream", "status": None, "progress": None, "attempt": 1, "source_url": None,
        "processing_details": document,
    }  # fmt: skip
    begin_at_the_beginning(session, row)
    return row["processing_details"]


def _insert_or_not(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, uid, document = args
    mark = len(session.undo)
    try:
        insert_clip(session, {"id": clip_id, "cloudflare_uid": uid, "processing_details": read_json(document)})
    except asyncpg.UniqueViolationError:
        session.undo_to(mark)
        return [], "INSERT 0 0"
    return [], "INSERT 0 1"


def _rewrite_history(session: Session, args: tuple[Any, ...]) -> Answer:
    if any(True for _ in session.of_clip("clip_events", args[0])):
        raise asyncpg.IntegrityConstraintViolationError("history is append-only")
    return updated(0)


def _rename(row: dict[str, Any], _: tuple[Any, ...]) -> dict[str, Any]:
    return {"id": row["id"] + "x"}


async def copy_clips(connection: Any, records: list[tuple[Any, ...]]) -> str:
    """COPY, to the simulated server: all of the rows or none."""
    return str(await connection.execute(_COPY, records))


_COPY = "COPY clips (id, cloudflare_uid, processing_details) FROM STDIN"


def _copy(session: Session, args: tuple[Any, ...]) -> Answer:
    for clip_id, uid, document in args[0]:
        insert_clip(session, {"id": clip_id, "cloudflare_uid": uid, "processing_details": read_json(document)})
    return [], f"COPY {len(args[0])}"


BY_HAND = {
    REPLACE: Statement("by_hand", _replace),
    MERGE: Statement("by_hand", _merge),
    MOVE: Statement("by_hand", _move),
    RENAME: Statement("by_hand", _change(_rename)),
    BLIND: Statement("by_hand", _change(lambda row, _: {"look_at": None})),
    CLOSE: Statement("by_hand", _change(lambda row, _: {"look_at": None, "tries": row["tries"] + 1})),
    FLOOD: Statement("by_hand", _change(lambda row, args: {"pending": args[1]})),
    LEASE_OVER: Statement("by_hand", _lease_over),
    HOLD: Statement("by_hand", _hold),
    UPSERT: Statement("by_hand", _upsert),
    INSERT_OR_NOT: Statement("by_hand", _insert_or_not),
    REWRITE_HISTORY: Statement("by_hand", _rewrite_history),
    _COPY: Statement("by_hand", _copy),
}
