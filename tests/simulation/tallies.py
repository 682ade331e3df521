"""What a run of many seeds has found so far; kept in a file, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulation.batch import Answer

# What a killed run answers a second time at most; writing the file takes milliseconds.
KEEP_SECONDS = 10.0
TELL_SECONDS = 60.0
# The rarest kinds of faults are met in one seed of some hundreds: 2,000 seeds meet all of them nearly always, twice as
# many always.
MORE, MOST_MORE = 200, 2000
# All that has a part in what a seed comes to: the program, the simulation, and the libraries by version.
SIMULATED = (
    "orchestrator/**/*.py",
    "signals/**/*.py",
    "statusutils/**/*.py",
    "tests/simulation/*.py",
    "requirements/runtime.txt",
)
# What no world imports: what `dev` brings along, the command line, and the tests of the simulation.
LEFT_OUT = ("orchestrator/local/[!_]*.py", "orchestrator/commands/**/*.py", "tests/simulation/test_*.py")


@dataclass(slots=True)
class Tally:
    """The sum of many answers."""

    answered: set[int] = field(default_factory=set)
    met: Counter[str] = field(default_factory=Counter)
    simulated_seconds: float = 0.0
    #: By seed what was wrong.
    broken: dict[int, list[str]] = field(default_factory=dict)

    def take(self, answer: Answer) -> None:
        """Add one answer."""
        seed = int(answer.job["seed"])
        self.answered.add(seed)
        self.met += answer.met
        self.simulated_seconds += answer.virtual_seconds
        if answer.violations:
            self.broken[seed] = answer.violations


class KeptTally:
    """The tally of one set of *seeds* at one state of the *code*, in the file at *path*."""

    def __init__(self, path: Path, code: str, seeds: Iterable[int]) -> None:
        self._path = path
        listed = ",".join(map(str, seeds))
        self._about = {"code": code, "seeds": hashlib.sha256(listed.encode()).hexdigest()}

    def load(self) -> Tally:
        """What is kept; nothing when it is of other code or other seeds, or cannot be read."""
        try:
            kept = json.loads(self._path.read_text())
            if kept["about"] != self._about:
                return Tally()
            return Tally(
                set(_spread(kept["answered"])),
                Counter(kept["met"]),
                kept["simulated_seconds"],
                {int(seed): list(found) for seed, found in kept["broken"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Tally()

    def keep(self, tally: Tally) -> None:
        """Write it, whole or not at all."""
        kept: dict[str, Any] = {
            "about": self._about,
            "answered": list(_ranges(tally.answered)),
            "met": tally.met,
            "simulated_seconds": tally.simulated_seconds,
            "broken": tally.broken,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(kept, indent=1) + "\n")
        beside.replace(self._path)

    def forget(self) -> None:
        """Begin anew."""
        self._path.unlink(missing_ok=True)


def taken_up(
    kept: KeptTally,
    seeds: list[int],
    answers: Callable[[list[int]], Iterable[Answer]],
    tell: Callable[[str], None],
    clock: Callable[[], float],
) -> Tally:
    """The tally of all *seeds*: what is kept, and the *answers* to the rest, which are kept as they come."""
    tally = kept.load()
    rest = [seed for seed in seeds if seed not in tally.answered]
    if tally.answered:
        tell(f"{len(tally.answered):,} of {len(seeds):,} seeds were answered before; going on with the rest")
    started = kept_at = told_at = clock()
    try:
        for number, answer in enumerate(answers(rest), 1):
            tally.take(answer)
            now = clock()
            if now - kept_at >= KEEP_SECONDS:
                kept.keep(tally)
                kept_at = now
            if now - told_at >= TELL_SECONDS:
                tell(progress(tally, len(seeds), number / (now - started)))
                told_at = now
    finally:
        kept.keep(tally)
    return tally


def until_met(tally: Tally, expected: Set[str], first: int, answers: Callable[[list[int]], Iterable[Answer]]) -> None:
    """Answer more seeds, from *first* on, while something *expected* was never met: what is rare must fail no run."""
    for start in range(first, first + MOST_MORE, MORE):
        if expected <= set(tally.met):
            return
        for answer in answers(list(range(start, start + MORE))):
            tally.take(answer)


def progress(tally: Tally, wanted: int, a_second: float) -> str:
    """How far it is, and how long the rest will take at the present pace."""
    minutes = (wanted - len(tally.answered)) / a_second / 60
    left = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"
    return (
        f"{len(tally.answered):,} of {wanted:,} seeds, {len(tally.broken)} with violations,"
        f" {a_second:.1f} a second, {left} left"
    )


def state_of_code(root: Path) -> str:
    """What a simulation at *root* runs, as one word: the same as long as none of it changes, whatever is beside it."""
    state = hashlib.sha256()
    for path in sorted(simulated(root)):
        state.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()[:16]


def simulated(root: Path) -> set[Path]:
    """The files below *root* that have a part in what a seed comes to."""
    wanted, not_wanted = ({path for name in names for path in root.glob(name)} for names in (SIMULATED, LEFT_OUT))
    return wanted - not_wanted


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """*numbers* as the first and the last of each run of them."""
    first = last = None
    for number in sorted(numbers):
        if last is not None and first is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last


def _spread(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)
