"""Who was told of a fault: whoever asked in it, and whoever had asked just before and was told in the middle of it."""

from __future__ import annotations

from typing import Any

import pytest

from house.onlookers import Readiness

NOBODY: Any = None


@pytest.mark.parametrize(
    ("asked_at", "told_at", "is_ready", "was_red"),
    [
        (9.0, 9.9, False, False),  # before it
        (9.9, 13.9, False, True),
        (11.0, 12.0, False, True),
        (13.9, 16.0, False, True),
        (14.1, 15.0, False, False),  # after it
        (11.0, 12.0, True, False),
    ],
)
def test_a_fault_is_red_for_whoever_learned_of_it(
    asked_at: float, told_at: float, is_ready: bool, was_red: bool
) -> None:
    readiness = Readiness(NOBODY, "http://127.0.0.1:1", [(asked_at, told_at, is_ready)])
    assert readiness.was_red(10.0, 14.0) is was_red
