"""An interrupted run of many seeds goes on where it was, and its figures are over all of them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import grimp
import pytest

from simulation.batch import Answer
from simulation.tallies import (
    MORE,
    MOST_MORE,
    KeptTally,
    Tally,
    progress,
    simulated,
    state_of_code,
    taken_up,
    until_met,
)

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SEEDS = [7, 100, 101, 102, 103]


def answer(seed: int) -> Answer:
    wrong = ["I7: not the file"] if seed == 101 else []
    return Answer({"seed": seed}, wrong, "digest", 10.0, Counter({"kill @ queued": 1, f"of {seed}": 2}))


class Asked:
    """Answers seeds, and breaks off after so many; *seeds* are those it was asked for."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.seeds: list[int] = []
        self._breaks_after = breaks_after

    def __call__(self, seeds: list[int]) -> Iterator[Answer]:
        for number, seed in enumerate(seeds):
            if number == self._breaks_after:
                raise KeyboardInterrupt
            self.seeds.append(seed)
            yield answer(seed)


def kept_in(path: Path, code: str = "abc", seeds: list[int] = SEEDS) -> KeptTally:
    return KeptTally(path / "build" / "simulation.json", code, seeds)


def run(kept: KeptTally, asked: Asked, said: list[str] | None = None) -> Tally:
    # A minute passes with each answer.
    minutes = count(0, 60)
    return taken_up(kept, SEEDS, asked, (said if said is not None else []).append, lambda: float(next(minutes)))


def interrupted(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(kept_in(path), Asked(breaks_after=3))


def test_it_goes_on_where_it_was_and_counts_all(tmp_path: Path) -> None:
    interrupted(tmp_path)
    again, said = Asked(), list[str]()
    tally = run(kept_in(tmp_path), again, said)
    assert again.seeds == [102, 103]
    assert tally == run(kept_in(tmp_path / "at once"), Asked())
    assert (len(tally.answered), tally.simulated_seconds, list(tally.broken)) == (5, 50.0, [101])
    assert tally.met["kill @ queued"] == 5
    assert said[0] == "3 of 5 seeds were answered before; going on with the rest"


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    whole = run(kept_in(tmp_path), Asked())
    again = Asked()
    assert run(kept_in(tmp_path), again) == whole
    assert again.seeds == []


@pytest.mark.parametrize(("code", "seeds"), [("abd", SEEDS), ("abc", SEEDS[:-1])])
def test_other_code_and_other_seeds_begin_anew(tmp_path: Path, code: str, seeds: list[int]) -> None:
    interrupted(tmp_path)
    assert kept_in(tmp_path, code, seeds).load() == Tally()


def test_it_can_be_forgotten(tmp_path: Path) -> None:
    interrupted(tmp_path)
    kept_in(tmp_path).forget()
    assert kept_in(tmp_path).load() == Tally()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": {}}', "null"])
def test_a_file_that_says_nothing_is_no_hindrance(tmp_path: Path, text: str) -> None:
    interrupted(tmp_path)
    (tmp_path / "build" / "simulation.json").write_text(text)
    assert kept_in(tmp_path).load() == Tally()


def test_a_run_that_is_killed_has_kept_what_it_answered_before(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    found = []

    def answers(seeds: list[int]) -> Iterator[Answer]:
        for seed in seeds:
            found.append(len(kept.load().answered))
            yield answer(seed)

    minutes = count(0, 60)
    taken_up(kept, SEEDS, answers, lambda _: None, lambda: float(next(minutes)))
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rare", "answered"),
    [("kill @ queued", 0), ("of 1000", MORE), (f"of {1000 + MORE}", 2 * MORE), ("of 7", MOST_MORE)],
)
def test_it_goes_on_until_everything_was_met_but_not_for_ever(rare: str, answered: int) -> None:
    asked, tally = Asked(), Tally(met=Counter({"kill @ queued": 1}))
    until_met(tally, {"kill @ queued", rare}, 1000, asked)
    assert asked.seeds == list(range(1000, 1000 + answered))
    assert len(tally.answered) == answered


def test_it_tells_how_far_it_is_and_how_long_the_rest_will_take() -> None:
    tally = Tally(answered=set(range(1, 1001)), broken={5: ["I1"]})
    assert progress(tally, 4_000, 0.5) == "1,000 of 4,000 seeds, 1 with violations, 0.5 a second, 1.7 hours left"
    assert progress(tally, 1_600, 0.5) == "1,000 of 1,600 seeds, 1 with violations, 0.5 a second, 20 minutes left"


def test_other_code_is_told_by_its_text_and_what_is_not_simulated_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "signals").mkdir()
    (tmp_path / "signals" / "a.py").write_text("1")
    first = state_of_code(tmp_path)
    (tmp_path / "signals" / "a.py").write_text("2")
    changed = state_of_code(tmp_path)
    (tmp_path / "signals" / "b.py").write_text("")
    added = state_of_code(tmp_path)
    (tmp_path / "signals" / "b.py").rename(tmp_path / "signals" / "c.py")
    renamed = state_of_code(tmp_path)
    assert len({first, changed, added, renamed}) == 4
    for name in ("docs", "orchestrator/local", "orchestrator/commands"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.py").write_text("3")
    assert state_of_code(tmp_path) == renamed


_RUNS_ONE_AND_TELLS = """
import sys
from simulation.world import run_seed
run_seed(1)
print(*filter(None, (getattr(module, "__file__", None) for module in sys.modules.values())), sep="\\n")
"""


def test_everything_that_a_simulation_runs_is_part_of_the_state_of_the_code() -> None:
    """In a process of its own: the one that runs the tests has loaded more."""
    command = [sys.executable, "-c", _RUNS_ONE_AND_TELLS]
    ran = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=True)
    loaded = {Path(line) for line in ran.stdout.splitlines() if line.startswith(f"{ROOT}/") and line.endswith(".py")}
    ours = {path for path in loaded if "site-packages" not in path.parts}
    assert ROOT / "tests" / "simulation" / "world.py" in ours
    assert ours <= simulated(ROOT)


def test_nothing_that_a_simulation_may_import_at_some_time_is_left_out_of_the_state_of_the_code() -> None:
    graph = grimp.build_graph("simulation", "orchestrator", "signals", "statusutils", cache_dir=None)
    imported, new = set[str](), {"simulation.batch"}
    while new:
        imported |= new
        reached = {found for name in new for found in graph.find_upstream_modules(name)}
        # To import a module is to run the packages around it, too.
        new = (reached | {name.rpartition(".")[0] for name in imported | reached}) - imported - {""}
    assert "orchestrator.monitor.loop" in imported
    assert imported <= {_module_of(path) for path in simulated(ROOT) if path.suffix == ".py"}


def _module_of(path: Path) -> str:
    """The name under which the file at *path* is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    inside = parts[1:] if parts[0] == "tests" else parts
    return ".".join(part for part in inside if part != "__init__")
