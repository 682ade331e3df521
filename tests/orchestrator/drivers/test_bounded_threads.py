"""Blocking calls: a few at once, each result delivered, none able to hold up the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from orchestrator.drivers.bounded_threads import BoundedThreads


async def test_hands_over_results_and_failures():
    threads = BoundedThreads(2, "test")

    assert await threads.run(lambda: threading.current_thread().name) == "test"
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_no_more_than_so_many_at_once():
    threads, running, most = BoundedThreads(3, "test"), [], []

    def work():
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.005)
        running.pop()

    await asyncio.gather(*(threads.run(work) for _ in range(20)))

    assert max(most) <= 3


async def test_a_call_given_up_holds_its_place_until_it_ends():
    threads, may_end, started = BoundedThreads(1, "test"), threading.Event(), threading.Event()

    def work():
        started.set()
        may_end.wait()

    first = asyncio.ensure_future(threads.run(work))
    while not started.is_set():
        await asyncio.sleep(0)
    first.cancel()
    second = asyncio.ensure_future(threads.run(lambda: "second"))
    done, _ = await asyncio.wait([second], timeout=0.05)
    assert not done

    may_end.set()
    assert await second == "second"


def test_a_hanging_call_does_not_hold_up_the_end():
    code = """
import asyncio, contextlib, threading
from orchestrator.drivers.bounded_threads import BoundedThreads
async def main():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await BoundedThreads(1, "test").run(threading.Event().wait)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0
