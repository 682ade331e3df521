"""The law as SQL is made from the tables, the same text each time."""

from __future__ import annotations

import pytest

from orchestrator.storage import law
from orchestrator.storage.law import render_law_functions
from statusutils import COMPLETE, ERROR, STREAM, Status, StatusTable, is_valid_status_transition

OTHER = StatusTable(
    "other", (Status("drafted", 1, 0, "Drafted"), Status(COMPLETE, 2, 100, "Done"), Status(ERROR, 3, 0, "Failed"))
)


def test_every_allowed_move_stands_there_and_no_other() -> None:
    text = render_law_functions()
    names = [row.name for row in STREAM.statuses]
    for old in names:
        for new in names:
            assert (f"'stream/{old}>{new}'" in text) == is_valid_status_transition(old, new), (old, new)


def test_the_same_tables_give_the_same_text() -> None:
    assert render_law_functions() == render_law_functions()


def test_a_further_table_is_a_further_set_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(law, "TABLES", {"stream": STREAM, "other": OTHER})
    text = render_law_functions()
    assert "('other', 'drafted', 1, 0::numeric, 99.99::numeric)" in text
    assert "'other/drafted>complete'" in text
    assert "'other/complete>drafted'" not in text
    assert "WHEN 'other/error' THEN 3" in text
