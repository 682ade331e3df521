"""Runs of pytest in a process that is warm already: each sees the files as they are, and ends in time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutating.running import run_tests
from mutating.warm import Warm

DRAWS = """
from hypothesis import given, strategies
from pathlib import Path

@given(strategies.integers())
def test_it(number):
    with (Path(__file__).parent / "drawn.txt").open("a") as drawn:
        print(number, file=drawn)
    assert abs(number) < 1000
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    (root / "tests").mkdir()
    (root / "pytest.ini").write_text("[pytest]\n")
    return root


@pytest.fixture(scope="module")
def warm(place: Path) -> Iterator[Warm]:
    ours = str(Path(__file__).parents[1])
    environment = {"PYTHONPATH": f"{place}{os.pathsep}{ours}", "PYTHONDONTWRITEBYTECODE": "1"}
    with Warm(place, environment) as process:
        yield process


def test_each_run_sees_the_files_as_they_are(warm: Warm, place: Path) -> None:
    (place / "tests" / "test_one.py").write_text("import product\n\ndef test_it():\n    assert product.ONE == 1\n")
    seen = []
    for text in ("ONE = 1\n", "ONE = 2\n", "ONE = 1\n", "ONE = \n"):
        (place / "product.py").write_text(text)
        outcome = run_tests(warm, ["test_one.py"], 60, stop_at_first=True)
        seen.append((outcome.is_clean, outcome.is_noticed))
    # What cannot be run at all is not noticed.
    assert seen == [(True, False), (False, True), (True, False), (False, False)]


def test_what_hangs_is_ended_with_all_it_started(warm: Warm, place: Path) -> None:
    (place / "tests" / "test_two.py").write_text(
        "import subprocess, time\n\ndef test_it():\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        f"    open({str(place / 'child.txt')!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(600)\n"
    )
    outcome = run_tests(warm, ["test_two.py"], 10, stop_at_first=True)
    assert outcome.hung
    assert not outcome.is_noticed
    assert _is_gone(int((place / "child.txt").read_text()))
    (place / "tests" / "test_three.py").write_text("def test_it():\n    pass\n")
    assert run_tests(warm, ["test_three.py"], 60, stop_at_first=True).is_clean


def test_drawn_cases_are_the_same_each_time_and_nothing_is_made_simpler(warm: Warm, place: Path) -> None:
    (place / "tests" / "test_four.py").write_text(DRAWS)
    drawn = []
    for _ in range(2):
        assert run_tests(warm, ["test_four.py"], 60, stop_at_first=True).is_noticed
        drawn.append((place / "tests" / "drawn.txt").read_text().split())
        (place / "tests" / "drawn.txt").unlink()
    assert drawn[0] == drawn[1]
    # The simplest number that fails would be a thousand.
    assert abs(int(drawn[0][-1])) > 1000


def _is_gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            # A process that has ended and waits for its parent is none any more.
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False
