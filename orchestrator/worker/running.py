"""The worker's loop: take what there are places for, carry it out, keep it held, and let go in time.

    taker     asks the queue for jobs, once a second and whenever a place is free
    keeper    renews what is held, hears what is no longer wanted, says that this worker lives
    warden    stops what could not be renewed, before another worker may take it
    teller    tells how far the jobs are, once a second

A hold is trusted by the local monotonic clock, counted from the *start* of the taking or renewing, so that it is over
here before it is over for the database. Nothing that is known here has to outlive the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import structlog

from orchestrator.drivers.errors import DatabaseAwayError, DriverError
from orchestrator.drivers.fencing import Fence, fenced
from orchestrator.monitor.cancelling import is_being_cancelled
from orchestrator.monitor.problems import broken
from orchestrator.pipelines.terms import Effect, Hands, Pipeline, Step, effect_name
from orchestrator.storage.clips import read_clip
from orchestrator.storage.heavy_steps import HOLD_SECONDS, RENEWAL_SECONDS
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY
from orchestrator.worker.errors import HoldLost
from orchestrator.worker.filing import Filing, Taken
from orchestrator.worker.taking import Queue

log = structlog.get_logger(__name__)

# One indexed query each time; a step takes seconds to hours.
TAKE_SECONDS = 1.0
TELL_SECONDS = 1.0
WATCH_SECONDS = 0.25
# Between two tries at a database that is away.
AGAIN_SECONDS = 1.0
# A hold that has no more than this left is given up: cancelled work stops within milliseconds.
MARGIN_SECONDS = 1.0
# Of the ten seconds that the whole process has: for the jobs to stop, and for each word to the database after that.
STOP_SECONDS = 3.0
LAST_WORD_SECONDS = 1.5

_DATABASE_TROUBLE = (*DATABASE_AWAY, asyncpg.PostgresError, DatabaseAwayError)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker is handed: its database, pipelines with their hands, the time; *kinds* with the places for each."""

    pool: asyncpg.Pool
    name: str
    pipelines: Mapping[str, Pipeline]
    hands: Mapping[str, Hands]
    kinds: Mapping[str, int]
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]


@dataclass(slots=True)
class _Held:
    """A job at work, until when it is ours for certain, and what is to become of it when it is stopped."""

    taken: Taken
    trusted_until: float
    began_at: datetime
    at_stop: Callable[[Taken], Awaitable[None]] | None = None
    progress: tuple[str, float] | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Worker:
    """Carries out heavy steps until it is stopped; start as many as you like, on any host."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        # Drawn at each start: what this process did before it was killed is another one's.
        self.me: UUID = uuid4()
        self._filing = Filing(parts.pool, self.me)
        self._queue = Queue(parts.pool, self.me)
        self._held: dict[int, _Held] = {}
        self._free = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Take and carry out jobs until *stop* is set; then what runs goes back to the queue at its checkpoint."""
        await self._filing.be_seen(self._parts.name, list(self._parts.kinds), self._places)
        log.info("the worker takes heavy steps", worker=str(self.me), places=dict(self._parts.kinds))
        try:
            async with asyncio.TaskGroup() as tasks:
                loops = [
                    tasks.create_task(_over_and_over(name, work, seconds), name=name)
                    for name, work, seconds in (
                        ("taker", self._take, 0.0),
                        ("keeper", self._renew, RENEWAL_SECONDS),
                        ("warden", self._give_up_late, WATCH_SECONDS),
                        ("teller", self._tell, TELL_SECONDS),
                    )
                ]
                await stop.wait()
                for loop in loops:
                    loop.cancel()
        finally:
            await self._drain()
        log.info("the worker has stopped", worker=str(self.me))

    @property
    def _places(self) -> int:
        return sum(self._parts.kinds.values())

    async def _take(self) -> None:
        """Fill the free places of each kind, then wait until a place is free, or a while."""
        self._free.clear()
        taken_of = Counter(held.taken.step.kind for held in self._held.values())
        for kind, places in self._parts.kinds.items():
            if places > taken_of[kind]:
                started = self._parts.monotonic()
                for taken in await self._queue.take(kind, places - taken_of[kind]):
                    self._begin(taken, started + HOLD_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKE_SECONDS):
                await self._free.wait()

    def _begin(self, taken: Taken, trusted_until: float) -> None:
        if taken.id in self._held:
            return  # our own, from before its hold ran out; what is left of that still stops
        held = self._held[taken.id] = _Held(taken, trusted_until, self._parts.clock())
        held.task = asyncio.create_task(self._hold(held), name=taken.step.key)
        held.task.add_done_callback(lambda _: self._ended(held))

    def _ended(self, held: _Held) -> None:
        self._held.pop(held.taken.id, None)
        self._free.set()

    async def _renew(self) -> None:
        """Hold what is at work for a further while; stop what is another's by now, or wanted by nobody."""
        started = self._parts.monotonic()
        asked = [held for held in self._held.values() if held.at_stop is None]
        # No longer than until the next one: what hangs is tried again while the hold can be trusted.
        async with asyncio.timeout(RENEWAL_SECONDS):
            wanted = await self._filing.renew([held.taken.id for held in asked]) if asked else {}
            await self._filing.be_seen(self._parts.name, list(self._parts.kinds), self._places)
        for held in asked:
            if held.taken.id not in wanted:
                self._stop(held, _nothing, "a job is another worker's by now")
            elif not wanted[held.taken.id]:
                self._stop(held, self._filing.drop, "a job is no longer wanted")
            else:
                held.trusted_until = started + HOLD_SECONDS

    async def _give_up_late(self) -> None:
        for held in list(self._held.values()):
            if held.at_stop is None and self._remaining_seconds(held) <= MARGIN_SECONDS:
                self._stop(held, self._filing.give_back, "a job could not be renewed in time; it is given up")

    def _remaining_seconds(self, held: _Held) -> float:
        return held.trusted_until - self._parts.monotonic()

    def _stop(self, held: _Held, at_stop: Callable[[Taken], Awaitable[None]], sentence: str) -> None:
        if held.at_stop is None and held.task is not None:
            log.info(sentence, clip_id=held.taken.step.clip_id, effect=held.taken.step.effect)
            held.at_stop = at_stop
            held.task.cancel()

    async def _drain(self) -> None:
        """Stop everything and give it back, so that other workers go on at once; say that this one is gone."""
        for held in list(self._held.values()):
            self._stop(held, _nothing, "a job goes back to the queue at its checkpoint")
        await self._word(self._filing.be_gone(), "that this worker is gone")
        tasks = [held.task for held in self._held.values() if held.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        # All at once: there may be one among them that was taken and not begun.
        await self._word(self._filing.give_all_back(), "that the jobs are free")

    async def _hold(self, held: _Held) -> None:
        """Carry out one job to its end, whatever that is; ends without an error."""
        try:
            await self._carry_out(held)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if held.at_stop is None or task is None:
                raise
            task.uncancel()
            await self._word(held.at_stop(held.taken), "what becomes of a stopped job")
        except HoldLost:
            log.info("a job is another worker's by now; nothing of it was told", clip_id=held.taken.step.clip_id)
        except _DATABASE_TROUBLE as problem:
            # Not told: the hold runs out, and whoever takes the job finds what was done.
            reason = type(problem).__name__
            log.warning("the end of a job could not be filed", clip_id=held.taken.step.clip_id, reason=reason)

    async def _word(self, word: Awaitable[None], what: str) -> None:
        """Say it to the database, or go without: a hold, and a worker's life, run out by themselves."""
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await word
        except _DATABASE_TROUBLE as problem:
            log.warning("the database could not be told", what=what, reason=type(problem).__name__)

    async def _carry_out(self, held: _Held) -> None:
        taken, step = held.taken, held.taken.step
        effect = await self._effect_of(held)
        if effect is None:
            log.info("a job is no longer wanted", clip_id=step.clip_id, effect=step.effect)
            await self._filing.drop(taken)
            return
        log.info("a job begins", clip_id=step.clip_id, effect=step.effect)
        try:
            with fenced(Fence(lambda: self._refuse_when_over(held))):
                done = await self._parts.hands[step.pipeline].carry_out(effect, _Reports(self._filing, held))
        except DriverError as problem:
            log.warning(
                "a job failed", clip_id=step.clip_id, effect=step.effect, code=problem.code, reason=problem.text
            )
            await self._filing.failure(taken, problem, held.began_at)
        except HoldLost:
            raise
        except (Exception, asyncio.CancelledError):
            if is_being_cancelled():
                raise
            # The edge for one job: a fault of ours counts as a failed try, so that it ends with a reason.
            log.exception("a job broke", clip_id=step.clip_id, effect=step.effect)
            await self._filing.failure(taken, broken(step.effect), held.began_at)
        else:
            await self._filing.end(taken, done)
            log.info("a job is done", clip_id=step.clip_id, effect=step.effect)

    async def _effect_of(self, held: _Held) -> Effect | None:
        """What the clip's own plan asks for now, if it is still this step; None when it is not."""
        step = held.taken.step
        pipeline = self._parts.pipelines.get(step.pipeline)
        async with self._parts.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            clip = await read_clip(connection, step.clip_id)
            unjudged = await self._filing.has_unjudged(connection, step)
        if pipeline is None or clip is None or unjudged or clip.attempt != step.attempt:
            return None
        effects = pipeline.plan(clip, None, self._parts.clock()).effects
        return next((effect for effect in effects if effect_name(effect) == step.effect), None)

    def _refuse_when_over(self, held: _Held) -> None:
        if self._remaining_seconds(held) <= 0:
            raise HoldLost(f"the hold of job {held.taken.id} cannot be trusted any more")

    async def _tell(self) -> None:
        told = [
            {
                "clip_id": held.taken.step.clip_id,
                "attempt": held.taken.step.attempt,
                "pipeline": held.taken.step.pipeline,
                "status": held.progress[0],
                "percent": held.progress[1],
            }
            for held in self._held.values()
            if held.progress is not None
        ]
        for held in self._held.values():
            held.progress = None
        if told:
            await self._filing.tell(told)


class _Reports:
    """What a running job may tell."""

    def __init__(self, filing: Filing, held: _Held) -> None:
        self._filing = filing
        self._held = held

    def progress(self, status: str, percent: float | None) -> None:
        if percent is not None:
            self._held.progress = status, percent

    async def step(self, step: Step) -> None:
        await self._filing.step(self._held.taken, step)


async def _over_and_over(name: str, work: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
    """*work* again and again. A database that is away is waited for; anything else ends the process."""
    is_away = False
    while True:
        try:
            await work()
            is_away = False
        except _DATABASE_TROUBLE as problem:
            if not is_away:
                log.warning("the database is away; the worker waits", task=name, reason=type(problem).__name__)
            is_away = True
        await asyncio.sleep(AGAIN_SECONDS if is_away else seconds)


async def _nothing(_: Taken) -> None:
    """It is not ours to say anything about."""
