"""One simulated day as values: what is asked for, and what came of it. They travel between processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Day:
    """What is simulated: so many clips, with webhooks or without, by which policy, and with how long a block."""

    clips: int
    webhooks: bool = False
    fixed: bool = False
    block_seconds: float = 0.0
    seed: int = 1


@dataclass(slots=True)
class Seen:
    """What came of it. Delays are seconds by transition, *tokens* the budget every ten seconds."""

    calls: Counter[str] = field(default_factory=Counter)
    call_times: list[float] = field(default_factory=list)
    limited: int = 0
    probes: int = 0
    delays: dict[str, list[float]] = field(default_factory=dict)
    tokens: list[tuple[float, float]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    seconds: float = 0.0
