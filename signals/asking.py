"""What writes ``processing_details``: each call is one SQL statement, merged by PostgreSQL (many at once: `together`).

Nothing is read, changed in the program and written back, so concurrent writers lose nothing. A request
written here is picked up by a trigger, stored as a signal of its own and judged by the monitor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from signals.errors import DetailsNotAccepted, SignalError, TooManySignals, UnknownClip

# The trigger takes the object under "request" out again and files it; the rest stays in the document.
_SIGNAL = """
UPDATE clips
   SET processing_details = processing_details || $2::jsonb
       || jsonb_build_object('requested_status', $3::text, 'status_request_time', clock_timestamp(),
                             'request', $4::jsonb)
 WHERE id = $1
RETURNING attempt
"""

_DETAILS = """
UPDATE clips SET processing_details = processing_details || $2::jsonb WHERE id = $1 RETURNING attempt
"""

# Opens the attempt after the one the clip is in, whichever that is when the statement runs.
_RETRY = """
UPDATE clips
   SET processing_details = processing_details
       || jsonb_build_object('requested_status', $2::text, 'status_request_time', clock_timestamp(),
                             'request', jsonb_build_object('source', $3::text, 'attempt', attempt + 1))
 WHERE id = $1
RETURNING attempt
"""

# The same for many clips, each only if it still stands where it was seen and nothing waits for it; a row that somebody
# holds is left out. The order of the locks keeps two such calls from waiting for each other.
_RETRIES = """
WITH asked AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS a(id text, attempt integer, resume_at text)
), locked AS MATERIALIZED (
    SELECT c.id FROM clips c JOIN asked a ON a.id = c.id
     WHERE c.status = 'error' AND c.attempt = a.attempt AND c.pending = 0
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
)
UPDATE clips c
   SET processing_details = c.processing_details
       || jsonb_build_object('requested_status', a.resume_at, 'status_request_time', clock_timestamp(),
                             'request', jsonb_build_object('source', $2::text, 'attempt', c.attempt + 1))
  FROM asked a JOIN locked USING (id)
 WHERE c.id = a.id
RETURNING c.id
"""

TOO_MANY = "1,000 signals for this clip wait to be judged; ask again later"

# Keys of the document that only a request may write.
_RESERVED = ("requested_status", "requested_attempt", "status_request_time", "request")


async def signal_status_update(
    connection: asyncpg.Connection,
    clip_id: str,
    status: str,
    details: Mapping[str, Any] | None = None,
    source: str = "unknown",
    *,
    attempt: int | None = None,
    insists: bool = False,
    hearsay: bool = False,
) -> int:
    """Ask that *clip_id* move to *status*; the clip's present attempt once the request is written.

    *details* are merged into the document and stand beside the request in the history. *attempt* is the one
    the request belongs to, the present one when None. *insists* marks a person's ``error``, which ends even a
    complete clip; *hearsay* what was only heard from another service: even its ``error`` is looked into first,
    and its details stand in the history alone, since in the document a late word would cover what was seen.
    The monitor judges; a status that states an outside fact makes it look at the provider first.
    Safe to repeat.

    Raises:
        UnknownClip: there is no such clip.
        DetailsNotAccepted: not JSON that PostgreSQL can hold, or the document would grow too large.
        TooManySignals: too many unjudged signals; ask again later.
    """
    if not status:
        raise DetailsNotAccepted("a status must be named")
    merged = unreserved({} if details is None else details)
    request = request_of(source, merged, attempt, insists=insists, hearsay=hearsay)
    shown = {} if hearsay else merged
    return await _write(connection, _SIGNAL, clip_id, encode_details(shown), status, encode_details(request))


async def update_processing_details(connection: asyncpg.Connection, clip_id: str, details: Mapping[str, Any]) -> int:
    """Merge *details* into the clip's document and touch nothing else; the clip's present attempt.

    Raises:
        UnknownClip, DetailsNotAccepted: as for `signal_status_update`.
    """
    return await _write(connection, _DETAILS, clip_id, encode_details(unreserved(details)))


async def signal_retry(connection: asyncpg.Connection, clip_id: str, resume_at: str, source: str) -> int:
    """Ask for a new attempt that starts at the status *resume_at*; the attempt that is over.

    Raises:
        UnknownClip, TooManySignals: as for `signal_status_update`.
    """
    return await _write(connection, _RETRY, clip_id, resume_at, source)


@dataclass(frozen=True, slots=True)
class Retry:
    """A new attempt for the clip that failed in *attempt*, from the status *resume_at* on."""

    clip_id: str
    attempt: int
    resume_at: str


async def signal_retries(connection: asyncpg.Connection, retries: Sequence[Retry], source: str) -> set[str]:
    """Ask for all of *retries* in one statement; the ids of the clips for which that was recorded.

    Left out are clips that have moved since they were seen, that somebody holds just now, or for which something is
    asked already: safe to repeat.

    Raises:
        TooManySignals, DetailsNotAccepted: one of the rows refused it, and nothing was recorded.
    """
    asked = [{"id": each.clip_id, "attempt": each.attempt, "resume_at": each.resume_at} for each in retries]
    try:
        rows = await connection.fetch(_RETRIES, json.dumps(asked), source)
    except asyncpg.CheckViolationError as problem:
        raise translated(problem) from problem
    return {row["id"] for row in rows}


def encode_details(details: Mapping[str, Any]) -> str:
    """*details* as JSON text; what PostgreSQL does not accept of it, it refuses itself.

    Raises:
        DetailsNotAccepted: too deep, or with values JSON does not have (NaN, infinities).
    """
    try:
        return json.dumps(details, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as problem:
        raise DetailsNotAccepted(f"details cannot be written as JSON: {problem}") from problem


def request_of(
    source: str, details: Mapping[str, Any], attempt: int | None, *, insists: bool, hearsay: bool
) -> dict[str, Any]:
    """The object under "request", which the trigger files as a signal."""
    request: dict[str, Any] = {"source": source, "details": details, "insists": insists, "hearsay": hearsay}
    return request if attempt is None else {**request, "attempt": attempt}


def unreserved(details: Mapping[str, Any]) -> dict[str, Any]:
    """*details* without the keys that only a request may write."""
    if not isinstance(details, Mapping):
        raise DetailsNotAccepted(f"details must be an object, not {type(details).__name__}")
    return {key: value for key, value in details.items() if key not in _RESERVED}


async def _write(connection: asyncpg.Connection, statement: str, clip_id: str, *values: str) -> int:
    try:
        attempt = await connection.fetchval(statement, clip_id, *values)
    except REFUSALS as problem:
        raise translated(problem) from problem
    if attempt is None:
        raise UnknownClip(clip_id)
    return int(attempt)


# What PostgreSQL says of a request that it does not take.
REFUSALS = (
    asyncpg.CheckViolationError,
    asyncpg.DataError,
    UnicodeEncodeError,
    asyncpg.StatementTooComplexError,
    asyncpg.ProgramLimitExceededError,
)


def translated(problem: Exception) -> SignalError:
    """One of `REFUSALS` in our own words."""
    if isinstance(problem, asyncpg.DataError | UnicodeEncodeError):
        return DetailsNotAccepted("the text holds characters that PostgreSQL cannot store")
    if not isinstance(problem, asyncpg.CheckViolationError):
        return DetailsNotAccepted("the details are nested too deeply or too large")
    if problem.constraint_name == "pending_signals_are_bounded":
        return TooManySignals(TOO_MANY)
    if problem.constraint_name == "processing_details_is_bounded":
        return DetailsNotAccepted("the clip's details would grow beyond 48 KiB")
    return DetailsNotAccepted(str(problem))
