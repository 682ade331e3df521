"""Statements about heavy steps, in a world that has no workers: whoever asks is told that nobody is there."""

from __future__ import annotations

from typing import Any

from simulation.database_monitor import selected
from simulation.database_rows import Row, shape
from simulation.database_server import Answer, Session

_HEARD = shape("is_used", "waiting", "has_failures", "progress")


def enqueue(session: Session, args: tuple[Any, ...]) -> Answer:
    """No worker lives, so no step is with one."""
    return selected([])


def hear(session: Session, args: tuple[Any, ...]) -> Answer:
    return selected([Row(_HEARD, (False, [], False, "[]"))])


def tidy(session: Session, args: tuple[Any, ...]) -> Answer:
    """There is nothing to forget."""
    return [], "DELETE 0"
