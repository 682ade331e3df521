"""What the leader learns of the future, and what becomes of it when the history cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from orchestrator.pipelines.stream import foresight as foresight_module
from orchestrator.pipelines.stream.foresight import CROWD_SECONDS, FRESH_SECONDS, Foresight
from orchestrator.pipelines.stream.looks import SAMPLES_MIN, Outlook, expected_stays, next_look
from orchestrator.storage.timing import Arrival


def way(clip: int, *stays: tuple[str, float, float], duration: float | None = None) -> list[Arrival]:
    """The arrivals of a clip that stayed so long at each status, and by how much the end of each stay is unsure."""
    left = sum(seconds for _, seconds, _ in stays)
    arrivals, unsure = [], 0.0
    for status, seconds, unsure_then in stays:
        arrivals.append(Arrival("stream", f"c{clip}", status, left, unsure, duration))
        left, unsure = left - seconds, unsure_then
    return arrivals


class Pool:
    """A database with a history, or with a problem; *reads* counts."""

    def __init__(self) -> None:
        self.reads = 0
        self.problem: Exception | None = None

    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[Pool]:
        yield self

    async def fetch(self, statement: str) -> list[Any]:
        self.reads += 1
        if self.problem is not None:
            raise self.problem
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(foresight_module.time, "monotonic", lambda: now[0])
    return now


def test_both_statuses_of_the_mp4_are_one_stage_and_classes_stand_apart() -> None:
    foresight = Foresight()
    short = [way(n, ("waitformp4", 4, 0), ("mp4_processing", 6, 0), duration=30.0) for n in range(SAMPLES_MIN)]
    long = [way(100 + n, ("waitformp4", 90, 0), duration=4000.0) for n in range(SAMPLES_MIN)]
    foresight.learn([arrival for one in (*short, *long) for arrival in one])
    known = foresight.outlook()
    assert set(expected_stays(known, "mp4", 0, 5)) == {10.0}
    assert set(expected_stays(known, "mp4", 4, 5)) == {90.0}
    assert set(expected_stays(known, "mp4", 2, 5)) == {10.0, 90.0}


def test_few_clips_teach_nothing() -> None:
    foresight = Foresight()
    foresight.learn([arrival for n in range(SAMPLES_MIN - 1) for arrival in way(n, ("processing", 50, 0))])
    assert foresight.outlook() == Outlook()


def test_stays_do_not_grow_by_being_looked_at() -> None:
    """What is found late is recorded late; a program that believed it would look later with each generation."""
    chance = Random(7)  # noqa: S311 - chance to be repeated, no secret
    foresight, ends = Foresight(), []
    for _ in range(30):
        arrivals: list[Arrival] = []
        late = []
        known = expected_stays(foresight.outlook(), "mp4", None, 5)
        for clip in range(60):
            lasts, at, before = chance.uniform(15, 45), 0.0, 0.0
            while at < lasts:
                before, at = at, at + max(5.0, min(60.0, next_look(at, known, 2)))
            late.append(at - lasts)
            arrivals += way(clip, ("waitformp4", at, at - before), ("mp4downloading", 1, 0))
        foresight.learn(arrivals)
        ends.append(sum(late) / len(late))
    # Thirty seconds of doubt, looks five seconds apart at least: seen were four to seven seconds, at every generation.
    assert max(ends[1:]) < 10


async def test_the_history_is_read_seldom_and_a_failure_leaves_what_was_known(clock: list[float]) -> None:
    foresight, pool = Foresight(), Pool()
    foresight.learn([arrival for n in range(SAMPLES_MIN) for arrival in way(n, ("processing", 50, 0))])
    known = foresight.outlook()
    pool.problem = ConnectionRefusedError()
    for _ in range(3):
        await foresight.refresh(pool)  # type: ignore[arg-type]
    assert (pool.reads, foresight.outlook()) == (1, known)
    clock[0] += FRESH_SECONDS
    pool.problem = None
    await foresight.refresh(pool)  # type: ignore[arg-type]
    assert (pool.reads, foresight.outlook().stays) == (2, {})


def test_a_crowd_is_forgotten_when_no_list_follows(clock: list[float]) -> None:
    foresight = Foresight()
    foresight.note_list(30)
    assert foresight.outlook().crowd == 30
    clock[0] += CROWD_SECONDS
    assert foresight.outlook().crowd == 0
