"""What can go wrong at a simulated service, as values; a script decides which call meets which.

A service asks its script at every call and is answered with a fault or None. Lanes enumerate calls and faults
with `Scripted`; the simulation hands in a script that draws them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """One call as a script sees it.

    *service* is ``stream``, ``delivery`` or ``bucket``; *about* a uid, a creator or a key, *part* the number of a part
    (0: none); *number* counts the calls of this name from 1.
    """

    service: str
    name: str
    about: str
    number: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is sent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class ReplyLost(Exception):
    """The connection broke instead of an answer."""


class NoReply(Exception):
    """Nothing comes, and the connection stays open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """This answer instead of the true one; what was asked for is done all the same when *applied*."""

    reply: Reply
    applied: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection breaks without an answer, before or (*applied*) after the thing was done."""

    applied: bool = False


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer ever, before or (*applied*) after the thing was done."""

    applied: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Done, and the answer altered on its way."""

    change: Callable[[Reply], Reply]


@dataclass(frozen=True, slots=True)
class Slow:
    """Done after a while, answered after another."""

    before_seconds: float = 0.0
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Drip:
    """Headers at once, then a byte of nothing every so often, for ever."""

    pause_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Something else happens just before, or just after, the thing is done; the answer is the true one."""

    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """The answer is written byte by byte by *write*; for delivery hosts, see `simulation.delivery.Wire`."""

    write: Callable[[Any], Awaitable[None]]


Fault = Answer | Broken | Silence | Change | Slow | Drip | Meanwhile | Raw


class Faults(Protocol):
    """Who decides what a call meets."""

    def next(self, call: Call) -> Fault | None:
        """What goes wrong with this call; None when nothing does."""
        ...


class NoFaults:
    """Everything goes well."""

    def next(self, call: Call) -> Fault | None:
        return None


class Scripted:
    """Faults by the name of the call: the next ones in order, and what every call meets while it lasts.

    ``once("enable_download", fault)``; ``always("list", fault)`` until ``heal()``. *met* says how often each was met.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Fault | None]] = {}
        self._lasting: dict[str, Fault] = {}
        self.met: Counter[str] = Counter()
        self.first_met: Callable[[], None] | None = None

    def once(self, name: str, *faults: Fault | None) -> None:
        """The next calls of that name meet these; None lets one pass."""
        self._waiting.setdefault(name, []).extend(faults)

    def always(self, name: str, fault: Fault) -> None:
        """Every call of that name meets it from now on, after those of `once`."""
        self._lasting[name] = fault

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self._waiting.clear()
        self._lasting.clear()

    def next(self, call: Call) -> Fault | None:
        waiting = self._waiting.get(call.name)
        fault = waiting.pop(0) if waiting else self._lasting.get(call.name)
        if fault is not None:
            self.met[call.name] += 1
            if self.first_met is not None:
                tell, self.first_met = self.first_met, None
                tell()
        return fault


def meet(fault: Fault | None, perform: Callable[[], Reply]) -> Reply:
    """The answer that reaches the caller, with what was asked for done or not.

    Raises:
        ReplyLost, NoReply: no answer reaches the caller.
    """
    match fault:
        case Answer(reply, applied):
            if applied:
                perform()
            return reply
        case Broken(applied):
            if applied:
                perform()
            raise ReplyLost
        case Silence(applied):
            if applied:
                perform()
            raise NoReply
        case Change(change):
            return change(perform())
        case Meanwhile(before, after):
            if before is not None:
                before()
            reply = perform()
            if after is not None:
                after()
            return reply
        case _:
            return perform()


def changed_document(change: Callable[[Any], Any]) -> Change:
    """A change of the answer's JSON document."""

    def apply(reply: Reply) -> Reply:
        return Reply(reply.status, reply.headers, json.dumps(change(json.loads(reply.body))).encode())

    return Change(apply)
