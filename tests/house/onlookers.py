"""What those see who only look while the database is away: a load balancer, a caller of the API, a reader of events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from house.checking import Findings, Ratchet

# A caller is told within the waits for a connection and for an answer on it; on a busy machine a little later.
CALL_LIMIT_SECONDS = 25.0
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=6)
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=CALL_LIMIT_SECONDS)
_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)
_PROBE_PAUSE_SECONDS = 0.1
_CALL_PAUSE_SECONDS = 0.2


@dataclass
class Readiness:
    """Asks `/readyz` like a load balancer; *seen* has when it asked, when it was told (by the monotonic clock), and
    whether that was ready."""

    http: aiohttp.ClientSession
    address: str
    seen: list[tuple[float, float, bool]] = field(default_factory=list)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            asked_at = time.monotonic()
            try:
                async with self.http.get(f"{self.address}/readyz", timeout=_PROBE_TIMEOUT) as answer:
                    is_ready = answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                is_ready = False
            self.seen.append((asked_at, time.monotonic(), is_ready))
            await asyncio.sleep(_PROBE_PAUSE_SECONDS)

    def was_red(self, since: float, until: float) -> bool:
        """Whether anybody was told in between, or asked in between and was told later, that it is not ready.

        Who asked just before a fault and was told in the middle of it has learned of it.
        """
        return any(not ready for asked_at, told_at, ready in self.seen if told_at >= since and asked_at <= until)

    @property
    def slowest_seconds(self) -> float:
        """How long the slowest answer took."""
        return max((told_at - asked_at for asked_at, told_at, _ in self.seen), default=0.0)

    async def until_green(self, since: float, limit_seconds: float) -> float | None:
        """Seconds from *since* to the first word that it is ready; None when it takes longer."""
        while True:
            green = next((at for at, _, ready in self.seen if ready and since <= at <= since + limit_seconds), None)
            if green is not None:
                return green - since
            if time.monotonic() > since + limit_seconds:
                return None
            await asyncio.sleep(_PROBE_PAUSE_SECONDS)


@dataclass
class Caller:
    """Lists clips for ever: gets a list with clips in it, or a problem that says the database is away; nothing else."""

    http: aiohttp.ClientSession
    address: str
    findings: Findings
    expects_clips: bool = False
    answers: int = 0
    refusals: int = 0
    slowest_seconds: float = 0.0

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            started = time.monotonic()
            try:
                async with self.http.get(f"{self.address}/api/clips?limit=5", timeout=_CALL_TIMEOUT) as answer:
                    self._take(answer, await answer.json(content_type=None))
            except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
                self.findings.violations.append(f"a call of the list got no answer: {problem!r}")
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
            await asyncio.sleep(_CALL_PAUSE_SECONDS)

    def _take(self, answer: aiohttp.ClientResponse, told: dict[str, object]) -> None:
        if answer.status == 200:
            self.answers += 1
            self.findings.claim(bool(told["clips"]) or not self.expects_clips, "the list of clips was told to be empty")
            self.expects_clips = self.expects_clips or bool(told["clips"])
            return
        self.refusals += 1
        kind, code = answer.content_type, told.get("code")
        sound = answer.status == 503 and kind == "application/problem+json" and code == "database-away"
        self.findings.claim(sound, f"a call of the list was answered {answer.status} {kind} {code}")
        self.findings.claim("Retry-After" in answer.headers, "a refusal does not say when to come again")


@dataclass
class PatientReader:
    """Reads one event stream for as long as the server keeps it, and comes back with the last id it was told."""

    http: aiohttp.ClientSession
    address: str
    ratchet: Ratchet
    clip_ids: Sequence[str] = ()
    told: dict[str, int] = field(default_factory=dict)
    """The version told last, by clip."""
    connections: int = 0
    _last_id: str = ""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._read()
            await asyncio.sleep(_CALL_PAUSE_SECONDS)

    async def _read(self) -> None:
        asked = [("clip", clip_id) for clip_id in self.clip_ids]
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        url = f"{self.address}/api/events"
        async with self.http.get(url, params=asked, headers=headers, timeout=_STREAM_TIMEOUT) as answer:
            if answer.status != 200:
                return
            self.connections += 1
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    self._last_id = value
                elif name == "data":
                    event = json.loads(value)
                    self.told[event["clip_id"]] = event["version"]
                    self.ratchet.see(event["clip_id"], event)
