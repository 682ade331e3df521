"""A node: one process of the simulated world, with clocks of its own, that can be paused and killed."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

# What the true wall clock shows when a run begins.
EPOCH = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()


class Node:
    """One process. *host* is where it can be reached: a process started anew has the host of the one before it.

    *rate* is how fast its clocks run; *wall_seconds* is by how much its wall clock is ahead, and may jump.
    """

    def __init__(self, name: str, host: str | None = None, rate: float = 1.0, wall_seconds: float = 0.0) -> None:
        self.name = name
        self.host = host or name
        self.rate = rate
        self.wall_seconds = wall_seconds
        #: Its wall clock is kept right by others, however its own clocks run.
        self.is_wall_right = False
        self.is_dead = False
        self.frozen_until = 0.0
        self.frozen: list[Any] = []
        self.steps = 0
        #: Told when it is killed: the network resets its connections, the database ends its sessions.
        self.on_crash: list[Callable[[], None]] = []

    def monotonic(self, now: float) -> float:
        """Its monotonic clock at the true time *now*."""
        return now * self.rate

    def true_time(self, monotonic: float) -> float:
        """The true time at which its monotonic clock shows *monotonic*."""
        return monotonic / self.rate

    def wall(self, now: float) -> float:
        """Its wall clock at the true time *now*, in seconds since 1970."""
        return EPOCH + now if self.is_wall_right else EPOCH + now * self.rate + self.wall_seconds

    def __repr__(self) -> str:
        return f"Node({self.name})"


#: Whose step is running; None outside of every process.
NODE: ContextVar[Node | None] = ContextVar("node", default=None)


def wall_clock(now: float) -> float:
    """The true wall clock at the true time *now*: the database's, and everybody's who is no node."""
    node = NODE.get()
    return EPOCH + now if node is None else node.wall(now)
