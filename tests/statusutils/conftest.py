"""A second table, to show that no rule knows the first."""

from __future__ import annotations

import pytest

from statusutils import COMPLETE, ERROR, Status, StatusTable


@pytest.fixture
def other_table() -> StatusTable:
    """A pipeline of three steps, two of which may alternate."""
    return StatusTable(
        "other",
        (
            Status("drafted", 10, 0, "Drafted"),
            Status("drawn", 20, 10, "Drawn"),
            Status("rendered", 30, 40, "Rendered"),
            Status(COMPLETE, 40, 100, "Complete"),
            Status(ERROR, 50, 0, "Failed", fact=False),
        ),
        frozenset({frozenset({"drafted", "drawn"})}),
    )
