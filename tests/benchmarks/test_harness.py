"""What benchmarks are made of: turns, ratios within a round, goals, and a page. Nothing here is timed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.harness import Row, at_least, at_most, medians, percentile, ratio, take_turns
from benchmarks.page import as_page
from benchmarks.registry import BENCHMARKS


def subject(name: str, said: list[str], values: list[float]) -> Callable[[], Awaitable[float]]:
    async def once() -> float:
        said.append(name)
        return values.pop(0)

    return once


async def test_subjects_take_turns_and_the_order_is_turned_round() -> None:
    said: list[str] = []
    taken = await take_turns({"a": subject("a", said, [9, 1, 2]), "b": subject("b", said, [9, 4, 4])}, rounds=2)
    assert said == ["a", "b", "a", "b", "b", "a"]
    assert taken == {"a": [1, 2], "b": [4, 4]}


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times slower in the second round: the ratios are the same, those of medians were not.
    taken = {"product": [50.0, 5.0, 52.0], "ceiling": [100.0, 10.0, 100.0]}
    assert ratio(taken, "product", "ceiling") == 0.5
    assert medians(taken) == {"product": 50, "ceiling": 100}


@pytest.mark.parametrize(
    ("goal", "value", "is_met"),
    [(at_least(0.7), 0.7, True), (at_least(0.7), 0.69, False), (at_most(10), 10, True), (at_most(10), 10.1, False)],
)
def test_a_goal_is_a_bound_on_one_side(goal: object, value: float, is_met: bool) -> None:
    assert Row("x", value, goal).is_met is is_met  # type: ignore[arg-type]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3, 1, 2, 4], 0.5) == 3
    assert percentile([1], 0.99) == 1


def test_a_row_outlives_being_kept() -> None:
    row = Row("x", 0.5, at_least(0.7), "s", {"ceiling": 4})
    assert Row.from_document(row.as_document()) == row


def test_a_missed_goal_is_said_on_the_page() -> None:
    rows = [Row("drain", 0.5, at_least(0.7), "", {"bare a second": 4}), Row("told", 3, None, "s")]
    run = {"name": "drain", "measures": "a backlog", "machine": "2", "scale": "quick", "seconds": 1, "commit": "abc"}
    page = as_page([run | {"rows": [row.as_document() for row in rows]}], {"drain": "The disk", "told": "Nothing"})
    assert "## `drain`\n\na backlog." in page
    assert "| drain | 0.5 | ≥ 0.7 (missed) | bare a second 4 |" in page
    assert "| told | 3 s |  |  |" in page
    assert page.endswith("\n\nWhere a goal is missed: The disk.\n")


@pytest.mark.parametrize("name", [each.name for each in BENCHMARKS])
def test_every_benchmark_can_be_started(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert inspect.iscoroutinefunction(module.measure)
    assert module.__doc__
