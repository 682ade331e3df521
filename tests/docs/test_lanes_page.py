"""The page of the lanes is what the register says, and every promise rests on proofs that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from lanes.__main__ import tells_of_lateness_alone
from lanes.registry import LANES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROMISES = 12


def test_the_page_is_not_stale() -> None:
    made = subprocess.run([sys.executable, DOCS / "lanes.py"], capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout == (DOCS / "lanes.md").read_text("utf-8"), "run `python docs/lanes.py --write`"


def test_every_lane_has_its_file_and_every_file_its_lane() -> None:
    files = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "lanes").glob("test_*.py")}
    assert files == {lane.name for lane in LANES}


def test_every_promise_names_proofs_that_exist() -> None:
    page = (DOCS / "promises.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, PROMISES + 1))
    known = {lane.name for lane in LANES}
    for number, proofs in rows:
        named = re.findall(r"`([^`]+)`", proofs)
        assert named, f"promise {number} rests on nothing"
        for proof in named:
            assert proof in known or (ROOT / proof).exists(), f"promise {number} rests on {proof}, which is not there"


@pytest.mark.parametrize(
    ("said", "is_excused"),
    [
        ("E   AssertionError: L6: after restarts work resumed only after 12.1 s", True),
        ("E   TimeoutError", True),
        (
            "E   AssertionError: L6: after cuts work resumed after 45 s\nE     I7: the object is another",
            False,
        ),
        ("E   assert 3 == 0", False),
        ("the monitor says L6: late\nE   assert not [secret]", False),
        ("", False),
    ],
)
def test_a_second_run_excuses_lateness_and_nothing_else(said: str, is_excused: bool) -> None:
    assert tells_of_lateness_alone(said.encode()) is is_excused
