"""The list of deliberate bugs follows the code: each has its one place, and the tests that are to notice it exist."""

from __future__ import annotations

import pytest
from lanes.mutants import Mutant, read_mutants

from mutating.trees import ROOT


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.name)
def test_a_deliberate_bug_has_its_place_and_its_tests(mutant: Mutant) -> None:
    """Else only the lane of the bugs would say that one is stale, long after the change that made it so."""
    assert (ROOT / mutant.file).read_text().count(mutant.text) == 1
    for node in mutant.tests:
        file, *_, name = node.split("::")
        function = name.partition("[")[0]
        assert f"def {function}(" in (ROOT / "tests" / file).read_text()
