"""Which move is allowed: a table of rules, and the functions that read it.

Rules are read from the top; the first that applies refuses. A move that no rule refuses is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from statusutils.tables import COMPLETE, ERROR, STREAM, StatusTable


@dataclass(frozen=True, slots=True)
class Position:
    """Where a clip stands."""

    attempt: int
    status: str
    progress: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request that a clip move to *status* in *attempt*.

    *observed* says that its author has looked at the outside fact the status states: only the
    engine's own steps can say so. *insists* marks a person, or a check that found the finished
    object gone: their ``error`` ends even a complete clip. *hearsay* marks what was only heard
    from another service: even its ``error`` is looked into before it is believed.
    """

    attempt: int
    status: str
    observed: bool = False
    insists: bool = False
    hearsay: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to refuse, with the sentence that history and callers see."""

    name: str
    sentence: str
    refuses: Callable[[StatusTable, Position, Request], bool]


def _is_unknown(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.status not in table


def _is_from_an_older_attempt(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.attempt < at.attempt


def _skips_an_attempt(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.attempt > at.attempt + 1


def _retries_what_has_not_failed(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.attempt == at.attempt + 1 and at.status != ERROR


def _retries_into_an_end(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.attempt == at.attempt + 1 and table[asked.status].is_terminal


def _repeats(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.attempt == at.attempt and asked.status == at.status


def _leaves_complete(table: StatusTable, at: Position, asked: Request) -> bool:
    return at.status == COMPLETE and not (asked.status == ERROR and asked.insists)


def _leaves_error(table: StatusTable, at: Position, asked: Request) -> bool:
    return at.status == ERROR and asked.attempt == at.attempt


def _goes_back(table: StatusTable, at: Position, asked: Request) -> bool:
    return asked.attempt == at.attempt and not is_valid_status_transition(at.status, asked.status, table)


RULES = (
    Rule("unknown-status", "the pipeline has no such status", _is_unknown),
    Rule("older-attempt", "it belongs to an attempt that is over", _is_from_an_older_attempt),
    Rule("skipped-attempt", "attempts are opened one at a time", _skips_an_attempt),
    Rule("not-failed", "only a failed clip can be tried again", _retries_what_has_not_failed),
    Rule("retry-to-end", "a new attempt cannot start at an end", _retries_into_an_end),
    Rule("repeated", "the clip is already there", _repeats),
    Rule(
        "complete-is-final",
        "a complete clip yields only to an error that a person or a check asks for",
        _leaves_complete,
    ),
    Rule("error-needs-retry", "a failed clip moves only when it is tried again", _leaves_error),
    Rule("backward", "status never goes back", _goes_back),
)

# Not a refusal: the engine looks at the outside world first, and moves the clip on what it sees.
NEEDS_EVIDENCE = "needs-evidence"


def is_valid_status_transition(current: str, new: str, table: StatusTable = STREAM) -> bool:
    """Whether a clip at *current* may move to *new* within one attempt.

    Valid are moves to a higher order (skipping is allowed), to ``error`` from every other status, and
    between alternating pairs. An unknown status on either side is not valid. Nothing leaves ``error``,
    the last in order; that ``complete`` yields only to an insisting ``error`` is a rule of `refusal`.
    """
    if current not in table or new not in table or current == new:
        return False
    return table[new].order > table[current].order or table.may_alternate(current, new)


def refusal(table: StatusTable, at: Position, asked: Request) -> Rule | None:
    """The first rule that refuses the move, or None when it is allowed."""
    status = asked.status if asked.status in table else ""  # every unknown one is refused alike
    ahead = min(max(asked.attempt - at.attempt, -1), 2)
    return _refusal(table, at.status, status, ahead, asked.insists)


@lru_cache(maxsize=4096)  # two tables have two thousand cases
def _refusal(table: StatusTable, standing: str, status: str, ahead: int, insists: bool) -> Rule | None:
    """The answer for a request that is *ahead* of the clip by so many attempts: no rule looks at more than that."""
    at, asked = Position(1, standing, 0.0), Request(1 + ahead, status, insists=insists)
    return next((rule for rule in RULES if rule.refuses(table, at, asked)), None)


def needs_evidence(table: StatusTable, at: Position, asked: Request) -> bool:
    """Whether the status states an outside fact nobody has looked at yet.

    Opening a new attempt states no fact: it only says where to look again from.
    """
    claims = table[asked.status].fact or asked.hearsay
    return asked.attempt == at.attempt and claims and not asked.observed
