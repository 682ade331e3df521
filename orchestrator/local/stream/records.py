"""What was asked of the stand-in: API calls by route, and what the MP4 delivery sent."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

# The last calls and ranges are kept in full; counts cover everything.
_KEPT_CALLS = 2000
_KEPT_RANGES = 200


@dataclass(frozen=True, slots=True)
class Call:
    """One answered call; *at_seconds* counts from the start of the log."""

    at_seconds: float
    route: str
    status: int


@dataclass(frozen=True, slots=True)
class ListCall:
    """One list call: how many uids it asked for by `id=`, how many rows it got."""

    uids_asked: int
    rows: int


class CallLog:
    """Calls counted by method and route, as in `"GET /stream/{uid}"`.

    Only calls of the API host are in `total`, which is what the rate limit counts; calls of the
    upload host are among the routes all the same ("PATCH /tus/{uid}").
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._started = time.monotonic()
        self._statuses: dict[str, Counter[int]] = {}
        self.total = 0
        self.limited = 0
        self.recent: deque[Call] = deque(maxlen=_KEPT_CALLS)
        self.lists: deque[ListCall] = deque(maxlen=_KEPT_CALLS)

    def record(self, route: str, status: int, *, is_api: bool, was_limited: bool = False) -> None:
        """Note one answered call."""
        self.total += is_api
        self.limited += was_limited
        self._statuses.setdefault(route, Counter())[status] += 1
        self.recent.append(Call(time.monotonic() - self._started, route, status))

    def record_list(self, uids_asked: int, rows: int) -> None:
        """Note what one list call carried."""
        self.lists.append(ListCall(uids_asked, rows))

    def count(self, route: str, status: int | None = None) -> int:
        """How many calls of *route* were answered, or answered with *status*."""
        statuses = self._statuses.get(route, Counter())
        return statuses.total() if status is None else statuses[status]

    def as_json(self) -> dict[str, Any]:
        """`{"total", "limited", "by_route": {route: {"count", "statuses"}}, "lists": […], "recent": […]}`"""
        by_route = {
            route: {"count": statuses.total(), "statuses": {str(status): n for status, n in statuses.items()}}
            for route, statuses in sorted(self._statuses.items())
        }
        return {
            "total": self.total,
            "limited": self.limited,
            "by_route": by_route,
            "lists": [asdict(entry) for entry in self.lists],
            "recent": [asdict(call) for call in self.recent],
        }


@dataclass(slots=True)
class FileTraffic:
    """What one video's files for download cost."""

    bytes_sent: int = 0
    requests: int = 0
    ranged_requests: int = 0
    ranges: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_RANGES))


class Traffic:
    """GET requests for MP4 and M4A files by uid, with the bytes that really left."""

    def __init__(self) -> None:
        self._by_uid: dict[str, FileTraffic] = {}

    def reset(self) -> None:
        """Forget everything."""
        self._by_uid.clear()

    def of(self, uid: str) -> FileTraffic:
        """The account of one video; zeros if nothing was asked."""
        return self._by_uid.setdefault(uid, FileTraffic())

    def requested(self, uid: str, range_header: str | None) -> None:
        """Note one request."""
        account = self.of(uid)
        account.requests += 1
        if range_header is not None:
            account.ranged_requests += 1
            account.ranges.append(range_header)

    def sent(self, uid: str, size_bytes: int) -> None:
        """Note bytes that were handed to the network."""
        self.of(uid).bytes_sent += size_bytes

    def as_json(self) -> dict[str, Any]:
        """`{uid: {"bytes_sent", "requests", "ranged_requests", "ranges": […]}}`"""
        return {uid: {**asdict(account), "ranges": list(account.ranges)} for uid, account in self._by_uid.items()}
