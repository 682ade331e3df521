"""The protocol of leadership and judging, walked through by Spin: every interleaving of two monitors under faults.

Proves the protocol as model/leadership.pml states it, not the code; each guard of the protocol is also taken away once,
and the model has to find what then goes wrong.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from lanes.conftest import Figures

MODEL = Path(__file__).parent / "model" / "leadership.pml"
MEMORY_MIB = 1500
# A search that takes longer than this has met a machine that is ten times slower than the one it was measured on.
LIMIT_SECONDS = 1200

# Terms, signals, clips and looks are bounded; faults are not. The second leaves out looks and takes a third signal.
SAFETY = ("-DSIGNALS=2 -DLOOKS=1", "-DSIGNALS=3 -DLOOKS=0")
# About 40 and 60 million states.
SAFETY_LONG = ("-DSIGNALS=3 -DLOOKS=1 -DEPOCHS=2", "-DSIGNALS=2 -DLOOKS=2 -DEPOCHS=2")
LIVENESS = "-DLIVENESS -DCLIPS=1 -DSIGNALS=2 -DLOOKS=0 -DEPOCHS=9"


@dataclass(frozen=True, slots=True)
class Variant:
    """One guard less, and the words in which Spin has to complain."""

    name: str
    macros: str
    complaint: str


STALE = "assertion violated (mine==epoch)"
DECIDED_ON = "assertion violated (from=="
BACKWARD = "assertion violated ((((best/8)==attempt[c])"
TWICE = "assertion violated (judged[id]<=1)"
LOST = "assertion violated ((judged[n]==1)||(inbox[n]!=0))"
TWO_TRUST = "assertion violated  !((((trust[0]>0)"
TRUSTS_WRONGLY = "assertion violated ((trust[m]==0)||"
NEVER = "acceptance cycle"

VARIANTS = (
    Variant("no epoch and no compare-and-set", "-DNO_FENCE", STALE),
    Variant("the epoch is asked for, but not held until the commit", "-DNO_SHARE", STALE),
    Variant("no compare-and-set", "-DNO_CAS", DECIDED_ON),
    Variant("neither rules nor law", "-DNO_RULES -DNO_LAW", BACKWARD),
    Variant("the last signal wins", "-DLAST_SIGNAL_WINS", LOST),
    Variant("a signal is cleared outside the transaction", "-DJUDGE_TWICE", TWICE),
    Variant("trust counted from the reply", "-DTRUST_FROM_REPLY", TWO_TRUST),
    Variant("anybody renews the lease", "-DANYBODY_RENEWS", TRUSTS_WRONGLY),
    Variant("no sweep", f"{LIVENESS} -DFAULTS=1 -DONLY_WHEN_WOKEN", NEVER),
)


@dataclass(frozen=True, slots=True)
class Search:
    """What Spin said."""

    text: str
    errors: int
    states: int

    @property
    def is_complete(self) -> bool:
        """Whether nothing was cut short: depth, memory, time."""
        return not re.search(r"not completed|too small|out of memory|resource limit|aborting", self.text, re.I)

    @property
    def unreached(self) -> list[str]:
        """Statements that no interleaving came to, apart from the ends that processes never come to."""
        return [line.strip() for line in self.text.splitlines() if ", state " in line and '"-end-"' not in line]


@pytest.fixture
def search(tmp_path: Path, lane_directory: Path) -> Callable[..., Search]:
    """Have Spin search the model with these macros; what it says is kept with the lane."""
    missing = [program for program in ("spin", "gcc") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {' and '.join(missing)}")

    def run(macros: str, for_the_compiler: str = "-DSAFETY -DCOLLAPSE", switches: str = "") -> Search:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        _call(["spin", "-a", *macros.split(), str(MODEL)], place)
        compile_ = f"gcc -O2 -w -DMEMLIM={MEMORY_MIB} {for_the_compiler} -o pan pan.c"
        _call(compile_.split(), place)
        text = _call(["./pan", "-m400000", *switches.split()], place)
        with (lane_directory / "spin.txt").open("a") as kept:
            kept.write(f"{macros} {for_the_compiler} {switches}\n{text}\n")
        errors, states = re.search(r"errors: (\d+)", text), re.search(r"([\d.e+]+) states, stored", text)
        assert errors is not None, text
        assert states is not None, text
        return Search(text, int(errors[1]), int(float(states[1])))

    return run


def _call(command: list[str], place: Path) -> str:
    done = subprocess.run(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}"
    return done.stdout


def test_two_monitors_keep_every_promise(
    search: Callable[..., Search], amount: Callable[[Any, Any], Any], figures: Figures
) -> None:
    started = time.monotonic()
    states = 0
    for macros in amount(SAFETY, SAFETY + SAFETY_LONG):
        found = search(macros)
        assert found.is_complete, found.text
        assert found.errors == 0, found.text
        # Of a model whose half is never reached an empty list of errors says little.
        assert "LOOKS=0" in macros or found.unreached == [], found.text
        states += found.states
    figures.tell(states=states, seconds=round(time.monotonic() - started), errors=0)


def test_every_signal_is_judged_in_the_end(
    search: Callable[..., Search], amount: Callable[[Any, Any], Any], figures: Figures
) -> None:
    found = search(f"{LIVENESS} -DFAULTS={amount(2, 4)}", "-DNFAIR=3 -DCOLLAPSE", "-a -f")
    assert found.is_complete, found.text
    assert found.errors == 0, found.text
    figures.tell(fair_states=found.states)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_without_a_guard_it_fails(variant: Variant, search: Callable[..., Search], figures: Figures) -> None:
    if variant.complaint == NEVER:
        found = search(variant.macros, "-DNFAIR=3 -DCOLLAPSE", "-a -f")
    else:
        found = search(f"-DSIGNALS=3 -DLOOKS=1 {variant.macros}")
    assert found.errors == 1, found.text
    assert variant.complaint in found.text, found.text
    figures.add(variants_refuted=1)


def test_three_monitors_as_far_as_memory_reaches(
    search: Callable[..., Search], is_long: bool, figures: Figures
) -> None:
    if not is_long:
        return  # in a release alone: it proves no more than the exhaustive search does, and takes minutes
    found = search("-DMONITORS=3 -DSIGNALS=3 -DLOOKS=2 -DEPOCHS=4", "-DSAFETY -DBITSTATE", "-w33 -k3 -Q5")
    assert found.errors == 0, found.text
    figures.tell(states_of_three_monitors=found.states)
