"""Carrying out effects: bounded in number, one of a kind per clip and attempt, their outcome told as signals.

Heavy ones go to workers on other hosts where such live (`EffectRunner.enqueue`); all others run in this process.

What runs is known to this process alone, and only so that nothing is started twice at once. After a crash the
next look plans the same effect again; every effect is safe to repeat.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from orchestrator.drivers.database import connection_of
from orchestrator.drivers.errors import DriverError
from orchestrator.drivers.fencing import Fence, fenced
from orchestrator.monitor.batches import write_each
from orchestrator.monitor.cancelling import is_being_cancelled
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.failures import Failure, after_failure
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.problems import broken
from orchestrator.monitor.ticking import Told
from orchestrator.pipelines.terms import Done, Effect, Hands, Pipeline, Step, effect_name
from orchestrator.storage.clips import read_clip
from orchestrator.storage.heavy_steps import HeavyStep, enqueue_steps
from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS

log = structlog.get_logger(__name__)

# Effects that wait for a place: two rounds' worth. Who finds no room asks again at the next look.
MAX_WAITING = 1000

# What a request that changes something at the provider gets to be answered in when its term ends. Most take less than
# two seconds; the whole process may have no more than ten to stop in.
ANSWER_SECONDS = 4.0

# What one has seen is told only while one leads: what is true of a clip may be another's to see by then.
_LEADER = "WITH leader AS MATERIALIZED (SELECT FROM monitor_lease WHERE holder = $1 AND epoch = $2 FOR SHARE)"
_REPORT = f"""
{_LEADER}
INSERT INTO clip_signals (clip_id, attempt, requested_status, source, details, observed)
SELECT $3, $4, $5, $6, $7::jsonb, true FROM leader
"""
_MERGE = f"""
{_LEADER}
UPDATE clips SET processing_details = processing_details || $4::jsonb FROM leader WHERE id = $3 AND attempt = $5
"""

Key = tuple[str, int, str]


class EffectRunner:
    """The effects of one term of leadership, which can be trusted for *remaining_seconds*."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        term: Term,
        pipelines: Mapping[str, Pipeline],
        hands: Mapping[str, Hands],
        clock: Callable[[], datetime],
        on_report: Callable[[], None],
        remaining_seconds: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._term = term
        self._pipelines = pipelines
        self._hands = hands
        self._clock = clock
        self._on_report = on_report
        self._remaining_seconds = remaining_seconds
        self._is_closed = False
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._fences: dict[Key, Fence] = {}
        # Done, but what they reported may not be judged yet: a look at the old picture may not start them again.
        self._settling: dict[Key, float] = {}
        # In the order of their looks; without it a free place would stay empty until some clip is looked at again.
        self._waiting: dict[Key, tuple[str, Effect]] = {}
        # On their way to the workers, in a transaction that is not over: nobody here may start them meanwhile.
        self._handing: set[Key] = set()
        # Clips whose effect waits for a worker, as far as was heard, and those it has no job for yet.
        self.waiting_afar: frozenset[str] = frozenset()
        self._without_a_job: set[str] = set()
        self.progress: dict[tuple[str, int], Told] = {}

    async def enqueue(
        self, connection: asyncpg.Connection, pipeline: str, effects: Sequence[Effect]
    ) -> tuple[Effect, ...]:
        """Queue the heavy ones of *effects* for the workers, in the caller's transaction; those to be started here.

        These are the light ones, and without a living worker all: what workers that are gone have left in the queue is
        taken back. What runs here already stays here.
        """
        steps: dict[Key, HeavyStep] = {}
        for effect in effects:
            key = _key(effect)
            kind = self._hands[pipeline].queue_of(effect)
            if kind is not None and key not in self._running and key not in self._settling:
                steps[key] = HeavyStep(kind, pipeline, *key)
        if not steps:
            return tuple(effects)
        self._handing |= steps.keys()
        try:
            afar = await enqueue_steps(connection, list(steps.values()))
        finally:
            self._handing -= steps.keys()
        handed = {key for key, step in steps.items() if step.key in afar}
        for key in handed:
            self._waiting.pop(key, None)
        asked = {clip_id for clip_id, _, _ in steps}
        self._without_a_job -= asked
        self._without_a_job |= {key[0] for key in handed if not afar[steps[key].key]}
        return tuple(effect for effect in effects if _key(effect) not in handed)

    def start(self, pipeline: str, effect: Effect) -> bool:
        """Start *effect* unless it runs already; where its kind is at capacity it waits for a free place."""
        key = _key(effect)
        if key in self._running or key in self._settling or key in self._handing:
            return False
        if self._is_full(pipeline, effect):
            if key in self._waiting or len(self._waiting) < MAX_WAITING:
                self._waiting[key] = (pipeline, effect)
            return False
        self._waiting.pop(key, None)
        self._fences[key] = Fence(self._refuse_when_over)
        task = asyncio.create_task(self._run(pipeline, effect, key), name=f"{key[2]} {effect.clip_id}")
        self._running[key] = task
        task.add_done_callback(lambda _: self._ended(key))
        return True

    def _is_full(self, pipeline: str, effect: Effect) -> bool:
        name = effect_name(effect)
        same_kind = sum(1 for _, _, kind in self._running if kind == name)
        return same_kind >= self._hands[pipeline].capacity(effect)

    def _ended(self, key: Key) -> None:
        """Give the free place to the one that has waited longest for a place of its kind."""
        self._running.pop(key, None)
        self._fences.pop(key, None)
        waiting = next((who for key_, who in self._waiting.items() if key_[2] == key[2]), None)
        if waiting is not None and not self._is_closed:
            self.start(*waiting)

    def waiting(self) -> set[str]:
        """The clips that have an effect waiting for a place, here or on a worker."""
        return {clip_id for clip_id, _, _ in self._waiting} | self.waiting_afar | self._without_a_job

    def settle(self, reported_before: float) -> None:
        """Forget what was done before that moment (seconds of the loop's clock): its reports have been judged."""
        self._settling = {key: at for key, at in self._settling.items() if at >= reported_before}

    def cancel_others(self, clip_id: str, wanted: tuple[Effect, ...]) -> None:
        """Stop what runs for a clip and is no longer wanted: it ended, or a new attempt began."""
        keys = {_key(effect) for effect in wanted}
        self._without_a_job.discard(clip_id)
        for key in [key for key in self._waiting if key[0] == clip_id and key not in keys]:
            del self._waiting[key]
        for key, task in self._running.items():
            if key[0] == clip_id and key not in keys:
                task.cancel()

    async def close(self) -> bool:
        """Cancel everything and wait until it has stopped; all of it resumes from its checkpoints.

        But for what has a request on its way that changes something: whoever leads next looks whether it was done, and
        would ask for it a second time if it had not arrived by then. False when such a request was broken off: it may
        arrive yet.
        """
        self._is_closed = True
        tasks = dict(self._running)
        fences = [self._fences[key] for key in tasks]
        for key, task in tasks.items():
            if not self._fences[key].is_passed:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks.values(), timeout=ANSWER_SECONDS)
        is_answered = not any(fence.is_passed for fence in fences)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        return is_answered

    async def _run(self, pipeline: str, effect: Effect, key: Key) -> None:
        name, began_at = effect_name(effect), self._clock()
        try:
            with fenced(self._fences[key]):
                done = await self._hands[pipeline].carry_out(effect, _Reports(self, pipeline, effect))
            await self._report(effect, done)
            self._settling[key] = asyncio.get_running_loop().time()
        except DriverError as problem:
            log.warning("an effect failed", clip_id=effect.clip_id, effect=name, code=problem.code, reason=problem.text)
            await self._failed(pipeline, effect, Failure(name, problem, began_at))
        except LeadershipLost:
            log.info("an effect outlived its term; nothing of it was told", clip_id=effect.clip_id, effect=name)
        except (Exception, asyncio.CancelledError):
            if is_being_cancelled():
                raise
            # The edge for one effect: a fault of ours counts as a failed try, so that it ends with a reason.
            log.exception("an effect broke", clip_id=effect.clip_id, effect=name)
            await self._failed(pipeline, effect, Failure(name, broken(name), began_at))
        finally:
            self.progress.pop((effect.clip_id, effect.attempt), None)
            self._on_report()

    async def _report(self, effect: Effect, done: Done) -> None:
        if done.step is not None:
            await self.report_step(effect, done.step, done.details)
        elif done.details:
            async with connection_of(self._pool) as connection:
                details = json.dumps(dict(done.details))
                await connection.execute(_MERGE, *self._leading, effect.clip_id, details, effect.attempt)

    async def report_step(self, effect: Effect, step: Step, details: Mapping[str, Any] | None = None) -> None:
        """File *step* as a signal that rests on something seen.

        Raises:
            LeadershipLost: the term is over; nothing was filed.
            DatabaseAwayError: it may have been filed.
        """
        said = {"reason": step.reason, "facts": dict(step.facts), **step.details, **(details or {})}
        async with connection_of(self._pool) as connection:
            values = (effect.clip_id, effect.attempt, step.status, effect_name(effect), json.dumps(said))
            filed = await connection.execute(_REPORT, *self._leading, *values)
        if filed == "INSERT 0 0":
            raise LeadershipLost(f"epoch {self._term.epoch} is over")
        self._on_report()

    def _refuse_when_over(self) -> None:
        if self._remaining_seconds() <= 0:
            raise LeadershipLost(f"epoch {self._term.epoch} cannot be trusted any more")

    @property
    def _leading(self) -> tuple[str, int]:
        return self._term.holder, self._term.epoch

    async def _failed(self, pipeline: str, effect: Effect, failure: Failure) -> None:
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection, connection.transaction():
                clip = await read_clip(connection, effect.clip_id)
                if clip is not None and clip.attempt == effect.attempt:
                    limits = self._pipelines[pipeline].limits
                    await write_each(connection, self._term, [after_failure(limits, clip, failure, self._clock())])
        except Exception:
            # Lost with the database or the lease: the next look starts the effect again.
            log.exception("a failed try could not be written", clip_id=effect.clip_id)


def _key(effect: Effect) -> Key:
    return effect.clip_id, effect.attempt, effect_name(effect)


class _Reports:
    """What a running effect may tell."""

    def __init__(self, runner: EffectRunner, pipeline: str, effect: Effect) -> None:
        self._runner = runner
        self._pipeline = pipeline
        self._effect = effect

    def progress(self, status: str, percent: float | None) -> None:
        if percent is not None:
            told = Told(self._pipeline, status, percent)
            self._runner.progress[self._effect.clip_id, self._effect.attempt] = told

    async def step(self, step: Step) -> None:
        await self._runner.report_step(self._effect, step)
