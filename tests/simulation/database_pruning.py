"""The statements that prune history, in worlds too short for anything to grow old."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from simulation.database_locks import Mode
from simulation.database_monitor import selected
from simulation.database_rows import Row, shape
from simulation.database_server import Answer, Session

_THE_ONE = "history"
_WINDOW = shape("lines", "through", "at")


def take(session: Session, args: tuple[Any, ...]) -> Answer:
    """One who prunes at a time. What deletes is not known here: it would have to find something old."""
    session.lock("history_pruning", _THE_ONE, Mode.UPDATE)
    return selected([Row(shape("pruned_through"), (0,))])


def window(session: Session, args: tuple[Any, ...]) -> Answer:
    after, limit, before = args
    walked = sorted((line for line in session.all("clip_events") if line["id"] > after), key=itemgetter("id"))[:limit]
    young = min((line["id"] for line in walked if line["at"] >= before), default=None)
    old = [line for line in walked if young is None or line["id"] < young]
    through = max((line["id"] for line in old), default=None)
    return selected([Row(_WINDOW, (len(walked), through, max((line["at"] for line in old), default=None)))])


def pruned_before(session: Session, args: tuple[Any, ...]) -> Answer:
    """Nothing is ever pruned here; a history that does not begin at the beginning was cut by hand."""
    first = min(session.of_clip("clip_events", args[0]), key=itemgetter("id"), default=None)
    return selected([] if first is None or first["kind"] == "created" else [Row(shape("nullif"), (None,))])
