"""Writing a batch so that one clip that cannot be written does not hold up the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import structlog

from orchestrator.monitor.leadership import Term
from orchestrator.monitor.moves import Entry, Move, write_moves
from orchestrator.monitor.problems import DATABASE_REFUSED

log = structlog.get_logger(__name__)

# A clip whose row refuses what was decided needs a person; looking more often does not help it.
SET_ASIDE_FOR = timedelta(minutes=5)

# What a row may be refused for: by the database, by its own trigger, by a page that is spoiled, or because it cannot
# even be put into words. None of it says that the database is away.
_REFUSALS = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.PLPGSQLError,
    asyncpg.InternalServerError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
)


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
            reason = _words(refusal)
            log.error("a move was refused by the database", clip_id=moves[0].clip_id, reason=reason)
            return await _set_aside(connection, term, moves[0], reason)
    half = len(moves) // 2
    return await write_each(connection, term, moves[:half]) | await write_each(connection, term, moves[half:])


async def _set_aside(connection: asyncpg.Connection, term: Term, move: Move, reason: str) -> set[str]:
    """Leave the clip where it stands, keep the refusal in its history, and look again later."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    text = f"The database refused the move: {reason}"[:500]
    said = {"rule": "database", "reason": text}
    asked = move.entries or (
        Entry("refused", move.before.attempt, move.before.status, move.after.status, "database", {}),
    )
    aside = replace(
        move,
        after=move.before,
        look_at=now + SET_ASIDE_FOR,
        tries=None,
        facts={},
        details={"last_problem": {"code": DATABASE_REFUSED, "text": text, "at": now.isoformat()}},
        cleared=(),
        # Each signal keeps its line; what it carried is left out, for it may be what was refused.
        entries=tuple(replace(entry, kind="refused", details=said) for entry in asked),
    )
    for attempted in (aside, replace(aside, details={})):  # a document that is full takes no further word
        try:
            async with connection.transaction():
                await write_moves(connection, term, [attempted])
                return set()
        except _REFUSALS as refusal:
            log.error("a clip could not be set aside", clip_id=move.clip_id, reason=_words(refusal))
    return set()


def _words(refusal: Exception) -> str:
    """Why, for the history: what the database says; of a fault of ours its kind, as its text may quote anything."""
    return str(refusal) if isinstance(refusal, asyncpg.PostgresError) else type(refusal).__name__
