"""A few worlds, quickly: they hold their promises, and repeat themselves."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from simulation.batch import run_jobs
from simulation.crashing import Kill, run_crash
from simulation.database import UnknownStatement
from simulation.scenarios import draw_scenario
from simulation.world import World, run_seed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_world_holds_its_promises(seed: int) -> None:
    assert run_seed(seed).violations == []


def test_a_seed_repeats_its_journal() -> None:
    assert run_seed(4).digest == run_seed(4).digest != run_seed(5).digest


def test_other_processes_run_the_same_world() -> None:
    (answer,) = run_jobs([{"seed": 4}], processes=1)
    assert answer.digest == run_seed(4).digest


def test_a_monitor_killed_in_the_middle_is_succeeded() -> None:
    crashed = run_crash(Kill(300))
    assert crashed.killed == ["monitor-1#1"]
    assert crashed.violations == []


def test_a_process_that_ends_at_an_unknown_statement_is_told_of_in_whatever_task_it_was() -> None:
    world = World(draw_scenario(1))
    run_web, starts = world.ground.run_web, count()

    async def ends_once(stop: asyncio.Event) -> None:
        if next(starts) == 0:
            raise BaseExceptionGroup("of tasks", [UnknownStatement("SELECT 2")])
        await run_web(stop)

    world.ground.run_web = ends_once  # type: ignore[method-assign]
    (said,) = world.run().violations
    assert said.startswith("the simulation knows the program")
    assert "SELECT 2" in said
    assert next(starts) > 1, "it is started again"


@pytest.mark.parametrize(
    ("clip_before", "is_expected"),
    [("c", True), ("former", False), (None, False)],
    ids=["its", "left-behind", "nobodys"],
)
def test_a_notification_is_expected_in_the_history_of_the_clip_whose_video_it_was_all_along(
    clip_before: str | None, is_expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(draw_scenario(1))
    monkeypatch.setattr(world, "clip_of", lambda uid: "c")
    world.people._webhook_was_taken("u", clip_before)
    assert world.people.acknowledged == ([("c", "webhook", "")] if is_expected else [])
