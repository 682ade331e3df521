"""Keeps processes of the program running, as a service manager does, and ends or stops them in every rude way."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from house import House

_POLL_SECONDS = 0.02
# What the program says once it does its work.
_UP = (b"the web process listens", b"leading", b"standing by", b"the worker takes heavy steps")
_LEADING = re.compile(rb"\] leading\s+epoch=(\d+)")
# A start takes two seconds; on a busy machine many times that.
_START_SECONDS = 60.0
# What a stop may take.
TERM_LIMIT_SECONDS = 30.0


@dataclass
class Place:
    """One process that is to run, under the same name however often it is started anew."""

    name: str
    command: str
    environment: Mapping[str, str]
    # What stands before its command: the host it runs on, where that is not this one.
    inside: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    # What was done to the present process; one that ends without it has died by itself.
    was_hit: bool = False
    is_stopped: bool = False
    starts: int = 0
    stopped_seconds: float = 0.0
    log: Path | None = None
    log_offset: int = 0

    @property
    def is_hittable(self) -> bool:
        """Whether it runs and nobody is at it already."""
        return self.process is not None and self.process.poll() is None and not self.is_stopped and not self.was_hit

    @property
    def is_up(self) -> bool:
        """Whether the present process has said that it works; before that it has nothing to give up."""
        return any(sentence in self.said() for sentence in _UP)

    def has_led(self, epoch: int) -> bool:
        """Whether the present process, not one before it, began that term."""
        return str(epoch).encode() in _LEADING.findall(self.said())

    def said(self, since: int = 0) -> bytes:
        """What the present process has written, from that byte of its words on."""
        if self.log is None:
            return b""
        with self.log.open("rb") as opened:
            opened.seek(self.log_offset + since)
            return opened.read()


@dataclass
class Supervisor:
    """The places of one house. *complaints* are the promises about processes that were broken."""

    house: House
    places: list[Place]
    complaints: list[str] = field(default_factory=list)
    slowest_stop_seconds: float = 0.0
    is_ending: bool = False

    def place(self, name: str) -> Place:
        """The place of that name."""
        return next(place for place in self.places if place.name == name)

    async def keep(self, place: Place) -> None:
        """Start, wait until it ends, start again."""
        while not self.is_ending:
            place.was_hit = place.is_stopped = False
            place.stopped_seconds = 0.0
            place.log = self.house.log_of(place.name)
            place.log_offset = place.log.stat().st_size if place.log.exists() else 0
            place.process = self.house.start(
                place.command, name=place.name, environment=place.environment, inside=place.inside
            )
            place.starts += 1
            while place.process.poll() is None:
                await asyncio.sleep(_POLL_SECONDS)
            # A monitor that was stopped for half a minute ends itself: it cannot trust its own loop any more.
            if not place.was_hit and place.stopped_seconds < 25 and not self.is_ending:
                self.complaints.append(f"{place.name} ended by itself with {place.process.returncode}")
            if not place.was_hit:
                await asyncio.sleep(1)  # one that cannot start may not take up the machine

    def kill(self, place: Place) -> None:
        """SIGKILL."""
        assert place.process is not None
        place.was_hit = True
        place.process.kill()

    async def stop(self, place: Place, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after *seconds*."""
        process = place.process
        assert process is not None
        place.is_stopped = True
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)
            place.stopped_seconds = seconds
            place.is_stopped = False

    async def terminate(self, place: Place) -> None:
        """SIGTERM; it has to end well, and in time."""
        process = place.process
        assert process is not None
        place.was_hit = True
        started = time.monotonic()
        process.terminate()
        while process.poll() is None:
            if time.monotonic() - started > TERM_LIMIT_SECONDS:
                self.complaints.append(f"L9: {place.name} did not end within {TERM_LIMIT_SECONDS:.0f} s of SIGTERM")
                process.kill()
            await asyncio.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - started
        self.slowest_stop_seconds = max(self.slowest_stop_seconds, seconds)
        if process.returncode != 0:
            self.complaints.append(f"L9: {place.name} ended with {process.returncode} after SIGTERM")


@asynccontextmanager
async def supervised(house: House, places: list[Place], *, in_turn: bool = False) -> AsyncIterator[Supervisor]:
    """All *places* running until the block ends; *in_turn*, each is started once the one before it works."""
    supervisor = Supervisor(house, places)
    tasks: list[asyncio.Task[None]] = []
    try:
        for place in places:
            tasks.append(asyncio.create_task(supervisor.keep(place), name=place.name))
            async with asyncio.timeout(_START_SECONDS):
                while in_turn and not place.is_up:
                    await asyncio.sleep(_POLL_SECONDS)
        yield supervisor
    finally:
        supervisor.is_ending = True
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
