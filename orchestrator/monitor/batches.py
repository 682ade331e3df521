"""Writing a batch so that one clip that cannot be written does not hold up the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import structlog

from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move, write_moves

log = structlog.get_logger(__name__)

# A clip whose row refuses what was decided needs a person; looking more often does not help it.
SET_ASIDE_FOR = timedelta(minutes=5)

_REFUSALS = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, asyncpg.ProgramLimitExceededError)


async def write_each(connection: asyncpg.Connection, term: Term, moves: Sequence[Move]) -> set[str]:
    """Write *moves* in one statement; where the database refuses, halve, until the one at fault is set aside.

    Must run in a transaction.

    Raises:
        LeadershipLost: as `write_moves`.
    """
    if not moves:
        return set()
    try:
        async with connection.transaction():
            return await write_moves(connection, term, moves)
    except _REFUSALS as refusal:
        if len(moves) == 1:
            log.error("a move was refused by the database", clip_id=moves[0].clip_id, reason=str(refusal))
            return await _set_aside(connection, term, moves[0], str(refusal))
    half = len(moves) // 2
    return await write_each(connection, term, moves[:half]) | await write_each(connection, term, moves[half:])


async def _set_aside(connection: asyncpg.Connection, term: Term, move: Move, reason: str) -> set[str]:
    """Leave the clip where it stands, keep the refusal in its history, and look again later."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    said = {"rule": "database", "reason": f"The database refused the move: {reason}"[:500]}
    asked = move.entries or (
        Entry("refused", move.before.attempt, move.before.status, move.after.status, "database", {}),
    )
    aside = replace(
        move,
        after=move.before,
        look_at=now + SET_ASIDE_FOR,
        tries=None,
        facts={},
        details={},
        cleared=(),
        # Each signal keeps its line; what it carried is left out, for it may be what was refused.
        entries=tuple(replace(entry, kind="refused", details=said) for entry in asked),
    )
    try:
        async with connection.transaction():
            await write_moves(connection, term, [aside])
    except _REFUSALS as refusal:
        log.error("a clip could not be set aside", clip_id=move.clip_id, reason=str(refusal))
    return set()
