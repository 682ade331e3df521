"""Asking for many at once: requests that share one statement, one round trip and one commit, each with its own outcome.

A commit costs far more than one more row in it, so whoever has several requests at a time writes them by this.
Nobody who shares is hurt by a neighbour: a refused one is found by halving, a row that somebody holds is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from signals.asking import REFUSALS, TOO_MANY, encode_details, request_of, translated, unreserved
from signals.errors import ClipHeld, SignalError, StatusNotInPipeline, TooManySignals, UnknownClip


@dataclass(frozen=True, slots=True)
class Signal:
    """One request that a clip move, named by its id or, failing that, by the provider's; the rest as for
    `signal_status_update`.

    *only_in* names the pipelines that know the status; a clip of another one is refused. Empty: whatever the clip's.
    """

    status: str
    source: str
    clip_id: str | None = None
    cloudflare_uid: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    attempt: int | None = None
    insists: bool = False
    hearsay: bool = False
    only_in: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str | None, str | None]:
        """What the clip is named by: two with the same name are for the same clip."""
        return self.clip_id, self.cloudflare_uid


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is committed, and where its clip stood then."""

    clip_id: str
    pipeline: str
    status: str
    attempt: int


Outcome = Asked | SignalError

# The rows are locked in the order of their ids, so that two such statements never wait for each other crosswise, and
# once: of two requests for one clip only the first is written. Left out are clips for which as many wait as the table
# allows, lest a flood for one of them refuse the others' statement, and, unless it waits, rows that somebody holds.
# The arrays are hidden from the planner: it would plan anew for each of their lengths, which costs as much as the rest.
_TOGETHER = """
WITH named AS (
    SELECT a.number, coalesce(a.clip_id, (SELECT id FROM clips WHERE cloudflare_uid = a.uid)) AS clip_id,
           a.status, string_to_array(a.only_in, ',') AS only_in, a.shown, a.request
      FROM unnest((SELECT $1::integer[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::text[]),
                  (SELECT $5::text[]), (SELECT $6::jsonb[]), (SELECT $7::jsonb[]))
        AS a(number, clip_id, uid, status, only_in, shown, request)
), asked AS MATERIALIZED (
    SELECT DISTINCT ON (clip_id) * FROM named ORDER BY clip_id, number
), locked AS MATERIALIZED (
    SELECT a.* FROM clips c JOIN asked a ON a.clip_id = c.id
     WHERE (a.only_in = '{{}}' OR c.pipeline = ANY (a.only_in)) AND c.pending < 1000
     ORDER BY c.id FOR NO KEY UPDATE OF c{waits}
)
UPDATE clips c
   SET processing_details = c.processing_details || l.shown
       || jsonb_build_object('requested_status', l.status, 'status_request_time', clock_timestamp(),
                             'request', l.request)
  FROM locked l
 WHERE c.id = l.clip_id
RETURNING l.number, c.id, c.pipeline, c.status, c.attempt
"""
_LEAVING_OUT = _TOGETHER.format(waits=" SKIP LOCKED")
_WAITING = _TOGETHER.format(waits="")

# Why nothing was written for some of them.
_WHICH = """
SELECT id, cloudflare_uid, pipeline, pending FROM clips WHERE id = ANY ($1::text[])
UNION ALL
SELECT id, cloudflare_uid, pipeline, pending FROM clips WHERE cloudflare_uid = ANY ($2::text[])
"""


async def signal_status_updates(
    connection: asyncpg.Connection, signals: Sequence[Signal], *, waits: bool = False
) -> list[Outcome]:
    """Write *signals* in as few commits as there are requests for one clip; what became of each, in their order.

    An `Asked` is committed when this returns. A `SignalError` stands for a request of which nothing was written;
    one more kind than those of `signal_status_update`: `ClipHeld`, when somebody else is writing the clip just now.
    With *waits*, such a row is waited for up to the session's ``lock_timeout``, whose error then ends the whole call.
    Not for use inside a transaction: the first refusal would end it.

    Raises:
        ValueError: a signal names no clip, or no status.
    """
    if not all((one.clip_id or one.cloudflare_uid) and one.status for one in signals):
        raise ValueError("a signal names a clip and a status")
    outcomes: dict[int, Outcome] = {}
    rows: dict[int, tuple[str, str]] = {}
    for number, one in enumerate(signals):
        try:
            rows[number] = _encoded(one)
        except SignalError as problem:
            outcomes[number] = problem
    statement = _WAITING if waits else _LEAVING_OUT
    while rows:
        first_of_each = {signals[number].named: number for number in reversed(rows)}
        turn = sorted(first_of_each.values())
        outcomes |= await _written(connection, statement, signals, {number: rows.pop(number) for number in turn})
    return [outcomes[number] for number in range(len(signals))]


def _encoded(one: Signal) -> tuple[str, str]:
    """What is shown in the document, and the request itself, both as JSON."""
    details = unreserved(one.details)
    request = request_of(one.source, details, one.attempt, insists=one.insists, hearsay=one.hearsay)
    return encode_details({} if one.hearsay else details), encode_details(request)


async def _written(
    connection: asyncpg.Connection, statement: str, signals: Sequence[Signal], rows: Mapping[int, tuple[str, str]]
) -> dict[int, Outcome]:
    """What became of *rows*, no two of which name their clip alike; halved until a refusal stands alone."""
    asked = [(number, signals[number], *row) for number, row in rows.items()]
    try:
        found = await connection.fetch(
            statement,
            [number for number, *_ in asked],
            [one.clip_id for _, one, *_ in asked],
            [one.cloudflare_uid for _, one, *_ in asked],
            [one.status for _, one, *_ in asked],
            [",".join(one.only_in) for _, one, *_ in asked],
            [shown for _, _, shown, _ in asked],
            [request for *_, request in asked],
        )
    except REFUSALS as problem:
        if len(asked) == 1:
            return {asked[0][0]: translated(problem)}
        numbers = list(rows)
        half = len(numbers) // 2
        outcomes = await _written(connection, statement, signals, {number: rows[number] for number in numbers[:half]})
        rest = {number: rows[number] for number in numbers[half:]}
        return outcomes | await _written(connection, statement, signals, rest)
    written: dict[int, Outcome] = {
        row["number"]: Asked(row["id"], row["pipeline"], row["status"], row["attempt"]) for row in found
    }
    left = [number for number in rows if number not in written]
    return written | (await _why_not(connection, signals, left) if left else {})


async def _why_not(
    connection: asyncpg.Connection, signals: Sequence[Signal], numbers: Sequence[int]
) -> dict[int, Outcome]:
    """Why nothing was written for these."""
    ids = [one.clip_id for one in map(signals.__getitem__, numbers) if one.clip_id]
    uids = [one.cloudflare_uid for one in map(signals.__getitem__, numbers) if one.cloudflare_uid and not one.clip_id]
    found = await connection.fetch(_WHICH, ids, uids)
    clips = {name: row for row in found for name in (row["id"], row["cloudflare_uid"])}
    return {number: _reason(signals[number], clips) for number in numbers}


def _reason(one: Signal, clips: Mapping[str | None, Mapping[str, Any]]) -> SignalError:
    name = one.clip_id or one.cloudflare_uid
    row = clips.get(name)
    if row is None:
        return UnknownClip(str(name))
    if one.only_in and row["pipeline"] not in one.only_in:
        return StatusNotInPipeline(one.status, row["pipeline"])
    return TooManySignals(TOO_MANY) if row["pending"] >= 1000 else ClipHeld(row["id"])
