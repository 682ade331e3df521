"""A seed repeats its run exactly, in any process, wherever Python's sets and dicts put things."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.batch import run_jobs

if TYPE_CHECKING:
    from lanes.conftest import Figures


def digests(seeds: range, hash_seed: str) -> dict[int, str]:
    """A digest of the journal of each run."""
    answers = run_jobs(({"seed": seed} for seed in seeds), processes=1, hash_seed=hash_seed)
    return {answer.job["seed"]: answer.digest for answer in answers}


def test_a_seed_makes_the_same_journal_in_every_process(
    amount: Callable[[Any, Any], Any], figures: Figures, commit: str
) -> None:
    seeds = range(1, 1 + amount(20, 500))
    first = digests(seeds, hash_seed="1")
    # In another order, so that nothing depends on what ran before in the process.
    again = digests(seeds[::-1], hash_seed="4242")
    differing = [seed for seed in seeds if first[seed] != again[seed]]
    figures.tell(seeds_run_twice=len(seeds), journals_that_differ=len(differing))
    repeat = f"PYTHONPATH=tests PYTHONHASHSEED=1 .venv/bin/python -m simulation {differing[0] if differing else ''}"
    assert not differing, f"lane=determinism seeds={differing} commit={commit}; compare the journals of: {repeat}"
