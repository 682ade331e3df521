"""The monitor: stands by until it leads, then runs the tasks of one term side by side, and never dies unseen.

    keeper      renews the lease, tells the age of the last round, ends the term when the loop stalls
    listener    turns notifications into wake-ups; listens again first, sweeps second
    drainer     judges pending signals, when woken and every second
    looker      looks at what is due
    ticker      writes progress while bytes move
    hearer      hears of steps on other hosts: progress, who waits, what failed
    tidier      clears what crashes have left outside, and prunes history by the owner's policy

None of them dies unseen. What they do for one clip has an edge of its own, so what reaches them concerns all clips.

    The lease is lost, or the database is away or refuses to work: the term ends, the process stands by and tries again.
    The listener, ticker, hearer or tidier meets anything else: it is logged and tried again; no clip depends on them.
    Keeper, drainer or looker meets anything else, any of them ends by itself, or no round is completed for half a
    minute: the term ends, and so does the process, with the reason, so that it is started afresh.
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
from orchestrator.monitor import judging
from orchestrator.monitor.afar import hear, judge_failures, told_progress
from orchestrator.monitor.cancelling import is_being_cancelled
from orchestrator.monitor.effects import EffectRunner
from orchestrator.monitor.errors import LeadershipLost, Stalled, TaskEnded
from orchestrator.monitor.judging import Inbox, drain
from orchestrator.monitor.leadership import RENEWAL_SECONDS, Lease, Term
from orchestrator.monitor.looking import DUE_BATCH, Group, Looker, group, look, read_due
from orchestrator.monitor.moves import Move
from orchestrator.monitor.pauses import Pauses
from orchestrator.monitor.ticking import write_progress
from orchestrator.pipelines.terms import Effect, Hands, Pipeline
from orchestrator.storage.heavy_steps import tidy_steps
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY
from signals import WAKE_CHANNEL
from statusutils import COMPLETE, ERROR

log = structlog.get_logger(__name__)

# Without any notification a signal waits this long at most; one indexed query each time.
SWEEP_SECONDS = 1.0
STANDBY_SECONDS = 1.0
# After a term that the database ended: long enough not to turn in a circle, short enough to go on soon.
TROUBLE_SECONDS = 1.0
# Between the loss of the listening connection and the next one; meanwhile the sweep finds what is pending.
LISTEN_AGAIN_SECONDS = 1.0
# How often a silent listening connection is asked whether it is still there, and how long it has to answer.
PROBE_SECONDS = 5.0
PROBE_TIMEOUT_SECONDS = 3.0
TICK_SECONDS = 1.0
# How often a leader asks whether there are workers, as long as it has heard of none.
ALONE_SECONDS = 5.0
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

# Away, or there and refusing to work: a full disk, a standby in its place, a privilege that was taken.
_DATABASE_TROUBLE = (*DATABASE_AWAY, asyncpg.PostgresError)

Connect = Callable[[], Awaitable[asyncpg.Connection]]


@dataclass(frozen=True, slots=True)
class MonitorParts:
    """What the monitor is handed: its database, its pipelines with their hands, the time, and how to prune history."""

    pool: asyncpg.Pool
    connect: Connect
    pipelines: Mapping[str, Pipeline]
    hands: Mapping[str, Hands]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    prune: Callable[[], Awaitable[Mapping[str, int]]] | None = None


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
            except _DATABASE_TROUBLE as problem:
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
        in_trouble = False
        turn = _Turn(self._parts, self._lease, term)
        try:
            await turn.run(stop)
        except* LeadershipLost:
            log.warning("leadership lost; standing by", epoch=term.epoch)
        except* _DATABASE_TROUBLE as group_of:
            reasons = sorted({type(problem).__name__ for problem in _leaves(group_of)})
            log.warning("the database went away; standing by", epoch=term.epoch, reasons=reasons)
            in_trouble = True
        finally:
            if turn.is_answered:
                with contextlib.suppress(*_DATABASE_TROUBLE):
                    await self._lease.release(term)
        log.info("no longer leading", epoch=term.epoch)
        if not turn.is_answered:
            # It may arrive yet, and nobody who looks before that may lead: neither another monitor nor this one.
            log.warning("a request was broken off unanswered; the lease runs out by itself", epoch=term.epoch)
            await _wait(stop, max(self._lease.remaining_seconds, 0.0))
        elif in_trouble:
            await _wait(stop, TROUBLE_SECONDS)


class _Turn:
    """The tasks of one term of leadership."""

    def __init__(self, parts: MonitorParts, lease: Lease, term: Term) -> None:
        self._parts = parts
        self._lease = lease
        self._term = term
        self._woken = asyncio.Event()
        self._due = asyncio.Event()
        self._looks: dict[asyncio.Task[None], Group] = {}
        self._passed_over = Pauses(parts.monotonic, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        limits = {name: pipeline.limits for name, pipeline in parts.pipelines.items()}
        unjudged = Pauses(parts.monotonic, judging.FIRST_PAUSE_SECONDS, judging.LONGEST_PAUSE_SECONDS)
        self._inbox = Inbox(limits, unjudged, self._drained)
        self._look_problem: BaseException | None = None
        #: Whether every request of this term that changes something has been answered, once `run` has ended.
        self.is_answered = False
        now = parts.monotonic()
        self._drained_at = now
        self._looked_at = now
        self._runner = EffectRunner(
            parts.pool,
            term,
            parts.pipelines,
            parts.hands,
            parts.clock,
            self._woken.set,
            lambda: lease.remaining_seconds,
        )
        self._looker = Looker(parts.pool, term, parts.clock, self._runner.enqueue)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(_never_ending(name, coroutine), name=name)
                    for name, coroutine in self._tasks().items()
                ]
                await stop.wait()
                for task in running:
                    task.cancel()
        finally:
            for task in self._looks:
                task.cancel()
            await asyncio.gather(*self._looks, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    self.is_answered = await self._runner.close()

    def _tasks(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        return {
            "keeper": self._keep,
            "listener": self._listen,
            "drainer": self._drain,
            "looker": self._look,
            "ticker": self._tick,
            "hearer": self._hear,
            "tidier": self._tidy,
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
            try:
                await self._listen_once()
            except DATABASE_AWAY as problem:
                log.warning("the listener lost its connection; it listens again", reason=type(problem).__name__)
            except Exception:
                # The edge for hints: the sweep finds every signal without them.
                log.exception("the listener broke; it listens again")
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _listen_once(self) -> None:
        """Until the connection is lost. The listening connection never opens a transaction."""
        connection = await self._parts.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(WAKE_CHANNEL, lambda *_: self._woken.set())
            self._woken.set()  # what came between the loss and now
            while not lost.is_set():
                await _wait(lost, PROBE_SECONDS)
                # Finds a peer that vanished without a word.
                await connection.fetchval("SELECT 1", timeout=PROBE_TIMEOUT_SECONDS)
        finally:
            # A peer that is gone does not say goodbye; that may not take the place of a cancellation.
            with contextlib.suppress(*DATABASE_AWAY):
                await connection.close(timeout=2)

    async def _drain(self) -> None:
        while True:
            self._woken.clear()
            started_at = asyncio.get_running_loop().time()
            moves = await drain(self._parts.pool, self._term, self._parts.clock, self._inbox)
            self._runner.settle(reported_before=started_at - SETTLE_SECONDS)
            for move in moves:
                self._log(move)
                if move.after.status in (COMPLETE, ERROR) or move.after.attempt != move.before.attempt:
                    self._runner.cancel_others(move.clip_id, ())
            if moves:
                self._due.set()
            await _wait(self._woken, SWEEP_SECONDS)

    def _drained(self) -> None:
        self._drained_at = self._parts.monotonic()

    async def _look(self) -> None:
        while True:
            self._due.clear()
            # Read only for places that are free: what is due stays due, and a picture that waits gets old.
            is_more = len(self._looks) < MAX_LOOKS and await self._begin_looks()
            self._looked_at = self._parts.monotonic()
            if self._look_problem is not None:
                raise self._look_problem
            await _wait(self._due, 0.05 if is_more else SWEEP_SECONDS)

    async def _begin_looks(self) -> bool:
        """Look at what is due, each group as soon as there is a place for it; whether more may be due."""
        not_now = [clip.id for group_of in self._looks.values() for clip in group_of.clips]
        not_now += self._passed_over.now()
        due = await read_due(self._parts.pool, self._parts.pipelines, not_now, self._passed_over.put)
        read_at = self._looked_at = self._parts.monotonic()
        for group_of in group(self._parts.pipelines, due, frozenset(self._runner.waiting())):
            while len(self._looks) >= MAX_LOOKS:
                left = SWEEP_SECONDS - (self._parts.monotonic() - read_at)
                if left <= 0:
                    return False  # what was read is old; the rest is still due when a look has ended
                await asyncio.wait(self._looks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if self._look_problem is not None:
                return False
            task = asyncio.create_task(self._look_at(group_of), name=f"look {group_of.kind.name}")
            self._looks[task] = group_of
            task.add_done_callback(self._look_ended)
        return len(due) == DUE_BATCH

    def _look_ended(self, task: asyncio.Task[None]) -> None:
        group_of = self._looks.pop(task)
        self._due.set()
        self._woken.set()  # signals of clips whose rows the look held were passed over
        problem = None if task.cancelled() else task.exception()
        if task.cancelled() or problem is not None:
            # Not written, whatever became of it: looking again at once would only turn in a circle.
            for clip in group_of.clips:
                self._passed_over.put(clip.id)
        self._look_problem = self._look_problem or problem

    async def _look_at(self, group_of: Group) -> None:
        parts = self._parts
        pipeline, hands = parts.pipelines[group_of.pipeline], parts.hands[group_of.pipeline]
        moves, effects = await look(self._looker, pipeline, hands, group_of)
        written = {move.clip_id for move in moves}
        for clip in group_of.clips:
            if clip.id in written:
                self._passed_over.lift(clip.id)
            else:
                self._passed_over.put(clip.id)
        for move in moves:
            self._log(move)
            if move.after.status in (COMPLETE, ERROR) or move.after.attempt != move.before.attempt:
                wanted: tuple[Effect, ...] = tuple(each for each in effects if each.clip_id == move.clip_id)
                self._runner.cancel_others(move.clip_id, wanted)
        for effect in effects:
            self._start(group_of.pipeline, effect)

    def _start(self, pipeline: str, effect: Effect) -> None:
        try:
            self._runner.start(pipeline, effect)
        except Exception:
            # The edge for one effect: its clip is looked at again, and its deadline ends it.
            log.exception("an effect could not be started", clip_id=effect.clip_id)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            told, self._runner.progress = self._runner.progress, {}
            try:
                await write_progress(self._parts.pool, self._term, told)
            except _DATABASE_TROUBLE as problem:
                log.warning("progress could not be written", clips=len(told), reason=type(problem).__name__)
            except Exception:
                # The edge for what only moves a bar: the next second has newer figures.
                log.exception("progress could not be written", clips=len(told))

    async def _hear(self) -> None:
        while True:
            is_alone = True
            try:
                is_alone = not await self._hear_once()
            except LeadershipLost:
                raise
            except _DATABASE_TROUBLE as problem:
                log.warning("nothing was heard of workers", reason=type(problem).__name__)
            except Exception:
                # The edge for what is told elsewhere: a clip whose step failed unheard is looked at again.
                log.exception("what workers tell could not be heard")
            await asyncio.sleep(ALONE_SECONDS if is_alone else TICK_SECONDS)

    async def _hear_once(self) -> bool:
        """Whether there was a worker, or something it has left."""
        heard = await hear(self._parts.pool)
        self._runner.waiting_afar = heard.waiting
        self._runner.progress |= told_progress(heard, self._parts.pipelines)
        if heard.has_failures:
            for move in await judge_failures(self._parts.pool, self._term, self._parts.pipelines, self._parts.clock):
                self._log(move)
                self._due.set()
        return heard.is_used or bool(heard.waiting) or heard.has_failures

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._tidy_steps()
            for name, hands in self._parts.hands.items():
                try:
                    log.info("tidied up", pipeline=name, **await hands.tidy())
                except DriverError as problem:
                    log.warning("tidying up failed; the next hour tries again", pipeline=name, code=problem.code)
                except Exception:
                    # The edge for what only costs storage.
                    log.exception("tidying up broke; the next hour tries again", pipeline=name)
            if self._parts.prune is not None:
                await self._prune(self._parts.prune)

    async def _prune(self, prune: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        try:
            log.info("pruned history", **await prune())
        except _DATABASE_TROUBLE as problem:
            log.warning("history could not be pruned; the next hour goes on", reason=type(problem).__name__)
        except Exception:
            # The edge for what only costs storage, as above.
            log.exception("pruning history broke; the next hour goes on")

    async def _tidy_steps(self) -> None:
        try:
            async with self._parts.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                await tidy_steps(connection)
        except Exception as problem:
            # The edge for what only costs room.
            log.warning("old jobs were not cleared; the next hour tries again", reason=type(problem).__name__)

    def _log(self, move: Move) -> None:
        if move.changes_status:
            log.info("clip moved", clip_id=move.clip_id, was=move.before.status, now=move.after.status)


async def _never_ending(name: str, coroutine: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Until somebody cancels it. A group of tasks takes no notice of one that returns, or is cancelled by nobody.

    Raises:
        TaskEnded: it did.
    """
    try:
        await coroutine()
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise TaskEnded(f"the {name} was cancelled by nobody") from None
    raise TaskEnded(f"the {name} has ended")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not wait_for: Python 3.11's swallows a cancellation that meets the event, and the task would run on for ever.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _leaves(group_of: BaseException) -> list[BaseException]:
    if isinstance(group_of, BaseExceptionGroup):
        return [leaf for inner in group_of.exceptions for leaf in _leaves(inner)]
    return [group_of]
