"""Puts a simulation in charge of everything that would differ from run to run: clocks, chance, threads, sockets.

Only inside `in_charge`; afterwards everything is as it was.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from types import FunctionType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import aiohttp.connector
import botocore.auth

from orchestrator.drivers import bounded_threads
from simulation.loop import SimulatedLoop
from simulation.network import NetworkedLoop, start_connection
from simulation.nodes import wall_clock

# Where names like `monotonic` or `datetime` may have been taken out of their modules.
_PACKAGES = ("orchestrator", "signals", "aiohttp")
_REAL = {id(getattr(time, name)): name for name in ("time", "monotonic", "perf_counter")}


@contextmanager
def in_charge(loop: NetworkedLoop) -> Iterator[None]:
    """Run the body with *loop*'s clocks, chance, threads and network in place of the real ones."""
    replaced = _clocks(loop)
    chance_before = random.getstate()
    collects = gc.isenabled()
    with ExitStack() as stack:
        for place, name, clock in _places(len(sys.modules)):
            stack.enter_context(patch.object(place, name, replaced[clock]))
        for function, clocks in _defaults(len(sys.modules)):
            mine = tuple(replaced[clock] if clock else value for clock, value in clocks)
            stack.enter_context(patch.object(function, "__defaults__", mine))
        now = replaced["datetime"].now
        stack.enter_context(patch.object(botocore.auth, "get_current_datetime", partial(_naive, now)))
        _take_chance(loop, stack)
        stack.enter_context(patch.object(aiohttp.connector.aiohappyeyeballs, "start_connection", start_connection))
        threads = SimpleNamespace(Thread=lambda **options: _Thread(loop, **options))
        stack.enter_context(patch.object(bounded_threads, "threading", threads))
        # What is collected depends on what ran before in this process: nothing is, while the run lasts.
        gc.disable()
        try:
            yield
        finally:
            random.setstate(chance_before)
            if collects:
                gc.enable()
            asyncio.set_event_loop(None)


def _clocks(loop: SimulatedLoop) -> dict[str, Any]:
    """What takes the place of each clock, by the clock's name."""

    def wall() -> float:
        return wall_clock(loop.now)

    return {"time": wall, "monotonic": loop.time, "perf_counter": loop.time, "datetime": _dated(wall)}


def _dated(wall: Callable[[], float]) -> type:
    """The class `datetime`, whose ``now`` is the simulation's; what it makes are plain datetimes."""
    real = datetime.datetime

    class Kind(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Simulated(real, metaclass=Kind):  # type: ignore[misc]
        def __new__(cls, *args: Any, **options: Any) -> Any:
            return real(*args, **options)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.fromtimestamp(wall(), tz)

    return Simulated


@cache
def _places(_modules: int) -> list[tuple[Any, str, str]]:
    """Every name through which the program reaches a clock, and which clock; found anew when modules were added."""
    clocks = {**_REAL, id(datetime.datetime): "datetime"}
    found: list[tuple[Any, str, str]] = [(time, name, name) for name in _REAL.values()]
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] in _PACKAGES and module is not None:
            found += [(module, name, clocks[id(value)]) for name, value in vars(module).items() if id(value) in clocks]
    return found


@cache
def _defaults(_modules: int) -> list[tuple[Any, tuple[tuple[str, Any], ...]]]:
    """Every function of the program that has a clock for a default: of each default which clock it is, and itself."""
    functions: dict[int, Any] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] in _PACKAGES[:2] and module is not None:
            for value in list(vars(module).values()):
                members = list(vars(value).values()) if isinstance(value, type) else [value]
                functions |= {
                    id(each): each for each in members if isinstance(each, FunctionType) and each.__defaults__
                }
    return [
        (function, tuple((_REAL.get(id(value), ""), value) for value in function.__defaults__))
        for function in functions.values()
        if any(id(value) in _REAL for value in function.__defaults__ or ())
    ]


def _naive(now: Callable[..., Any], *_: Any, **__: Any) -> Any:
    return now(datetime.UTC).replace(tzinfo=None)


def _take_chance(loop: SimulatedLoop, stack: ExitStack) -> None:
    """Draw everything that the program leaves to chance, secrets included, from the seed."""
    random.seed(f"{loop.seed}/program")
    draw = loop.draw("secrets")
    stack.enter_context(patch.object(os, "urandom", draw.randbytes))
    stack.enter_context(patch.object(secrets, "token_bytes", lambda count=32: draw.randbytes(count or 32)))
    stack.enter_context(patch.object(secrets, "token_hex", lambda count=32: draw.randbytes(count or 32).hex()))
    stack.enter_context(patch.object(secrets, "randbits", draw.getrandbits))


class _Thread:
    """What takes the place of a thread: its work is done in the loop's own thread, at a moment of its own."""

    def __init__(self, loop: SimulatedLoop, target: Callable[[], object], **_: Any) -> None:
        self._loop = loop
        self._target = target

    def start(self) -> None:
        """Have it done soon."""
        self._loop.in_thread(self._target)
