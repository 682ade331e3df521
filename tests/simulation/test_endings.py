"""What is excused at the end of a run is excused for its reason alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.monitor.leadership import LEASE_SECONDS
from simulation.endings import Endings
from simulation.scenarios import draw_scenario
from simulation.world import World


@pytest.mark.parametrize(
    ("rates", "after_seconds", "is_excused"),
    [
        ((0.5, 1.0), LEASE_SECONDS / 0.5 - 1, True),
        ((0.5, 1.0), LEASE_SECONDS / 0.5 + 1, False),
        ((0.5, 1.0), -1, False),
        ((1.0, 0.5), 1, False),
        ((2.0, 1.0), 1, False),
    ],
    ids=["trusted-still", "over-by-any-clock", "before-it-was-succeeded", "the-others-clock", "a-fast-clock"],
)
def test_a_leader_that_was_succeeded_is_excused_while_its_slow_clock_trusts_its_lease(
    rates: tuple[float, ...], after_seconds: float, is_excused: bool
) -> None:
    world = World(replace(draw_scenario(1), rates=rates))
    world.checker.succeeded.append((world.now(), "monitor-1#3"))
    at = world.now() + timedelta(seconds=after_seconds)
    assert Endings(world)._is_of_a_slow_clock(at) is is_excused
