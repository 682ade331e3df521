"""The real monitors, drivers and handlers live through thousands of drawn worlds in which everything goes wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from simulation.batch import Answer, run_jobs
from simulation.expected import EXPECTED
from simulation.tallies import KeptTally, Tally, state_of_code, taken_up, until_met

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

FAILING = Path(__file__).parents[1] / "simulation" / "failing_seeds.txt"
# Where a run's seeds begin; without it, at a place of its own for each state of the code.
FIRST_SEED = "SIMULATION_FIRST_SEED"
SHOWN = 20
ROOT = Path(__file__).parents[2]
# Kept with the code that it holds for: a long run may be made in parts, on several days or machines.
KEPT = ROOT / "tests" / "simulation" / "long_run.json"

Tallied: TypeAlias = Callable[[list[int]], Tally]


def known_seeds() -> list[int]:
    """The seeds that once failed."""
    lines = [line.split("#")[0].split() for line in FAILING.read_text().splitlines()]
    return [int(words[0]) for words in lines if words]


def seeds(count: int, state: str) -> Iterator[int]:
    """Those that once failed, and *count* others: the same for the same *state*, a hexadecimal number."""
    yield from known_seeds()
    first = int(os.environ.get(FIRST_SEED) or int(state, 16) % 10**9)
    yield from range(first, first + count)


def test_no_world_breaks_a_promise(
    amount: Callable[[Any, Any], Any], figures: Figures, sometimes: Sometimes, commit: str, tallied: Tallied
) -> None:
    wanted = list(seeds(amount(2000, 100_000), state_of_code(ROOT)))
    tally = tallied(wanted)
    until_met(tally, EXPECTED, wanted[-1] + 1, answers)
    for fault, times in tally.met.items():
        sometimes.saw(fault, times=times)
    never = sorted(EXPECTED - set(tally.met))
    figures.tell(
        seeds=len(tally.answered),
        seeds_with_violations=len(tally.broken),
        simulated_hours=f"{tally.simulated_seconds / 3600:.0f}",
        faults_met=tally.met.total(),
        kinds_of_faults=f"{len(EXPECTED) - len(never)} of {len(EXPECTED)}",
    )
    if tally.broken:
        shown = sorted(tally.broken.items())[:SHOWN]
        pytest.fail("\n".join(_told(seed, found, commit) for seed, found in shown), pytrace=False)
    assert not never, f"faults that were never met, so nothing is proved about them: {never}"


@pytest.fixture
def tallied(is_long: bool, is_fresh: bool, capsys: pytest.CaptureFixture[str]) -> Tallied:
    """Runs seeds and sums the answers up. The long form takes up what an interrupted one has left, and tells how far
    it is; the short form always runs them all.
    """

    def run(wanted: list[int]) -> Tally:
        if not is_long:
            tally = Tally()
            for answer in answers(wanted):
                tally.take(answer)
            return tally
        kept = KeptTally(KEPT, state_of_code(ROOT), wanted)
        if is_fresh:
            kept.forget()
        return taken_up(kept, wanted, answers, tell, time.monotonic)

    def tell(line: str) -> None:
        with capsys.disabled():
            print(f"simulation: {line}", flush=True)

    return run


def answers(wanted: list[int]) -> Iterator[Answer]:
    """What comes of each seed, in the order in which they end."""
    return run_jobs({"seed": seed} for seed in wanted)


def _told(seed: int, violations: list[str], commit: str) -> str:
    lines = [f"lane=simulation seed={seed} commit={commit}", *violations[:3]]
    return "\n  ".join([*lines, f"again: PYTHONPATH=tests .venv/bin/python -m simulation {seed}"])
