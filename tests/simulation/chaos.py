"""What goes wrong with single calls: of the database, the provider, the delivery host, the bucket, the network.

Everything is drawn when it is asked for, and noted with the status in which it met a clip: what never happened proves
nothing. After `stop` nothing goes wrong any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg

from simulation import cloudflare
from simulation.bucket import refused as bucket_refuses
from simulation.faults import Answer, Broken, Call, Change, Drip, Fault, Reply, Silence, Slow
from simulation.loop import SimulatedLoop
from simulation.network import GOOD, Cut, Fate
from simulation.nodes import Node
from simulation.scenarios import Scenario

# Longer than any of the program's own limits on one statement.
_FOR_EVER = 120.0
# How long a late write stays on the way: until after the next one, or until after another has taken the lease.
_LATE_SECONDS = ((0.01, 0.5), (1.0, 5.0), (11.0, 25.0))
_DATABASE_LATENCY = (0.0003, 0.004)


class Chaos:
    """What goes wrong, and a count of what did: by fault, and by the status or call it was met in."""

    def __init__(self, loop: SimulatedLoop, scenario: Scenario, status_of: Callable[[str], str]) -> None:
        self._loop = loop
        self._scenario = scenario
        self._status_of = status_of
        self._calls = loop.draw("calls")
        self.is_over = False
        self.met: Counter[str] = Counter()
        #: What was asked for and may have been done much later: (call, uid or mark).
        self.may_be_late: set[tuple[str, str]] = set()
        self._blocked_until = -1.0

    def stop(self) -> None:
        """Let everything go well from now on."""
        self.is_over = True
        self._blocked_until = -1.0

    def saw(self, fault: str, where: str = "") -> None:
        """Note that *fault* was met *where*."""
        self.met[f"{fault} @ {where}" if where else fault] += 1

    def happens(self, trouble: str) -> bool:
        """Whether the next call meets that trouble."""
        scenario = self._scenario
        return not self.is_over and trouble in scenario.troubles and self._calls.random() < scenario.rate

    def happens_in(self, trouble: str, share: float) -> bool:
        """The same, with a share of its own."""
        return not self.is_over and trouble in self._scenario.troubles and self._calls.random() < share

    def choose(self, *choices: Any) -> Any:
        """One of them."""
        return self._calls.choice(choices)

    def between(self, least: float, most: float) -> float:
        """Something between."""
        return self._calls.uniform(least, most)

    # --- The provider ------------------------------------------------------------------------------------

    def block(self) -> None:
        """The provider refuses every call for a while, as after one too many."""
        if not self.is_over:
            self._blocked_until = self._loop.now + self._scenario.block_seconds
            self._loop.tell("the provider blocks")

    @property
    def is_blocked(self) -> bool:
        """Whether it does now."""
        return self._loop.now < self._blocked_until

    def next(self, call: Call) -> Fault | None:
        """What befalls one call of a service: the `Faults` of the simulated provider and bucket."""
        fault = self._fault(call)
        if fault is not None:
            name = f"{call.service} {_name_of(fault)}"
            status = self._status_of(call.about)
            if isinstance(fault, Slow):
                self.may_be_late.add((call.name, call.about))
            self.saw(name, call.name)
            if status:
                self.saw(f"{call.service} fault", status)
            self._loop.tell(f"{name} @ {call.name} {call.about}")
        return fault

    def _fault(self, call: Call) -> Fault | None:
        if call.service == "stream":
            if self.is_blocked:
                left = str(int(self._blocked_until - self._loop.now) + 1)
                return Answer(cloudflare.refused(429, cloudflare.THROTTLED, "throttled", {"Retry-After": left}))
            if self._scenario.is_away_for_an_hour and not self.is_over:
                return Answer(self._no_service(call))
            return self._api_fault(call) if self.happens_in("api calls", self._far_rate) else None
        if call.service == "delivery":
            return self._delivery_fault() if self.happens_in("delivery calls", self._far_rate) else None
        return self._bucket_fault() if self.happens_in("bucket calls", self._far_rate) else None

    @property
    def _far_rate(self) -> float:
        """Of calls to services: there are fewer of them than of statements."""
        return min(0.3, 4 * self._scenario.rate)

    def _no_service(self, call: Call) -> Reply:
        if self._calls.random() < 0.3:
            seconds = self.choose("1", "20", "300")
            return cloudflare.refused(429, cloudflare.THROTTLED, "throttled", {"Retry-After": seconds})
        return cloudflare.refused(self.choose(500, 502, 503), 10000, "unavailable")

    def _api_fault(self, call: Call) -> Fault:
        makes = call.name in ("copy", "enable_download", "reset_download", "delete", "direct_upload", "tus_upload")
        late = makes and call.name != "copy" and self._calls.random() < 0.2
        return self.choose(
            Answer(cloudflare.refused(self.choose(500, 502, 503, 504), 10000, "unavailable")),
            Answer(Reply(200, {"Content-Type": "text/html"}, b"<html>maintenance</html>")),
            Broken(applied=False),
            Broken(applied=True),
            Silence(applied=self.choose(False, True)),
            Slow(before_seconds=40.0 if late else self.between(0.0, 25.0)),
            Slow(after_seconds=self.between(0.0, 40.0)),
            Change(lambda reply: Reply(reply.status, reply.headers, reply.body[: len(reply.body) // 2])),
            Drip(),
        )

    def _delivery_fault(self) -> Fault:
        return self.choose(
            Answer(Reply(self.choose(404, 424, 429, 500, 503))),
            Answer(Reply(200, {"Content-Type": "text/html"}, b"<html>not yet</html>")),
            Broken(),
            Silence(),
            Slow(after_seconds=self.between(0.0, 40.0)),
        )

    def _bucket_fault(self) -> Fault:
        return self.choose(
            Answer(bucket_refuses(503, "SlowDown")),
            Answer(bucket_refuses(500, "InternalError")),
            Answer(bucket_refuses(429, "TooManyRequests")),
            Broken(applied=False),
            Broken(applied=True),
            Silence(applied=self.choose(False, True)),
            Slow(before_seconds=self.between(0.0, 10.0)),
            Slow(after_seconds=self.between(0.0, 70.0)),
        )

    # --- The network -------------------------------------------------------------------------------------

    def fate(self, node: Node | None, host: str, port: int) -> Fate:
        """What befalls one connection."""
        if not self.happens("connections"):
            return GOOD
        fate: Fate = self.choose(
            Fate(refused=True),
            Fate(black_hole=True),
            Fate(delay_seconds=self.between(0.1, 3.0)),
            Fate(cut_after_bytes=self._calls.randrange(3000), cut=self.choose(*Cut)),
        )
        kind = "refused" if fate.refused else "black hole" if fate.black_hole else "cut"
        self.saw(f"connection {'slow' if fate.delay_seconds else kind}", host)
        self._loop.tell(f"connection to {host}: {fate}")
        return fate


class DatabaseWire:
    """The way of one connection to the database, with the four fates of a write: refused, done, unheard, late."""

    def __init__(self, loop: SimulatedLoop, chaos: Chaos) -> None:
        self._loop = loop
        self._chaos = chaos
        self._draw = loop.draw("database")
        self._fate = ""
        self._is_drawn = False
        self._late_seconds: float | None = None

    def sets_out(self, name: str) -> float | None:
        if name == "reset":
            return 0.0  # decides nothing, and there is one after every statement
        self._late_seconds = None
        self._fate = self._draw_fate(name)
        self._is_drawn = bool(self._fate)
        return None if self._is_drawn else self._draw.uniform(*_DATABASE_LATENCY)

    def comes_back(self, name: str) -> float:
        return self._draw.uniform(*_DATABASE_LATENCY)

    async def request(self, name: str) -> None:
        if name == "reset":
            return
        if self._is_drawn:
            self._is_drawn = False
        else:
            self._late_seconds = None
            self._fate = self._draw_fate(name)
        await self._loop.nap(self._draw.uniform(*_DATABASE_LATENCY))
        match self._fate:
            case "refused before":
                raise _lost(self._chaos)
            case "applied late":
                self._late_seconds = self._draw.uniform(*self._draw.choice(_LATE_SECONDS))
                raise _lost(self._chaos)
            case "slow":
                await self._loop.nap(self._draw.uniform(0.1, 12.0))
            case "black hole":
                await self._loop.nap(_FOR_EVER)

    async def reply(self, name: str) -> None:
        if name == "reset":
            return
        await self._loop.nap(self._draw.uniform(*_DATABASE_LATENCY))
        if self._fate == "reply lost":
            raise _lost(self._chaos)
        if self._fate == "reply never comes":
            await self._loop.nap(_FOR_EVER)

    def arrives_after(self, name: str) -> float | None:
        return self._late_seconds

    def notice_after(self, channel: str) -> float | None:
        if self._chaos.happens("database notices"):
            self._chaos.saw("notification lost", channel)
            return None
        return self._draw.uniform(*_DATABASE_LATENCY)

    def _draw_fate(self, name: str) -> str:
        if not self._chaos.happens("database calls"):
            return ""
        fates = ("refused before", "reply lost", "applied late", "slow", "black hole", "reply never comes")
        fate: str = self._chaos.choose(*fates)
        self._chaos.saw(f"database {fate}", name)
        self._loop.tell(f"database {fate} @ {name}")
        return fate


def _lost(chaos: Chaos) -> Exception:
    """A lost connection, in the words that asyncpg has for it."""
    problem: Exception = chaos.choose(
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InternalClientError("unexpected end of stream"),
        ConnectionResetError(104, "Connection reset by peer"),
    )
    return problem


def _name_of(fault: Fault) -> str:
    match fault:
        case Answer(reply):
            return f"answers {reply.status}"
        case Broken(applied):
            return "breaks off, done" if applied else "breaks off"
        case Silence():
            return "is silent"
        case Slow(before):
            return "is slow before" if before else "is slow after"
        case Change():
            return "cuts its document"
        case _:
            return "drips"
