"""What a benchmark is made of: interleaved rounds, medians, and rows that hold a ratio against its goal.

A machine is shared and changes its speed within minutes. So whatever is compared takes turns, the order is
turned round every other time, and ratios are taken within a round before their median is.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

Subject = Callable[[], Awaitable[float]]
"""Does its work once; its figure, for example how many a second."""


class Scale(StrEnum):
    """How much is measured."""

    QUICK = "quick"
    """All of them in five minutes: enough to see a mistake."""
    FULL = "full"
    """The amounts of the goals table."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a benchmark is handed: how much to measure, and a directory of its own, empty, that stays after it."""

    scale: Scale
    directory: Path

    def amount(self, quick: Any, full: Any) -> Any:
        """One or the other by the scale."""
        return quick if self.scale is Scale.QUICK else full


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that a figure should keep: at least, or at most."""

    bound: float
    is_least: bool

    def is_met(self, value: float) -> bool:
        """Whether *value* keeps the bound."""
        return value >= self.bound if self.is_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Goal:
    """The goal of what should be large."""
    return Goal(bound, True)


def at_most(bound: float) -> Goal:
    """The goal of what should be small."""
    return Goal(bound, False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured against what, and the figures behind the value.

    *unit* is empty for a ratio. *goal* is None for what is only told. *figures* are shown beside the value, in order.
    """

    what: str
    value: float
    goal: Goal | None = None
    unit: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool:
        """Whether the goal, if there is one, is kept."""
        return self.goal is None or self.goal.is_met(self.value)

    def as_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"is_met": self.is_met}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Row:
        """The other way."""
        fields = {key: document[key] for key in ("what", "value", "unit", "figures")}
        return cls(**fields, goal=Goal(**document["goal"]) if document["goal"] else None)


async def take_turns(subjects: Mapping[str, Subject], rounds: int) -> dict[str, list[float]]:
    """The figures of each subject, one a round; a first round that warms everything up is not counted."""
    for subject in subjects.values():
        await subject()
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        order = list(subjects.items())
        for name, subject in order if number % 2 == 0 else reversed(order):
            taken[name].append(await subject())
    return taken


async def call(command: Sequence[str], limit_seconds: float, told: bytes | None = None, **how: Any) -> bytes:
    """What *command*, *told* something at its input, says at its output; *how* as `create_subprocess_exec` has it.

    Raises:
        TimeoutError: it took longer than *limit_seconds*, and was killed.
        RuntimeError: it ended with an error.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, **how
    )
    try:
        async with asyncio.timeout(limit_seconds):
            said, _ = await process.communicate(told)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … ended with {process.returncode}")
    return said


def ratio(taken: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """How *of* compares to *to*: the median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(taken[of], taken[to], strict=True))


def medians(taken: Mapping[str, Sequence[float]], digits: int = 0) -> dict[str, float]:
    """The middle figure of each subject, to be shown beside a ratio."""
    return {name: round(statistics.median(values), digits or None) for name, values in taken.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which *share* (0-1) of *values* lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
