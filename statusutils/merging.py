"""Several pending requests made one, and the verdict on each of them.

The merge is a join on ``(attempt, order)``: the highest wins, so neither the order of arrival nor
repetition changes the outcome. Between the two ends an ``error`` wins only if somebody insists on it;
a step's late complaint about a stage that was proved passed does not undo ``complete``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from statusutils.progress import advance_progress
from statusutils.tables import COMPLETE, ERROR, StatusTable
from statusutils.transitions import NEEDS_EVIDENCE, Position, Request, Rule, needs_evidence, refusal


@dataclass(frozen=True, slots=True)
class Moved:
    """The request that decided: the clip goes to its status."""


@dataclass(frozen=True, slots=True)
class Outranked:
    """Allowed, but another pending request reached further."""

    by: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Allowed, but it states an outside fact: the engine looks for itself first."""

    rule: str = NEEDS_EVIDENCE


@dataclass(frozen=True, slots=True)
class Refused:
    """The law forbids it; nothing changes."""

    rule: Rule


Verdict = Moved | Outranked | Noted | Refused


@dataclass(frozen=True, slots=True)
class Judgement:
    """Where the clip stands afterwards, and a verdict for each request in the order given."""

    position: Position
    verdicts: tuple[Verdict, ...]

    @property
    def asks_for_a_look(self) -> bool:
        """Whether somebody claims an outside fact that has to be checked."""
        return any(isinstance(verdict, Noted) for verdict in self.verdicts)


def rank(table: StatusTable, asked: Request) -> tuple[int, float]:
    """The place of a request in the join; higher wins."""
    order: float = table[asked.status].order
    if asked.status == ERROR and not asked.insists:
        order = table[COMPLETE].order - 0.5
    return asked.attempt, order


def merge_requested(table: StatusTable, requests: Sequence[Request]) -> Request | None:
    """The one request that stands for all of *requests*; None when there are none. All must be of known statuses."""
    return max(requests, key=lambda asked: rank(table, asked), default=None)


def judge(table: StatusTable, at: Position, requests: Sequence[Request]) -> Judgement:
    """What becomes of *requests* for a clip that stands at *at*.

    Each is judged against where the clip stood; of those allowed and evident the merge moves it.
    """
    refusals = [refusal(table, at, asked) for asked in requests]
    evident = [
        place
        for place, (asked, rule) in enumerate(zip(requests, refusals, strict=True))
        if rule is None and not needs_evidence(table, at, asked)
    ]
    winner = merge_requested(table, [requests[place] for place in evident])
    # By its place, not its value: of several alike, one moves the clip.
    mover = next((place for place in evident if requests[place] == winner), None)
    verdicts = tuple(
        Moved() if place == mover else _verdict(table, asked, rule, winner)
        for place, (asked, rule) in enumerate(zip(requests, refusals, strict=True))
    )
    return Judgement(_moved(table, at, winner), verdicts)


def _verdict(table: StatusTable, asked: Request, rule: Rule | None, winner: Request | None) -> Verdict:
    if rule is not None:
        return Refused(rule)
    if winner is not None and rank(table, asked) <= rank(table, winner):
        return Outranked(by=winner.status)
    return Noted()


def _moved(table: StatusTable, at: Position, winner: Request | None) -> Position:
    if winner is None:
        return at
    opens_an_attempt = winner.attempt > at.attempt
    reached = 0.0 if opens_an_attempt else at.progress
    return Position(winner.attempt, winner.status, advance_progress(reached, winner.status, None, table))
