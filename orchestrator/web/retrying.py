"""Retrying all failed clips that fit a filter: first a count of what would be asked, then the asking, in batches.

Nothing is kept between two calls. Each counts afresh, asks for at most `BATCH` clips and says how many remain; whoever
wants all calls again until none do. A clip that failed after the count was made is not in it, so that the same call
may be sent twice, and no clip is tried over and over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
from aiohttp import web

from orchestrator.pipelines import pipeline_for
from orchestrator.pipelines.limits import retry_time
from orchestrator.storage.clips import Clip
from orchestrator.web.asking import SOURCE
from orchestrator.web.bodies import read_model
from orchestrator.web.connections import connection_of
from orchestrator.web.idempotency import Answer, keep_answer, making, once
from orchestrator.web.metrics import METRICS
from orchestrator.web.problems import Problem
from orchestrator.web.reading import MAX_LIMIT, ListQuery, checked, query_from, read_page
from orchestrator.web.schemas import BulkRetry
from orchestrator.web.services import services_of
from orchestrator.web.views import json_response, timestamp
from signals import Retry, SignalError, signal_retries
from statusutils import ERROR, TABLES

# Clips that one count considers: more take more than a second to read, and the newest come first.
CONSIDERED_MAX = 5000
# Pages of the list that one count reads: where hardly any clip fits, each looks through tens of thousands.
_PAGES_MAX = 40
# Clips that one call asks for: a second's work at most, and the monitor judges as many in one round.
BATCH = 500
# Clips in one statement: a row's trigger takes some 0.3 ms, and nobody waits long for a lock.
_STATEMENT = 100
# How far the count may have changed since it was shown before a person is to look again.
_DIFFERS_MIN, _DIFFERS_SHARE = 5, 0.1

# Why a failed clip is not asked for, in the order in which they are told.
WHY_NOT: Mapping[str, str] = {
    "nothing-left": "nothing of them is left to start from",
    "asked-already": "something is asked for them already",
    "failed-since": "they failed after the count was made",
    "unknown-pipeline": "only a newer version of this program knows their pipeline",
}


@dataclass(frozen=True, slots=True)
class Count:
    """What retrying would do: the clips it would ask for, and how many of the others for which reason not.

    *automatic* of them would be tried again by themselves, later; *is_whole* is false where the count was ended.
    """

    retries: tuple[Retry, ...]
    not_retried: Mapping[str, int]
    automatic: int
    is_whole: bool
    failed_before: datetime


async def count_retries(connection: asyncpg.Connection, query: ListQuery, failed_before: datetime | None) -> Count:
    """Go through the failed clips that fit *query*, newest first, and sort them out."""
    at = failed_before or await connection.fetchval("SELECT clock_timestamp()")
    retries: list[Retry] = []
    why_not: dict[str, int] = {}
    automatic = considered = 0
    page_query = replace(query, statuses=(ERROR,), limit=MAX_LIMIT, before=None, after=None)
    for _ in range(_PAGES_MAX):
        page = await read_page(connection, page_query)
        for clip in page.clips:
            outcome = retry_for(clip, at)
            if isinstance(outcome, Retry):
                retries.append(outcome)
                automatic += retry_time(clip) is not None
            else:
                why_not[outcome] = why_not.get(outcome, 0) + 1
        considered += len(page.clips)
        if page.more is None or considered >= CONSIDERED_MAX:
            return Count(tuple(retries), why_not, automatic, page.more is None, at)
        page_query = replace(page_query, before=page.more)
    return Count(tuple(retries), why_not, automatic, False, at)


def retry_for(clip: Clip, failed_before: datetime) -> Retry | str:
    """The new attempt to ask for, or the word for why not."""
    if clip.pipeline not in TABLES:
        return "unknown-pipeline"
    if clip.status_since > failed_before:
        return "failed-since"
    if clip.pending:
        return "asked-already"
    resume_at = pipeline_for(clip.pipeline).resume_status(clip)
    return "nothing-left" if resume_at is None else Retry(clip.id, clip.attempt, resume_at)


def refuse_another_count(count: Count, expected: int) -> None:
    """Refuse to act on a count that is not the one a person has seen, give or take a few.

    Clips that are asked for already may be missing from it: then this call, or its like, came twice.
    """
    found = len(count.retries)
    tolerance = max(_DIFFERS_MIN, expected * _DIFFERS_SHARE)
    is_explained = expected - found <= tolerance + count.not_retried.get("asked-already", 0)
    # More are no reason: of them no more are asked for than were confirmed, and none that failed since the count.
    if not is_explained:
        raise Problem("count-changed", f"{found} clips can be retried now, not {expected}; look again and confirm")


async def ask_for(connection: asyncpg.Connection, retries: Sequence[Retry], most: int) -> tuple[set[str], set[str]]:
    """Ask for *most* of *retries*; the ids that were recorded, and of those refused: their documents are full.

    What is in neither is held by somebody just now, or has moved: it is counted again the next time.
    """
    asked: set[str] = set()
    refused: set[str] = set()
    start = 0
    # Finding the ones at fault takes two statements each: they have a bound of their own.
    while start < len(retries) and len(asked) < most and len(refused) < most:
        batch = retries[start : start + min(_STATEMENT, most - len(asked))]
        recorded, left_out = await _ask_halving(connection, batch)
        asked |= recorded
        refused |= left_out
        start += len(batch)
    return asked, refused


def remaining_of(count: Count, expected: int, asked: set[str], refused: set[str]) -> int:
    """How many can still be asked for of those that were confirmed; the refused are met, and counted, again."""
    left = len(count.retries) - len(asked)
    is_stuck = bool(refused) and not asked
    return 0 if is_stuck or left <= len(refused) else min(left, max(0, expected - len(asked)))


async def _ask_halving(connection: asyncpg.Connection, retries: Sequence[Retry]) -> tuple[set[str], set[str]]:
    """One statement for all of them; where it is refused, halves, until the rows at fault are found."""
    try:
        async with connection.transaction():
            return await signal_retries(connection, retries, SOURCE), set()
    except SignalError:
        if len(retries) == 1:
            return set(), {retries[0].clip_id}
    half = len(retries) // 2
    one, refused_of_one = await _ask_halving(connection, retries[:half])
    other, refused_of_other = await _ask_halving(connection, retries[half:])
    return one | other, refused_of_one | refused_of_other


async def preview_retries(request: web.Request) -> web.Response:
    """Count what retrying the failed clips of a filter would do; nothing is asked."""
    query = query_from(request)
    async with connection_of(request) as connection:
        count = await count_retries(connection, query, None)
    return json_response(count_as_json(count))


@once
async def retry_clips(request: web.Request) -> web.Response:
    """Ask for a new attempt at the failed clips of a filter, some hundreds a call; repeat until `remaining` is 0."""
    wanted = await read_model(request, BulkRetry)
    query = checked(
        ListQuery(pipeline=wanted.pipeline, search=wanted.search, error_code=wanted.error_code, view=wanted.view)
    )
    async with making(request) as connection:
        count = await count_retries(connection, query, failed_before_of(wanted.failed_before))
        refuse_another_count(count, wanted.expected)
        asked, refused = await ask_for(connection, count.retries, min(BATCH, wanted.expected))
        remaining = remaining_of(count, wanted.expected, asked, refused)
        answer = Answer(result_as_json(count, asked, refused, remaining), 202)
        await keep_answer(request, connection, answer)
    tell(request, len(asked))
    return answer.response()


def failed_before_of(text: str) -> datetime:
    """The moment a count was made, as the count itself told it."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Problem("invalid", "failed_before: must be the time that the count told") from None


def tell(request: web.Request, asked: int) -> None:
    """Count the signals that were committed, and hint at them."""
    for _ in range(asked):
        request.app[METRICS].count_signal(SOURCE)
    if asked:
        services_of(request).wakeups.wake()


def count_as_json(count: Count) -> dict[str, Any]:
    """What a count says."""
    return {
        "clips": len(count.retries),
        "not_retried": dict(count.not_retried),
        "automatic": count.automatic,
        "whole": count.is_whole,
        "failed_before": timestamp(count.failed_before),
    }


def result_as_json(count: Count, asked: set[str], refused: set[str], remaining: int) -> dict[str, Any]:
    """What one call did, and what remains."""
    return {
        "asked": len(asked),
        "refused": len(refused),
        "remaining": remaining,
        "not_retried": dict(count.not_retried),
        "whole": count.is_whole,
        "failed_before": timestamp(count.failed_before),
        "recorded": True,
    }
