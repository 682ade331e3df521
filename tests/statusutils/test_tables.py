"""The tables are what the system before this one used, and a malformed one cannot be built."""

from __future__ import annotations

import pytest

from statusutils import COMPLETE, ERROR, STREAM, TABLES, Status, StatusTable, UnknownPipeline, UnknownStatus, table_for

# Written out, not computed: the figures of the system before this one.
FORMER_TABLE = (
    (1, "uploading", 15),
    (2, "queued", 30),
    (3, "processing", 50),
    (4, "stream_ready", 60),
    (5, "waitformp4", 70),
    (6, "mp4_processing", 75),
    (7, "mp4downloading", 85),
    (8, "r2_uploading", 95),
    (9, "complete", 100),
    (10, "error", 0),
)

A, B, C, END = (
    Status("a", 1, 0, "A"),
    Status("b", 2, 50, "B"),
    Status(COMPLETE, 3, 100, "Done"),
    Status(ERROR, 4, 0, "X"),
)


def test_the_stream_table_is_the_former_one() -> None:
    assert tuple((row.order, row.name, row.min_progress) for row in STREAM.statuses) == FORMER_TABLE
    assert STREAM.alternating == {frozenset({"waitformp4", "mp4_processing"})}
    assert STREAM.first.name == "uploading"


def test_everything_but_error_states_a_fact() -> None:
    assert [row.name for row in STREAM.statuses if not row.fact] == ["error"]


def test_only_complete_and_error_are_ends() -> None:
    assert [row.name for row in STREAM.statuses if row.is_terminal] == ["complete", "error"]


def test_every_table_is_found_by_its_own_name() -> None:
    for name, table in TABLES.items():
        assert table_for(name) is table
        assert table.pipeline == name


def test_an_unknown_pipeline_is_named_with_those_known() -> None:
    with pytest.raises(UnknownPipeline, match=r"'cinema'.*known are .*stream"):
        table_for("cinema")


def test_an_unknown_status_is_named_with_those_known() -> None:
    with pytest.raises(UnknownStatus, match=r"'sleeping' in pipeline 'stream'.*uploading.*error"):
        STREAM["sleeping"]
    assert "sleeping" not in STREAM
    assert "queued" in STREAM


@pytest.mark.parametrize(
    ("statuses", "says"),
    [
        pytest.param((B, A, C, END), "ascend", id="order-falls"),
        pytest.param((A, Status("b", 1, 50, "B"), C, END), "ascend", id="order-twice"),
        pytest.param((Status("a", 1, 60, "A"), B, C, END), "ascend", id="minimum-progress-falls"),
        pytest.param((A, B, END), "end in complete", id="no-complete"),
        pytest.param((A, B, C), "end in complete", id="no-error"),
        pytest.param((A, B, Status(COMPLETE, 3, 99, "Done"), END), "end in complete", id="complete-below-100"),
    ],
)
def test_a_malformed_table_cannot_be_built(statuses: tuple[Status, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StatusTable("broken", statuses)


def test_names_and_tables_are_safe_to_write_into_sql() -> None:
    for table in TABLES.values():
        assert all(word.isidentifier() for word in (table.pipeline, *table.by_name))
