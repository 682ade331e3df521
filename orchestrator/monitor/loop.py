"""The monitor: stands by until it leads, then runs the tasks of one term side by side, and never dies unseen.

    keeper      renews the lease, tells the age of the last round, ends the term when the loop stalls
    listener    turns notifications into wake-ups; listens again first, sweeps second
    drainer     judges pending signals, when woken and every second
    looker      looks at what is due
    ticker      writes progress while bytes move
    tidier      clears what crashes have left outside

When one of them fails the term ends, everything running is cancelled, and the process stands by again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import structlog

from orchestrator.drivers.errors import DriverError
from orchestrator.monitor.effects import EffectRunner
from orchestrator.monitor.errors import LeadershipLost, Stalled
from orchestrator.monitor.judging import drain
from orchestrator.monitor.leadership import RENEWAL_SECONDS, Lease, Term
from orchestrator.monitor.looking import DUE_BATCH, Group, group, look, read_due
from orchestrator.monitor.moves import Move
from orchestrator.monitor.ticking import write_progress
from orchestrator.pipelines.terms import Effect, Hands, Pipeline
from orchestrator.storage.pool import DATABASE_AWAY
from signals import WAKE_CHANNEL
from statusutils import COMPLETE, ERROR

log = structlog.get_logger(__name__)

# Without any notification a signal waits this long at most; one indexed query each time.
SWEEP_SECONDS = 1.0
STANDBY_SECONDS = 1.0
TICK_SECONDS = 1.0
# What is left behind costs storage by the day; an hour is soon enough and no burden.
TIDY_SECONDS = 3600.0
# A round takes milliseconds; half a minute without one means the process cannot be trusted any more.
STALL_SECONDS = 30.0
# Longer than a look that has read its clips takes to write and to start what follows.
SETTLE_SECONDS = 1.0
# A clip whose look could not be written (its row is held, or it moved meanwhile) is left alone for a moment, each
# time for longer: its time has still come, and looking without a pause would only spend the call budget.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
# Looks under way at once: enough to keep the call budget busy, few enough to keep memory flat.
MAX_LOOKS = 16
# What running effects get to stop in, of the ten seconds the whole process has.
STOP_SECONDS = 6.0

Connect = Callable[[], Awaitable[asyncpg.Connection]]


@dataclass(frozen=True, slots=True)
class MonitorParts:
    """What the monitor is handed: its database, its pipelines with their hands, and the time."""

    pool: asyncpg.Pool
    connect: Connect
    pipelines: Mapping[str, Pipeline]
    hands: Mapping[str, Hands]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic


class Monitor:
    """The one loop that moves clips; start as many as you like, one leads."""

    def __init__(self, parts: MonitorParts) -> None:
        self._parts = parts
        self._lease = Lease(parts.pool, parts.monotonic)

    async def run(self, stop: asyncio.Event) -> None:
        """Stand by and lead until *stop* is set.

        Raises:
            Stalled: the loop does not come round; the process should end and be started afresh.
        """
        told_of_standby = False
        while not stop.is_set():
            try:
                term = await self._lease.take()
            except DATABASE_AWAY as problem:
                log.warning("the database is away; the monitor waits", reason=type(problem).__name__)
                term = None
            if term is None:
                if not told_of_standby:
                    log.info("standing by: another monitor leads, or the database is away")
                    told_of_standby = True
                await _wait(stop, STANDBY_SECONDS)
                continue
            told_of_standby = False
            await self._lead(term, stop)

    async def _lead(self, term: Term, stop: asyncio.Event) -> None:
        log.info("leading", epoch=term.epoch)
        turn = _Turn(self._parts, self._lease, term)
        try:
            await turn.run(stop)
        except* LeadershipLost:
            log.warning("leadership lost; standing by", epoch=term.epoch)
        except* DATABASE_AWAY as group_of:
            reasons = sorted({type(problem).__name__ for problem in _leaves(group_of)})
            log.warning("the database went away; standing by", epoch=term.epoch, reasons=reasons)
        finally:
            with contextlib.suppress(*DATABASE_AWAY):
                await self._lease.release(term)
        log.info("no longer leading", epoch=term.epoch)


@dataclass(frozen=True, slots=True)
class _Pause:
    """How long a clip is left alone: until a moment of the monotonic clock."""

    until: float
    seconds: float


class _Turn:
    """The tasks of one term of leadership."""

    def __init__(self, parts: MonitorParts, lease: Lease, term: Term) -> None:
        self._parts = parts
        self._lease = lease
        self._term = term
        self._woken = asyncio.Event()
        self._due = asyncio.Event()
        self._looks: dict[asyncio.Task[None], Group] = {}
        self._passed_over: dict[str, _Pause] = {}
        self._look_problem: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = parts.monotonic()
        self._drained_at = now
        self._looked_at = now
        self._runner = EffectRunner(parts.pool, term, parts.hands, parts.clock, self._woken.set)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(coroutine, name=name) for name, coroutine in self._tasks().items()]
                await stop.wait()
                for task in running:
                    task.cancel()
        finally:
            for task in self._looks:
                task.cancel()
            await asyncio.gather(*self._looks, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._runner.close()

    def _tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "keeper": self._keep(),
            "listener": self._listen(),
            "drainer": self._drain(),
            "looker": self._look(),
            "ticker": self._tick(),
            "tidier": self._tidy(),
        }

    async def _keep(self) -> None:
        while True:
            age = self._parts.monotonic() - min(self._drained_at, self._looked_at)
            if age > STALL_SECONDS:
                raise Stalled(f"no round for {age:.0f} s")
            try:
                await self._lease.renew(self._term, age)
            except DATABASE_AWAY:
                # One lost renewal is no lost lease; go on while the lease can be trusted.
                if self._lease.remaining_seconds < RENEWAL_SECONDS:
                    raise LeadershipLost(f"epoch {self._term.epoch} could not be renewed") from None
            await asyncio.sleep(min(RENEWAL_SECONDS, max(self._lease.remaining_seconds / 2, 0.1)))

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*DATABASE_AWAY):
                await self._listen_once()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _listen_once(self) -> None:
        """Until the connection is lost. The listening connection never opens a transaction."""
        connection = await self._parts.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(WAKE_CHANNEL, lambda *_: self._woken.set())
            self._woken.set()  # what came between the loss and now
            while not lost.is_set():
                await _wait(lost, STALL_SECONDS)
                await connection.fetchval("SELECT 1")  # finds a peer that vanished without a word
        finally:
            await connection.close(timeout=2)

    async def _drain(self) -> None:
        while True:
            self._woken.clear()
            started_at = asyncio.get_running_loop().time()
            moves = await drain(self._parts.pool, self._term, self._parts.clock)
            self._drained_at = self._parts.monotonic()
            self._runner.settle(reported_before=started_at - SETTLE_SECONDS)
            for move in moves:
                self._log(move)
                if move.after.status in (COMPLETE, ERROR) or move.after.attempt != move.before.attempt:
                    self._runner.cancel_others(move.clip_id, ())
            if moves:
                self._due.set()
            await _wait(self._woken, SWEEP_SECONDS)

    async def _look(self) -> None:
        while True:
            self._due.clear()
            not_now = [clip.id for group_of in self._looks.values() for clip in group_of.clips]
            now = self._parts.monotonic()
            self._forget_pauses(before=now - LONGEST_PAUSE_SECONDS)
            not_now += [clip_id for clip_id, pause in self._passed_over.items() if pause.until > now]
            due = await read_due(self._parts.pool, self._parts.pipelines, not_now)
            self._looked_at = self._parts.monotonic()
            for group_of in group(self._parts.pipelines, due):
                if len(self._looks) >= MAX_LOOKS:
                    break  # the rest is still due when a look has ended
                task = asyncio.create_task(self._look_at(group_of), name=f"look {group_of.kind.name}")
                self._looks[task] = group_of
                task.add_done_callback(self._look_ended)
            if self._look_problem.done():
                self._look_problem.result()
            full = len(due) == DUE_BATCH and len(self._looks) < MAX_LOOKS
            await _wait(self._due, 0.05 if full else SWEEP_SECONDS)

    def _look_ended(self, task: asyncio.Task[None]) -> None:
        self._looks.pop(task, None)
        self._due.set()
        self._woken.set()  # signals of clips whose rows the look held were passed over
        if not task.cancelled() and (problem := task.exception()) and not self._look_problem.done():
            self._look_problem.set_exception(problem)

    async def _look_at(self, group_of: Group) -> None:
        parts = self._parts
        pipeline, hands = parts.pipelines[group_of.pipeline], parts.hands[group_of.pipeline]
        moves, effects = await look(parts.pool, self._term, pipeline, hands, group_of, parts.clock)
        self._pause_unwritten(group_of, {move.clip_id for move in moves})
        for move in moves:
            self._log(move)
            if move.after.status in (COMPLETE, ERROR):
                wanted: tuple[Effect, ...] = tuple(each for each in effects if each.clip_id == move.clip_id)
                self._runner.cancel_others(move.clip_id, wanted)
        for effect in effects:
            self._runner.start(group_of.pipeline, effect)

    def _pause_unwritten(self, group_of: Group, written: set[str]) -> None:
        for clip in group_of.clips:
            before = self._passed_over.pop(clip.id, None)
            if clip.id not in written:
                seconds = min(2 * before.seconds, LONGEST_PAUSE_SECONDS) if before else FIRST_PAUSE_SECONDS
                self._passed_over[clip.id] = _Pause(self._parts.monotonic() + seconds, seconds)

    def _forget_pauses(self, before: float) -> None:
        """Drop what is long over: a clip may never be looked at again."""
        self._passed_over = {clip_id: pause for clip_id, pause in self._passed_over.items() if pause.until >= before}

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            told, self._runner.progress = self._runner.progress, {}
            await write_progress(self._parts.pool, self._term, told)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            for name, hands in self._parts.hands.items():
                try:
                    await hands.tidy()
                except DriverError as problem:
                    log.warning("tidying up failed; the next hour tries again", pipeline=name, code=problem.code)

    def _log(self, move: Move) -> None:
        if move.changes_status:
            log.info("clip moved", clip_id=move.clip_id, was=move.before.status, now=move.after.status)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not wait_for: Python 3.11's swallows a cancellation that meets the event, and the task would run on for ever.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _leaves(group_of: BaseException) -> list[BaseException]:
    if isinstance(group_of, BaseExceptionGroup):
        return [leaf for inner in group_of.exceptions for leaf in _leaves(inner)]
    return [group_of]
