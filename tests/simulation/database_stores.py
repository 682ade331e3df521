"""The statements on the call budget and on transfers, over simulated rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import asyncpg

from simulation.database_locks import Mode
from simulation.database_monitor import selected, updated
from simulation.database_rows import Row, shape
from simulation.database_server import Answer, Session, Values

_VERDICT = shape("reason", "tokens", "wait_seconds")
# Longer than any statement waits for a lock: then it is the clock that was set back.
_SET_BACK = timedelta(seconds=30)
_NONE = timedelta(0)

_TRANSFER_NAMES = (
    "clip_id", "attempt", "object_key", "upload_id", "part_size_bytes", "source_size_bytes", "source_etag",
    "source_last_modified",
)  # fmt: skip
_TRANSFER = shape(*_TRANSFER_NAMES)
_LOADED_NAMES = (*_TRANSFER_NAMES, "finished_at", "stored_size_bytes", "stored_etag")
_LOADED = shape(*_LOADED_NAMES, "parts")
_TRUE = Row(shape("bool"), (True,))


# --- The call budget -------------------------------------------------------------------------------------


def take_calls(session: Session, args: tuple[Any, ...]) -> Answer:
    account, calls, burst, rate, needed = args
    if session.get("call_budget", account) is None:
        return selected([])
    session.lock("call_budget", account, Mode.UPDATE)
    row = session.get("call_budget", account)
    assert row is not None
    at = session.now()
    shift = at - row["refilled_at"] if row["refilled_at"] > at + _SET_BACK else _NONE
    blocked_until = _shifted(row["blocked_until"], shift)
    reset_at = _shifted(row["provider_reset_at"], shift)
    since = row["refilled_at"] if row["blocked_until"] is None else max(row["refilled_at"], row["blocked_until"])
    tokens = min(burst, row["tokens"] + rate * max(0.0, (at - since).total_seconds()))
    reason, wait_seconds = _judged(at, blocked_until, reset_at, row["provider_left"], tokens, rate, needed)
    if reason is None or shift != _NONE:
        spent = calls if reason is None else 0
        counted = reset_at is not None and reset_at > at
        if tokens - spent < 0 or row["provider_left"] - (spent if counted else 0) < 0:
            raise asyncpg.CheckViolationError("a budget never falls below nothing")
        session.put(
            "call_budget",
            account,
            {
                **row,
                "tokens": tokens - spent,
                "refilled_at": at,
                "blocked_until": blocked_until,
                "provider_reset_at": reset_at,
                "provider_left": row["provider_left"] - (spent if counted else 0),
            },
        )
    return selected([Row(_VERDICT, (reason, tokens, wait_seconds))])


def _shifted(moment: datetime | None, shift: timedelta) -> datetime | None:
    return None if moment is None else moment + shift


def _judged(
    at: datetime, blocked: datetime | None, reset: datetime | None, left: int, tokens: float, rate: float, needed: float
) -> tuple[str | None, float]:
    if blocked is not None and blocked > at:
        return "blocked", (blocked - at).total_seconds()
    if reset is not None and reset > at and left < needed:
        return "provider", (reset - at).total_seconds()
    if tokens < needed:
        return "spent", (needed - tokens) / rate
    return None, 0.0


def open_account(session: Session, args: tuple[Any, ...]) -> Answer:
    account, tokens = args
    session.lock("call_budget", account, Mode.UPDATE)
    if session.get("call_budget", account) is not None:
        return [], "INSERT 0 0"
    row = {
        "account": account, "tokens": float(tokens), "refilled_at": session.now(), "blocked_until": None,
        "provider_left": 0, "provider_reset_at": None,
    }  # fmt: skip
    session.put("call_budget", account, row)
    return [], "INSERT 0 1"


def learn(session: Session, args: tuple[Any, ...]) -> Answer:
    account, block_seconds, left, reset_seconds = args
    if session.get("call_budget", account) is None:
        return updated(0)
    session.lock("call_budget", account, Mode.NO_KEY_UPDATE)
    row = session.get("call_budget", account)
    assert row is not None
    now = session.now()
    new = dict(row)
    if block_seconds is not None:
        new["blocked_until"] = _later(row["blocked_until"], now + timedelta(seconds=block_seconds))
        new["tokens"] = 0.0
    if left is not None:
        counts = row["provider_reset_at"] is not None and row["provider_reset_at"] > now
        new["provider_left"] = min(row["provider_left"], left) if counts else left
        if reset_seconds is not None:
            new["provider_reset_at"] = _later(row["provider_reset_at"], now + timedelta(seconds=reset_seconds))
    session.put("call_budget", account, new)
    return updated(1)


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


# --- Transfers -------------------------------------------------------------------------------------------


def load_transfer(session: Session, args: tuple[Any, ...]) -> Answer:
    row = session.get("transfers", args)
    if row is None:
        return selected([])
    parts = [part for part in session.all("transfer_parts") if (part["clip_id"], part["attempt"]) == args]
    parts.sort(key=itemgetter("number"))
    texts = [[str(part["number"]), part["etag"], str(part["size_bytes"])] for part in parts]
    return selected([Row(_LOADED, [*(row[name] for name in _LOADED_NAMES), texts])])


def begin_transfer(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, attempt = args[:2]
    if any(row["clip_id"] == clip_id and row["attempt"] > attempt for row in session.all("transfers")):
        return [], "INSERT 0 0"
    session.lock("transfers", (clip_id, attempt), Mode.UPDATE)
    if session.get("transfers", (clip_id, attempt)) is not None:
        return [], "INSERT 0 0"
    row: Values = dict(zip(_TRANSFER_NAMES, args, strict=True))
    row |= {"started_at": session.began_at, "finished_at": None, "stored_size_bytes": None, "stored_etag": None}
    session.put("transfers", (clip_id, attempt), row)
    return [], "INSERT 0 1"


def record_part(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, attempt, upload_id, number, etag, size_bytes = args
    row = _in_force(session, clip_id, attempt, upload_id)
    if row is None or row["finished_at"] is not None:
        return [], "INSERT 0 0"
    session.lock("transfers", (clip_id, attempt), Mode.SHARE)
    session.lock("transfer_parts", (clip_id, attempt, number), Mode.UPDATE)
    part = {"clip_id": clip_id, "attempt": attempt, "number": number, "etag": etag, "size_bytes": size_bytes}
    session.put("transfer_parts", (clip_id, attempt, number), part)
    return [_TRUE], "INSERT 0 1"


def finish_transfer(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, attempt, upload_id, size_bytes, etag = args
    row = _in_force(session, clip_id, attempt, upload_id)
    if row is None:
        return selected([])
    session.lock("transfers", (clip_id, attempt), Mode.NO_KEY_UPDATE)
    _forget_parts(session, clip_id, attempt)
    finished_at = row["finished_at"] or session.began_at
    new = {**row, "finished_at": finished_at, "stored_size_bytes": size_bytes, "stored_etag": etag}
    session.put("transfers", (clip_id, attempt), new)
    return selected([_TRUE])


def discard_transfer(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, attempt, upload_id, knows_it_finished = args
    row = _in_force(session, clip_id, attempt, upload_id)
    if row is None or (row["finished_at"] is not None and not knows_it_finished):
        return [], "DELETE 0"
    _delete_transfer(session, row)
    return [_TRUE], "DELETE 1"


def unfinished_transfers(session: Session, args: tuple[Any, ...]) -> Answer:
    clip_id, attempt = args
    rows = [
        row
        for row in session.all("transfers")
        if row["clip_id"] == clip_id and row["attempt"] < attempt and row["finished_at"] is None
    ]
    rows.sort(key=itemgetter("attempt"))
    return selected([Row(_TRANSFER, [row[name] for name in _TRANSFER_NAMES]) for row in rows])


def live_uploads(session: Session, args: tuple[Any, ...]) -> Answer:
    rows = [row for row in session.all("transfers") if row["finished_at"] is None and row["upload_id"] in args[0]]
    return selected([Row(shape("upload_id"), (row["upload_id"],)) for row in rows])


def discard_unfinished(session: Session, args: tuple[Any, ...]) -> Answer:
    rows = [row for row in session.all("transfers") if row["finished_at"] is None and row["started_at"] < args[0]]
    for row in rows:
        _delete_transfer(session, row)
    return [Row(shape("?column?"), (1,)) for _ in rows], f"DELETE {len(rows)}"


def _in_force(session: Session, clip_id: str, attempt: int, upload_id: str) -> Values | None:
    row = session.get("transfers", (clip_id, attempt))
    return row if row is not None and row["upload_id"] == upload_id else None


def _delete_transfer(session: Session, row: Values) -> None:
    """The row, and with it its parts."""
    session.lock("transfers", (row["clip_id"], row["attempt"]), Mode.UPDATE)
    _forget_parts(session, row["clip_id"], row["attempt"])
    session.put("transfers", (row["clip_id"], row["attempt"]), None)


def _forget_parts(session: Session, clip_id: str, attempt: int) -> None:
    keys = [
        (clip_id, attempt, part["number"])
        for part in session.all("transfer_parts")
        if (part["clip_id"], part["attempt"]) == (clip_id, attempt)
    ]
    for key in keys:
        session.lock("transfer_parts", key, Mode.UPDATE)
    for key in keys:
        session.put("transfer_parts", key, None)
