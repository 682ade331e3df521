"""The page about the stand-in names everything there is to set."""

from __future__ import annotations

from pathlib import Path

from orchestrator.local.stream import Faults
from orchestrator.local.stream.__main__ import _parser

PAGE = (Path(__file__).parents[4] / "docs" / "stream-stand-in.md").read_text()


def test_every_fault_and_each_of_its_fields_is_on_the_page() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name, field in Faults.model_fields.items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        fault = next(part for part in field.annotation.__args__ if part is not type(None))
        for own in set(fault.model_fields) - {"times", "skip", "route", "video"}:
            assert f"`{own}`" in row


def test_every_option_is_on_the_page() -> None:
    options = [flag for action in _parser()._actions for flag in action.option_strings if flag.startswith("--")]
    assert [flag for flag in options if f"`{flag}`" not in PAGE and flag != "--help"] == []
