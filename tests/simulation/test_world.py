"""A few worlds, quickly: they hold their promises, and repeat themselves."""

from __future__ import annotations

import pytest

from simulation.batch import run_jobs
from simulation.crashing import Kill, run_crash
from simulation.world import run_seed


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
