"""The way of a statement that nothing befalls on the wire: there, be run, and back.

It does what a task would do that naps, runs the statement and naps again, at the same moments and in the same order,
but wakes the task only once: most of what a simulated run does are such ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

import asyncpg

from simulation.nodes import NODE

if TYPE_CHECKING:
    from simulation.database_server import Session
    from simulation.loop import SimulatedLoop


class Trip:
    """One such way. *run* runs a statement of *session*; *comes_back* draws the seconds of the way back."""

    __slots__ = (
        "_answer", "_comes_back", "_context", "_expired", "_future", "_loop", "_problem", "_run", "_session", "_task",
        "waits_for_lock",
    )  # fmt: skip

    def __init__(
        self,
        loop: SimulatedLoop,
        context: Context,
        session: Session,
        run: Callable[[], Any],
        comes_back: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._context = context
        self._session = session
        self._run = run
        self._comes_back = comes_back
        #: What the task waits for: its statement's return, or its lock.
        self._future: asyncio.Future[Any] = loop.create_future()
        self._task: asyncio.Task[Any] | None = None
        self._answer: Any = None
        self._problem: BaseException | None = None
        self._expired = False
        #: Whether the statement had to wait for a lock.
        self.waits_for_lock = False

    async def make(self, seconds: float, timeout: float) -> Any:
        """The answer, within *timeout* seconds; *seconds* is how long the way there takes.

        Raises what the server raises, and `TimeoutError`.
        """
        loop, context = self._loop, self._context
        self._task = task = asyncio.current_task(loop)
        assert task is not None
        cancelling = task.cancelling()
        limit = loop.at(_later(loop, timeout), self._expire, (), context)
        loop.at(loop.now + seconds, self._arrive, (), context)
        try:
            await self._made()
        except asyncio.CancelledError as cancelled:
            if self._expired and task.uncancel() <= cancelling:
                raise TimeoutError from cancelled
            raise
        finally:
            limit.cancel()
        if self._expired:
            task.uncancel()
        if self._problem is not None:
            raise self._problem
        return self._answer

    async def _made(self) -> None:
        """Return when the client has its answer."""
        try:
            locked = await self._future
        except asyncpg.PostgresError as refusal:
            self._problem = refusal
        else:
            if self.waits_for_lock:
                self._answer = locked
        if self.waits_for_lock:
            await self._loop.nap(self._comes_back())

    def _expire(self) -> None:
        assert self._task is not None
        self._expired = True
        self._task.cancel()

    def _arrive(self) -> None:
        if not self._future.done():
            self._loop.next_turn(self._serve, self._context)

    def _serve(self) -> None:
        if self._future.done():
            return
        try:
            self._answer = self._run()
            if isinstance(self._answer, asyncio.Future):
                self._wait(self._answer)
        except asyncpg.PostgresError as refusal:
            self._problem = refusal
        except BaseException as fault:
            self._problem = fault
            self._future.set_result(None)
            return
        if not self.waits_for_lock:
            self._loop.at(self._loop.now + self._comes_back(), self._be_back, (), self._context)

    def _wait(self, answer: asyncio.Future[Any]) -> None:
        """Have the task itself wait for the lock, unless it was free at once after all."""
        if answer.done():
            self._answer = answer.result()
            return
        assert self._session.waiting is not None
        self._session.waiting.future = self._future
        self.waits_for_lock = True

    def _be_back(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def _later(loop: SimulatedLoop, seconds: float) -> float:
    """The true time at which the clock of the node that asks shows so many seconds more."""
    node = NODE.get()
    return loop.now + seconds if node is None else node.true_time(node.monotonic(loop.now) + seconds)
