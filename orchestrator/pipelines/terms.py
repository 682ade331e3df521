"""The terms in which a pipeline speaks to the engine: steps, effects, plans.

A pipeline is a status table, a pure plan, and hands that look and carry out. The engine knows these terms
and no pipeline's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from orchestrator.pipelines.limits import Limits, refuse_gaps
from orchestrator.storage.clips import Clip
from statusutils import StatusTable


@dataclass(frozen=True, slots=True)
class Step:
    """A move the engine asks for on what it has seen.

    *reason* is the sentence in the history; *facts* are columns of the clip that are now known; *heals* says of an
    error that a new attempt may not meet it again.
    """

    status: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    heals: bool = False


class Effect(Protocol):
    """Something to do outside, as a value. The same effect may be carried out again without harm."""

    @property
    def clip_id(self) -> str:
        """Whose it is."""
        ...

    @property
    def attempt(self) -> int:
        """The attempt it belongs to."""
        ...


def effect_name(effect: Effect) -> str:
    """The effect's kind in words, for bounds, history and logs: ``transfer-to-bucket``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(effect).__name__).lower()


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows for one clip now: at most one step, effects, and when to look again (None: never).

    *step_percent* is the current status's own 0-100; *details* are merged into the document, *cleared* names what is
    dropped from it.
    """

    look_at: datetime | None
    step: Step | None = None
    effects: tuple[Effect, ...] = ()
    step_percent: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    cleared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LookKind:
    """One way of looking at clips, and how many one look takes at most."""

    name: str
    batch: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The pure half of a pipeline. The engine applies its *limits*; the plan need not know them.

    *words* say by status what a clip waits for there, where the row alone does not tell more.

    Raises ValueError for limits that leave out a status.
    """

    table: StatusTable
    limits: Limits
    look_kind: Callable[[Clip], LookKind]
    plan: Callable[[Clip, Any, datetime], Plan]
    resume_status: Callable[[Clip], str | None]
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_gaps(self.table, self.limits)


class Reports(Protocol):
    """How a running effect tells of itself before it is done."""

    def progress(self, status: str, percent: float | None) -> None:
        """The step's own percentage (0-100) while the clip is at *status*; cheap, may be called often."""
        ...

    async def step(self, step: Step) -> None:
        """Ask for a move in the middle of the effect."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an effect: perhaps a move, perhaps details."""

    step: Step | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Hands(Protocol):
    """The half of a pipeline that talks to the world."""

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        """What is to be seen of each clip, by clip id; a `DriverError` for a clip that alone could not be seen.

        Raises:
            TransientError: nothing could be seen; look again later.
            PermanentError: nothing can be seen until a person changes something.
        """
        ...

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        """Do it; safe to repeat, and to be cancelled at any await.

        Raises:
            TransientError, PermanentError: as the driver says.
        """
        ...

    def capacity(self, effect: Effect) -> int:
        """How many effects of this kind may run at once in this process."""
        ...

    def queue_of(self, effect: Effect) -> str | None:
        """The queue from which workers on other hosts may take it; None for what is done where it is planned.

        Such an effect ends with a step, and its plan needs no look: a worker asks it about the row alone.
        """
        ...

    async def tidy(self) -> Mapping[str, int]:
        """Clear what crashes have left outside, and say how much of what; called by the leader every hour.

        Safe to repeat and to fail.

        Raises:
            TransientError, PermanentError: as the driver says.
        """
        ...
