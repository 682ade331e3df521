"""An event loop whose clock jumps to the next timer, and which knows to which node each of its steps belongs.

Steps run in asyncio's own order: what became ready first runs first. What happens at once in life is told apart
by latencies drawn from the seed where something is sent or asked, never by shuffling what is ready.

A crashed node takes no further step. Its coroutines stay referenced until the run is over: a process that was
killed runs no ``finally``, so nothing may be collected and closed here, either.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from simulation.nodes import NODE, Node

# A run of the largest scenario takes a tenth of this; more steps are a loop that never waits.
STEP_LIMIT = 2_000_000
# A call that blocks a thread comes back after this long, unless it says that it takes longer.
THREAD_SECONDS = (0.0005, 0.02)


class SimulationError(AssertionError):
    """The simulation could not go on; what it found is a fault of the program, or of the simulation."""


class Deadlock(SimulationError):
    """Nothing is ready and no timer is set, but what was waited for has not happened."""


class TooManySteps(SimulationError):
    """The program did not come to rest."""


class _Task(asyncio.Task):  # type: ignore[type-arg]
    """A task whose place in a set depends on its number, not on its address in memory."""

    _numbers = count()

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(_Task._numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number


class Handle:
    """A callback to be called; as asyncio's, without its debugging."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "moment")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None, moment: float = 0.0
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.is_cancelled = False
        self.moment = moment

    def cancel(self) -> None:
        """Do not call it."""
        self.is_cancelled = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """The moment of a timer, by the clock of whoever set it."""
        return self.moment


def _nothing() -> None:
    """What a cancelled handle calls."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop of one run. *journal* holds what happened, one short line each; equal seeds make equal journals."""

    #: Search for garbage after every so many runs. Where they are many, what a search has left is not searched again:
    #: each would take longer than the one before.
    collects_every = 1
    _buried = count(1)

    def __init__(self, seed: int, step_limit: int = STEP_LIMIT) -> None:
        super().__init__()
        _Task._numbers = count()
        self.set_task_factory(_make_task)
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self.journal: list[str] = []
        #: Exceptions that nobody took; in the program they would be a line of the log and a dead task.
        self.problems: list[dict[str, Any]] = []
        #: Called before each step of a node that is counted; may crash it.
        self.on_step: Callable[[Node], None] | None = None
        self._step_limit = step_limit
        self._numbers = count()
        self._timers: list[tuple[float, int, Handle]] = []
        self._queue: deque[Handle] = deque()
        self._thread: _ThreadTime | None = None
        self._graveyard: list[object] = []
        self._draws: dict[str, Random] = {}
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    # --- What is left to chance --------------------------------------------------------------------------

    def draw(self, purpose: str) -> Random:
        """The source of chance for one purpose: another purpose that draws more does not change what it draws."""
        if purpose not in self._draws:
            self._draws[purpose] = Random(f"{self.seed}/{purpose}")  # noqa: S311 - chance to be repeated, no secret
        return self._draws[purpose]

    def tell(self, line: str) -> None:
        """Add a line to the journal, with the time and the node it is about."""
        node = NODE.get()
        self.journal.append(f"{self.now:.6f} {node.name if node else '-'} {line}")

    # --- Nodes -------------------------------------------------------------------------------------------

    def spawn(self, node: Node, coroutine: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Start *coroutine* as a part of *node*."""
        return self.create_task(coroutine, name=name or node.name, context=context_of(node))

    def crash(self, node: Node) -> None:
        """Let *node* take no further step, as kill -9 does."""
        if node.is_dead:
            return
        node.is_dead = True
        self.tell(f"crash {node.name}")
        self._graveyard.extend(asyncio.all_tasks(self))
        self._graveyard.extend(node.frozen)
        for told in node.on_crash:
            told()

    def pause(self, node: Node, seconds: float) -> None:
        """Let *node* take no step for *seconds*, as SIGSTOP and SIGCONT do; its clocks run on."""
        if node.is_dead:
            return
        self.tell(f"pause {node.name} {seconds:.3f}")
        node.frozen_until = max(node.frozen_until, self.now + seconds)
        self.after(seconds, partial(self._thaw, node))

    def _thaw(self, node: Node) -> None:
        if self.now >= node.frozen_until:
            held, node.frozen = node.frozen, []
            self._queue.extend(held)

    # --- Time --------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The monotonic clock of the node that asks; the true time outside of any."""
        node = NODE.get()
        return self.now if node is None else node.monotonic(self.now)

    def after(self, seconds: float, callback: Callable[..., object], *args: Any, node: Node | None = None) -> Handle:
        """Call *callback* after true *seconds*, as a step of *node* (of none: outside of all nodes)."""
        return self._at(self.now + max(0.0, seconds), callback, args, context_of(node))

    async def nap(self, seconds: float) -> None:
        """Wait for true *seconds*; cheaper than a sleep."""
        future = self.create_future()
        self.at(self.now + seconds, _set_result, (future, None), copy_context())
        await future

    def at(self, true_time: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> Handle:
        """Call *callback* at *true_time*, as a step of whoever *context* belongs to."""
        handle = Handle(callback, args, context, true_time)
        heappush(self._timers, (true_time, next(self._numbers), handle))
        return handle

    def next_turn(self, callback: Callable[[], object], context: Context) -> None:
        """Call *callback* when what is ready now has had its turn."""
        self._queue.append(Handle(callback, (), context))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, context)
        self._queue.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        node = NODE.get()
        return self._at(when if node is None else node.true_time(when), callback, args, context, when)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        if self._thread is None:
            return self.call_soon(callback, *args, context=context)
        # From a thread: its answer comes when the thread is through.
        return self._at(self.now + self._thread.seconds, callback, args, context)

    def _at(
        self,
        true_time: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context | None,
        when: float | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context, true_time if when is None else when)
        heappush(self._timers, (true_time, next(self._numbers), handle))
        return handle

    # --- Threads -----------------------------------------------------------------------------------------

    def in_thread(self, work: Callable[[], object]) -> None:
        """Do *work* at a moment of its own, as a thread of the calling node would.

        A crash before that moment: it was never done. After it: it was, and nobody hears of it.
        """
        draw = self.draw("threads")
        until_done, until_told = draw.uniform(*THREAD_SECONDS), draw.uniform(*THREAD_SECONDS)

        def run() -> None:
            self._thread = _ThreadTime(until_told)
            try:
                work()
            finally:
                self._thread = None

        self._at(self.now + until_done, run, (), copy_context())

    def thread_takes(self, seconds: float) -> None:
        """Say, inside work done by `in_thread`, that it blocked for so long before it came back."""
        if self._thread is not None:
            self._thread.seconds += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()

        def work() -> None:
            try:
                tell: Callable[[], None] = partial(_set_result, future, func(*args))
            except BaseException as problem:
                tell = partial(_set_exception, future, problem)
            self.call_soon_threadsafe(tell)

        self.in_thread(work)
        return future

    # --- Running -----------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Turn after turn, until somebody stops the loop. In one function: a run takes thousands of steps."""
        queue, timers, limit = self._queue, self._timers, self._step_limit
        while True:
            if not queue:
                while timers and timers[0][2].is_cancelled:
                    heappop(timers)
                if not timers:
                    raise Deadlock(f"nothing will ever happen again, at {self.now:.1f} s")
                if timers[0][0] > self.now:
                    self.now = timers[0][0]
            now = self.now
            while timers and timers[0][0] <= now:
                handle = heappop(timers)[2]
                if not handle.is_cancelled:
                    queue.append(handle)
            for _ in range(len(queue)):
                handle = queue.popleft()
                if handle.is_cancelled:
                    continue
                context = handle.context
                node = context.get(NODE)
                if node is not None:
                    if (node.is_dead or now < node.frozen_until) and not self._may_step(node, handle):
                        continue
                    node.steps += 1
                    if self.on_step is not None and self._is_crashed_now(node, handle):
                        continue
                self.steps += 1
                if self.steps > limit:
                    raise TooManySteps(f"{self.steps} steps until {now:.1f} s")
                try:
                    context.run(handle.callback, *handle.args)
                except (KeyboardInterrupt, SystemExit, SimulationError):
                    raise
                except BaseException as problem:
                    told = {"message": f"Exception in callback {handle.callback}", "exception": problem}
                    self.call_exception_handler(told)
            if self._stopping:
                return

    def _may_step(self, node: Node, handle: Handle) -> bool:
        """Whether the node of *handle* lives and runs; the handle is kept if it does not."""
        if node.is_dead:
            self._graveyard.append(handle)
            return False
        if self.now < node.frozen_until:
            node.frozen.append(handle)
            return False
        return True

    def _is_crashed_now(self, node: Node, handle: Handle) -> bool:
        """Whether whoever counts the steps has crashed *node* before this one."""
        assert self.on_step is not None
        self.on_step(node)
        if node.is_dead:
            self._graveyard.append(handle)
        return node.is_dead

    def bury(self) -> None:
        """End the run: close what is left, without a word, after everything has been looked at."""
        tasks = asyncio.all_tasks(self)
        self.close()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for task in sorted(tasks, key=hash):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine = task.get_coro()
                with contextlib.suppress(BaseException):
                    coroutine.close()  # type: ignore[union-attr]
            tasks.clear()
            self._graveyard.clear()
            self._timers.clear()
            self._queue.clear()
            del tasks
            if next(self._buried) % self.collects_every == 0:
                gc.collect()
                if self.collects_every > 1:
                    gc.freeze()
        sys.unraisablehook = hook

    def _write_to_self(self) -> None:
        """Nothing: there is no selector to be woken."""

    def _process_events(self, event_list: Any) -> None:
        """Nothing: there is no selector."""


def settle() -> None:
    """Take what there is out of every later search for garbage, now and after each, search less often, and let the dead
    rest.

    For processes that do nothing but simulate.
    """
    gc.collect()
    gc.freeze()
    SimulatedLoop.collects_every = 10
    sys.unraisablehook = _unraisable


def _unraisable(unraisable: Any) -> None:
    """Python's own hook, but for killed processes: when they are cleared away they may not tidy up after themselves."""
    if "ignored GeneratorExit" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


class _ThreadTime:
    """How long the thread that is running now takes to come back."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def context_of(node: Node | None) -> Context:
    """A context of its own whose steps belong to *node*."""
    context = Context()
    if node is not None:
        context.run(NODE.set, node)
    return context


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return _Task(coroutine, loop=loop, **options)


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], problem: BaseException) -> None:
    if not future.done():
        future.set_exception(problem)
