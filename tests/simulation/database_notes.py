"""Notes for people on what passed between provider and program: taken, and not kept, for nothing decides by them."""

from __future__ import annotations

from simulation.database_server import Answer, Session


def taken(session: Session, args: tuple[object, ...]) -> Answer:
    """Nothing is kept, and nothing told."""
    return [], "INSERT 0 0"


def forgotten(session: Session, args: tuple[object, ...]) -> Answer:
    """There is nothing to forget."""
    return [], "DELETE 0"
