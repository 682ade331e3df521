"""What goes on beside a block goes on whatever befalls one round of it, and ends with the block."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from orchestrator import beside
from orchestrator.beside import rounds_beside, written_beside

LIMIT_SECONDS = 10.0


async def test_a_round_that_breaks_is_told_of_and_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "PAUSE_SECONDS", 0.001)
    rounds, has_gone_on = 0, asyncio.Event()

    async def breaks_twice() -> None:
        nonlocal rounds
        rounds += 1
        if rounds <= 2:
            raise ValueError(f"round {rounds}")
        has_gone_on.set()
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with asyncio.timeout(LIMIT_SECONDS), rounds_beside("something", breaks_twice):
            await has_gone_on.wait()
    assert [(line["log_level"], line["work"]) for line in logs] == [("error", "something")] * 2
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "something"]


async def test_what_breaks_at_once_is_not_begun_at_once_again() -> None:
    rounds, has_broken = 0, asyncio.Event()

    async def breaks() -> None:
        nonlocal rounds
        rounds += 1
        has_broken.set()
        raise ValueError

    with capture_logs():
        async with asyncio.timeout(LIMIT_SECONDS), rounds_beside("something", breaks):
            await has_broken.wait()
            for _ in range(100):
                await asyncio.sleep(0)
    assert rounds == 1


async def test_a_block_that_fails_has_its_last_words_written() -> None:
    written: list[float] = []

    async def write(seconds: float) -> None:
        written.append(seconds)

    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(LIMIT_SECONDS), written_beside("a log", asyncio.Event(), write, 2.0):
            raise ZeroDivisionError
    assert written == [beside.LAST_WRITE_SECONDS]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "a log"]
