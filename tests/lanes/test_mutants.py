"""One deliberate bug for each promise: the tests that claim it have to notice, and to pass without the bug.

A bug that nobody notices means that its promise has no test; one whose text no longer stands in the code is stale.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mutating.crews import Worker, carry_out, hired
from mutating.generating import Change, changes
from mutating.running import Outcome, run_tests
from mutating.trees import ROOT, StaleMutant

from lanes.mutants import CLAIMS, Mutant, read_mutants

if TYPE_CHECKING:
    from lanes.conftest import Figures

MUTANTS = read_mutants()
# The slowest of these tests takes seconds; what a bug makes hang has failed to notice it.
LIMIT_SECONDS = 120.0
NOTICED_LATE: set[str] = set()
WORKERS = min(4, os.cpu_count() or 1)

# Where changes by rule are made, and the tests that mirror the place. What is cut is what decides: the law, the
# verdict on signals, the asking, the check of signatures.
MIRRORED = {
    **{str(path.relative_to(ROOT)): "statusutils" for path in sorted((ROOT / "statusutils").glob("*.py"))},
    "orchestrator/monitor/judging.py": "orchestrator/monitor/test_judging.py",
    "signals/asking.py": "signals/test_asking.py",
    "orchestrator/drivers/signatures.py": "orchestrator/drivers/test_signatures.py",
}
LEAST_KILLED_PERCENT = 85.0


def test_every_claim_is_broken_by_some_mutant() -> None:
    broken = {claim for mutant in MUTANTS for claim in mutant.breaks}
    assert broken == set(CLAIMS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


@pytest.fixture(scope="session")
def workers() -> Iterator[Sequence[Worker]]:
    with hired(WORKERS) as crew:
        yield crew


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, workers: Sequence[Worker]) -> Mapping[str, Outcome]:
    """What the tests said of each mutant that this run asks for, and of the code as it is, under the name ''."""
    chosen: list[Mutant] = [
        item.callspec.params["mutant"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "mutant" in item.callspec.params
    ]
    nodes = sorted({node for mutant in chosen for node in mutant.tests})
    jobs: dict[str, Callable[[Worker], Outcome]] = {"": partial(_try, nodes, None)}
    jobs |= {mutant.name: partial(_try, mutant.tests, mutant) for mutant in chosen}
    return carry_out(workers, jobs)


def _try(nodes: Sequence[str], mutant: Mutant | None, worker: Worker) -> Outcome:
    if mutant is None:
        return run_tests(worker.warm, nodes, 4 * LIMIT_SECONDS, stop_at_first=False)
    try:
        with worker.tree.replaced(mutant.file, mutant.text, mutant.becomes):
            outcome = run_tests(worker.warm, nodes, LIMIT_SECONDS, stop_at_first=True)
            if not outcome.is_noticed and not outcome.errors:
                # What is drawn is the same each time, but some tests keep real times: on a busy machine one of them
                # may pass by a bug, or hang, for want of time.
                outcome = run_tests(worker.warm, nodes, LIMIT_SECONDS, stop_at_first=True)
                NOTICED_LATE.update([mutant.name] if outcome.is_noticed else [])
            return outcome
    except StaleMutant as problem:
        return Outcome(0, (), (f"stale: {problem}",), False, str(problem))


def test_the_code_as_it_is_passes(outcomes: Mapping[str, Outcome], figures: Figures) -> None:
    assert outcomes[""].is_clean, outcomes[""].output
    figures.tell(claims=len(CLAIMS), tests=outcomes[""].passed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_noticed(
    mutant: Mutant, outcomes: Mapping[str, Outcome], figures: Figures, lane_directory: Path, commit: str
) -> None:
    outcome = outcomes[mutant.name]
    late = int(mutant.name in NOTICED_LATE)
    figures.add(mutants=1, killed=int(outcome.is_noticed), survivors=int(not outcome.is_noticed), at_second_try=late)
    if outcome.is_noticed:
        return
    with (lane_directory / "survivors.txt").open("a") as kept:
        kept.write(f"{mutant.name}\n{outcome.output}\n\n")
    how = "hung" if outcome.hung else "could not be run" if outcome.errors else "went unnoticed"
    pytest.fail(
        f"lane=mutants mutant={mutant.name!r} commit={commit}: it {how}\n{_as_diff(mutant)}\n"
        f'to repeat: python -m pytest "tests/lanes/test_mutants.py::test_it_is_noticed[{mutant.name}]"\n'
        f"{outcome.output[-3000:]}",
        pytrace=False,
    )


def _as_diff(mutant: Mutant) -> str:
    old = "".join(f"- {line}\n" for line in mutant.text.splitlines())
    return f"{mutant.file}\n{old}" + "".join(f"+ {line}\n" for line in mutant.becomes.splitlines())


def test_of_changes_made_by_rule_few_go_unnoticed(
    workers: Sequence[Worker], is_long: bool, figures: Figures, lane_directory: Path
) -> None:
    if not is_long:
        return  # in a release alone: hundreds of runs
    jobs: dict[tuple[str, int], Callable[[Worker], Outcome]] = {}
    made: dict[tuple[str, int], Change] = {}
    for file in MIRRORED:
        for number, change in enumerate(changes((ROOT / file).read_text())):
            made[file, number] = change
            jobs[file, number] = partial(_try_change, file, change)
    # A test that cannot even be collected has noticed: these changes are no typing mistakes of ours.
    unnoticed = [name for name, outcome in carry_out(workers, jobs).items() if outcome.is_clean]
    survivors = "".join(f"{file} {made[file, number]}\n" for file, number in sorted(unnoticed))
    (lane_directory / "unnoticed_changes.txt").write_text(survivors)
    killed_percent = 100 * (1 - len(unnoticed) / len(jobs))
    figures.tell(changes_by_rule=len(jobs), of_which_killed=f"{killed_percent:.0f} %")
    assert killed_percent >= LEAST_KILLED_PERCENT, survivors


def _try_change(file: str, change: Change, worker: Worker) -> Outcome:
    with worker.tree.changed(file, change.source):
        return run_tests(worker.warm, [MIRRORED[file]], LIMIT_SECONDS, stop_at_first=True)
