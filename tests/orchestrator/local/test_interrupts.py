from __future__ import annotations

import asyncio
import os
import signal

import pytest

from orchestrator.local.interrupts import Interrupts, unless


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_asks_and_the_second_insists(number: signal.Signals) -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await interrupts.stop.wait()
        assert not interrupts.at_once.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await interrupts.at_once.wait()


async def test_work_that_ends_first_ends_with_its_own_outcome() -> None:
    async def fine() -> None:
        return

    async def broken() -> None:
        raise LookupError

    assert await unless(asyncio.Event(), fine()) is True
    with pytest.raises(LookupError):
        await unless(asyncio.Event(), broken())


async def test_work_is_cancelled_by_the_event_and_waited_for() -> None:
    event, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        event.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    assert await unless(event, work()) is False
    assert cleaned.is_set()


async def test_what_breaks_during_the_cancellation_is_not_hidden() -> None:
    event = asyncio.Event()

    async def work() -> None:
        event.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError

    with pytest.raises(LookupError):
        await unless(event, work())
