"""Row locks: who holds which, who waits, and who waits for whom."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any

Target = tuple[str, Any]


class Mode(IntEnum):
    """The strengths of a row lock, as PostgreSQL orders them."""

    KEY_SHARE = 0
    SHARE = 1
    NO_KEY_UPDATE = 2
    UPDATE = 3


_CONFLICTS = {
    Mode.KEY_SHARE: (Mode.UPDATE,),
    Mode.SHARE: (Mode.NO_KEY_UPDATE, Mode.UPDATE),
    Mode.NO_KEY_UPDATE: (Mode.SHARE, Mode.NO_KEY_UPDATE, Mode.UPDATE),
    Mode.UPDATE: (Mode.KEY_SHARE, Mode.SHARE, Mode.NO_KEY_UPDATE, Mode.UPDATE),
}


class Blocked(Exception):
    """The lock is held by somebody; whoever wants it has to wait, or to pass the row over."""

    def __init__(self, target: Target, mode: Mode) -> None:
        super().__init__(target, mode)
        self.target = target
        self.mode = mode


class Locks:
    """The locks of one server. Holders and waiters are sessions; none of it depends on their order in memory."""

    def __init__(self) -> None:
        self.holders: dict[Target, dict[Any, Mode]] = {}
        self.queues: dict[Target, deque[Any]] = {}

    def in_the_way(self, owner: Any, target: Target, mode: Mode) -> list[Any]:
        """Whose locks keep *owner* from taking this one."""
        held = self.holders.get(target)
        if not held:
            return []
        conflicts = _CONFLICTS[mode]
        return [other for other, theirs in held.items() if other is not owner and theirs in conflicts]

    def take(self, owner: Any, target: Target, mode: Mode) -> Mode | None:
        """Take or strengthen a lock nobody stands in the way of; the mode held before, None when there was none."""
        held = self.holders.setdefault(target, {})
        before = held.get(owner)
        held[owner] = mode if before is None else max(before, mode)
        return before

    def give_back(self, owner: Any, target: Target, mode: Mode | None) -> list[Any]:
        """Return to the mode held before; who waits for the lock and may try again."""
        held = self.holders[target]
        if mode is not None:
            held[owner] = mode
        else:
            held.pop(owner, None)
            if not held:
                del self.holders[target]
        return list(self.queues.get(target, ()))

    def is_deadlocked(self, waiter: Any) -> bool:
        """Whether *waiter* waits, by way of others, for itself."""
        seen: list[Any] = []
        ahead = [waiter]
        while ahead:
            session = ahead.pop()
            if session.waiting is None:
                continue
            for holder in self.in_the_way(session, session.waiting.target, session.waiting.mode):
                if holder is waiter:
                    return True
                if holder not in seen:
                    seen.append(holder)
                    ahead.append(holder)
        return False
