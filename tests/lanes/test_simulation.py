"""The real monitors, drivers and handlers live through thousands of drawn worlds in which everything goes wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulation.batch import Answer, run_jobs
from simulation.expected import EXPECTED

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

FAILING = Path(__file__).parents[1] / "simulation" / "failing_seeds.txt"
# Where a run's seeds begin, unless the environment names a place; the commit gives one of its own to each.
FIRST_SEED = "SIMULATION_FIRST_SEED"
SHOWN = 20


def known_seeds() -> list[int]:
    """The seeds that once failed."""
    lines = [line.split("#")[0].split() for line in FAILING.read_text().splitlines()]
    return [int(words[0]) for words in lines if words]


def seeds(count: int, commit: str) -> Iterator[int]:
    """Those that once failed, and *count* others: the same for the same commit."""
    yield from known_seeds()
    first = int(os.environ.get(FIRST_SEED) or int(commit, 16) % 10**9 if commit != "unknown" else 1)
    yield from range(first, first + count)


def test_no_world_breaks_a_promise(
    amount: Callable[[Any, Any], Any], figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    wanted = list(seeds(amount(2000, 100_000), commit))
    broken: list[Answer] = []
    met: Counter[str] = Counter()
    simulated_seconds = 0.0
    for answer in run_jobs({"seed": seed} for seed in wanted):
        met += answer.met
        simulated_seconds += answer.virtual_seconds
        if answer.violations:
            broken.append(answer)
    for fault, times in met.items():
        sometimes.saw(fault, times=times)
    never = sorted(EXPECTED - set(met))
    figures.tell(
        seeds=len(wanted),
        seeds_with_violations=len(broken),
        simulated_hours=f"{simulated_seconds / 3600:.0f}",
        faults_met=met.total(),
        kinds_of_faults=f"{len(EXPECTED) - len(never)} of {len(EXPECTED)}",
    )
    if broken:
        pytest.fail("\n".join(_told(answer, commit) for answer in broken[:SHOWN]), pytrace=False)
    assert not never, f"faults that were never met, so nothing is proved about them: {never}"


def _told(answer: Answer, commit: str) -> str:
    seed = answer.job["seed"]
    lines = [f"lane=simulation seed={seed} commit={commit}", *answer.violations[:3]]
    return "\n  ".join([*lines, f"again: PYTHONPATH=tests .venv/bin/python -m simulation {seed}"])
