"""One clip driven to its end by the product's own plan, law and hands, with a row in memory instead of a database.

The order of things is the monitor's: what was reported is judged, a look is planned, written, and its effects are
started; a failed effect is written by the same `after_failure`. What the monitor's statement does to the row is
done here to the `Clip`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from orchestrator.drivers.errors import DriverError, TransientError
from orchestrator.monitor.effects import after_failure
from orchestrator.monitor.judging import Signal, settle
from orchestrator.monitor.looking import to_move, unseen
from orchestrator.monitor.moves import Entry, Move
from orchestrator.pipelines.terms import Done, Effect, Hands, Pipeline, Step, effect_name
from orchestrator.storage.clips import Clip
from statusutils import COMPLETE, ERROR

#: As the monitor leaves a clip alone whose look could not be written.
_PAUSE_SECONDS = 0.25
_FACTS = ("cloudflare_uid", "duration", "file_size", "thumbnail_url", "hls_url", "dash_url", "mp4_url", "r2_url")


class OneClip:
    """A clip on its way; *entries* is its history, *broke* what no effect may raise."""

    def __init__(
        self, clip: Clip, pipeline: Pipeline, hands: Hands, clock: Callable[[], datetime], chance: Random
    ) -> None:
        self.clip = clip
        self.entries: list[Entry] = []
        self.broke: list[Exception] = []
        #: Told of every change of status: the old one, the new one.
        self.on_move: Callable[[str, str], None] = lambda *_: None
        self._pipeline = pipeline
        self._hands = hands
        self._clock = clock
        self._chance = chance
        self._signals: list[Signal] = []
        self._numbers = count(1)
        self._running: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._woken = asyncio.Event()

    async def run(self, limit: timedelta) -> Clip:
        """The clip when nothing more follows for it, or when *limit* is over; effects are stopped then."""
        until = self._clock() + limit
        try:
            while not self._is_at_rest() and self._clock() < until:
                await self._round(until)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)
        return self.clip

    def _is_at_rest(self) -> bool:
        ended = self.clip.status in (COMPLETE, ERROR) and self.clip.look_at is None
        return ended and not self._running and not self._signals

    async def _round(self, until: datetime) -> None:
        self._judge()
        if self.clip.look_at is not None and self.clip.look_at <= self._clock():
            await self._look()
            return
        next_at = min(until, self.clip.look_at or until)
        self._woken.clear()
        if not self._signals:
            try:
                async with asyncio.timeout(max(0.0, (next_at - self._clock()).total_seconds()) + 0.001):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _judge(self) -> None:
        if self._signals:
            signals, self._signals = self._signals, []
            self._write(settle(self._pipeline.table, self.clip, signals, self._clock()))

    async def _look(self) -> None:
        clip = self.clip
        kind = self._pipeline.look_kind(clip)
        try:
            seen: Mapping[str, Any] = await self._hands.observe(kind, [clip]) if kind.name != "nothing" else {}
            plan = self._pipeline.plan(clip, seen.get(clip.id), self._clock())
        except DriverError as problem:
            plan = unseen(clip, problem, self._clock(), self._chance.random())
        if not self._write(to_move(self._pipeline, clip, plan)):
            await asyncio.sleep(_PAUSE_SECONDS)
            return
        if self.clip.status in (COMPLETE, ERROR):
            wanted = {(effect.attempt, effect_name(effect)) for effect in plan.effects}
            for key, task in self._running.items():
                if key not in wanted:
                    task.cancel()
        for effect in plan.effects:
            self._start(effect)

    def _start(self, effect: Effect) -> None:
        key = (effect.attempt, effect_name(effect))
        if key not in self._running:
            task = asyncio.create_task(self._carry_out(effect), name=key[1])
            self._running[key] = task
            task.add_done_callback(lambda _: (self._running.pop(key, None), self._woken.set()))

    async def _carry_out(self, effect: Effect) -> None:
        try:
            done = await self._hands.carry_out(effect, _Reports(self, effect))
        except DriverError as problem:
            self._failed(effect, problem)
        except Exception as problem:
            self.broke.append(problem)
            self._failed(effect, TransientError("internal", f"{effect_name(effect)} broke"))
        else:
            self._report(effect, done)
            self._judge()

    def _failed(self, effect: Effect, problem: DriverError) -> None:
        if self.clip.attempt == effect.attempt:
            self._write(after_failure(self.clip, effect, problem, self._clock()))

    def _report(self, effect: Effect, done: Done) -> None:
        if done.step is not None:
            self.report(effect, done.step, done.details)
        elif done.details and self.clip.attempt == effect.attempt:
            details = {**self.clip.processing_details, **json.loads(json.dumps(dict(done.details)))}
            self.clip = replace(self.clip, processing_details=details)

    def report(self, effect: Effect, step: Step, details: Mapping[str, Any] | None = None) -> None:
        """File *step* as the effect's signal."""
        said = {"reason": step.reason, "facts": dict(step.facts), **step.details, **(details or {})}
        kept = json.loads(json.dumps(said))
        name = effect_name(effect)
        self._signals.append(
            Signal(next(self._numbers), effect.attempt, step.status, name, kept, observed=True, insists=False)
        )
        self._woken.set()

    def _write(self, move: Move) -> bool:
        """What the monitor's statement does to the row; False when the clip stands elsewhere by now."""
        clip = self.clip
        if (clip.status, clip.attempt) != (move.before.status, move.before.attempt):
            return False
        look_at = move.look_at
        if clip.look_at != move.seen_look_at:
            look_at = min((at for at in (clip.look_at, move.look_at) if at is not None), default=None)
        facts = json.loads(json.dumps(dict(move.facts)))
        details = {name: said for name, said in clip.processing_details.items() if name not in move.cleared}
        details |= json.loads(json.dumps(dict(move.details)))
        self.clip = replace(
            clip,
            status=move.after.status,
            attempt=move.after.attempt,
            progress=max(clip.progress, move.after.progress),
            status_since=self._clock() if move.changes_status else clip.status_since,
            look_at=look_at,
            tries=clip.tries if move.tries is None else move.tries,
            processing_details=details,
            error_message=details.get("error_message") if move.after.status == ERROR else None,
            **{name: facts[name] for name in _FACTS if facts.get(name) is not None},
        )
        self.entries.extend(move.entries)
        if move.changes_status:
            self.on_move(clip.status, move.after.status)
        return True


class _Reports:
    """What a running effect tells."""

    def __init__(self, clip: OneClip, effect: Effect) -> None:
        self._clip = clip
        self._effect = effect

    def progress(self, status: str, percent: float | None) -> None:
        """Not kept: progress decides nothing."""

    async def step(self, step: Step) -> None:
        self._clip.report(self._effect, step)
