"""Signals that share a commit: those that come while one is under way are written together by the next one.

A commit waits for the disk, and while it does, others come; so a busy process makes few commits of many signals, and a
lonely signal is written at once. Each caller is answered after the commit that holds its own signal, with its own
outcome. What may keep one of them waiting (a row that somebody holds, a second signal for the same clip) keeps nobody
else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import asyncpg
import structlog
from aiohttp import web

from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS
from orchestrator.web.sharing import TooManyWaiting, fail
from signals import Asked, ClipHeld, Signal, signal_status_updates

# Half a second of what one process takes at its best; more than that is not caught up with before callers give up.
WAITING_MAX = 2_000
# One statement's worth: more no longer makes it cheaper, and every one of them waits for the last.
TOGETHER_MAX = 100
# A free connection within ten seconds, an answer within eight, as everywhere; and the same again where the first
# commit has to end before one's own begins. A caller's own patience is usually 30 s.
_WAIT_SECONDS = 25.0
_LOOK_SECONDS = 1.0
# A batch of the monitor holds its rows for tens of milliseconds: whoever meets one tries again among the others.
_HELD_AGAIN_SECONDS = 0.005
_HELD_SECONDS = 0.25
# Rows that are held for longer are waited for singly, up to the session's lock_timeout, on connections that others
# need as well: never more than these of the pool's ten.
_WAITING_ALONE_MAX = 3


@dataclass(eq=False, slots=True)
class _Waiting:
    """One signal and whoever waits for what becomes of it; *since* is when its clip was first found held."""

    signal: Signal
    outcome: asyncio.Future[Asked]
    until: float
    since: float | None = None


class SharedSignals:
    """The signals of one process. *pool* acts as the role that may only ask."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Waiting] = deque()
        self._open: set[_Waiting] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_WAITING_ALONE_MAX)

    async def ask(self, signal: Signal) -> Asked:
        """What `signal_status_updates` tells of *signal*, once it is committed.

        Whoever is cancelled before the writing has begun leaves nothing behind; after that it is written all the same.

        Raises:
            SignalError: it was refused; nothing was written.
            TooManyWaiting: come again later; nothing was written.
            TimeoutError, asyncpg.PostgresError, OSError: the database is away; it may have been written.
        """
        if len(self._open) >= WAITING_MAX:
            raise TooManyWaiting
        loop = asyncio.get_running_loop()
        one = _Waiting(signal, loop.create_future(), loop.time() + _WAIT_SECONDS)
        self._open.add(one)
        if self._patience is None:
            self._patience = loop.call_later(_LOOK_SECONDS, self._end_waiting)
        try:
            self._queue(one)
            return await one.outcome
        finally:
            self._open.discard(one)
            if one.outcome.done() and not one.outcome.cancelled():
                one.outcome.exception()  # seen, also by a caller who was cancelled at this very moment

    async def close(self) -> None:
        """Stop writing; whoever still waits is told that it was cancelled."""
        tasks = [*self._alone, *([self._writer] if self._writer is not None else [])]
        for task in tasks:
            task.cancel()
        fail([one.outcome for one in self._waiting], asyncio.CancelledError())
        if self._patience is not None:
            self._patience.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end_waiting(self) -> None:
        """Let those go who have waited for too long: one look for all costs less than a timer for each."""
        loop = asyncio.get_running_loop()
        fail([one.outcome for one in self._open if one.until <= loop.time()], TimeoutError())
        self._patience = loop.call_later(_LOOK_SECONDS, self._end_waiting) if self._open else None

    def _queue(self, one: _Waiting) -> None:
        self._waiting.append(one)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="shared-signals")

    async def _write(self) -> None:
        """Write what waits, one commit after the other, until nothing does."""
        structlog.contextvars.clear_contextvars()  # it is nobody's call in particular
        while batch := self._next():
            try:
                async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                    outcomes = await signal_status_updates(connection, [one.signal for one in batch])
            except BaseException as problem:
                fail([one.outcome for one in batch], problem)
                if not isinstance(problem, Exception):
                    raise
                continue
            for one, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, ClipHeld):
                    self._again(one)
                elif isinstance(outcome, Asked):
                    if not one.outcome.done():
                        one.outcome.set_result(outcome)
                else:
                    fail([one.outcome], outcome)

    def _next(self) -> list[_Waiting]:
        """What is written together next: in the order of their coming, and of each clip's the first."""
        batch: dict[tuple[str | None, str | None], _Waiting] = {}
        later: list[_Waiting] = []
        while self._waiting and len(batch) < TOGETHER_MAX:
            one = self._waiting.popleft()
            if one.outcome.done():
                continue  # whoever asked has gone
            if one.signal.named in batch:
                later.append(one)
            else:
                batch[one.signal.named] = one
        self._waiting.extendleft(reversed(later))
        return list(batch.values())

    def _again(self, one: _Waiting) -> None:
        """Its clip is held: soon again with the others; by itself when that lasts."""
        if one.outcome.done():
            return
        loop = asyncio.get_running_loop()
        if one.since is None:
            one.since = loop.time()
        if loop.time() - one.since < _HELD_SECONDS:
            loop.call_later(_HELD_AGAIN_SECONDS, self._queue, one)
            return
        task = asyncio.create_task(self._write_alone(one), name="signal-alone")
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _write_alone(self, one: _Waiting) -> None:
        """Wait for the clip as long as the session may."""
        try:
            async with self._places:
                if one.outcome.done():
                    return
                async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                    (outcome,) = await signal_status_updates(connection, [one.signal], waits=True)
        except BaseException as problem:
            fail([one.outcome], problem)
            if not isinstance(problem, Exception):
                raise
            return
        if isinstance(outcome, Asked):
            if not one.outcome.done():
                one.outcome.set_result(outcome)
        else:
            fail([one.outcome], outcome)


SHARED_SIGNALS: web.AppKey[SharedSignals] = web.AppKey("shared-signals", SharedSignals)
