"""The polling benchmark's own arithmetic, and that a day of it is the same each time."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from benchmarks.polling import live_through, most_in_a_window


@pytest.mark.parametrize(
    ("times", "most"),
    [([], 0), ([5.0], 1), ([0.0, 299.9, 300.0], 2), ([0.0, 1.0, 2.0, 301.5], 3), ([3.0, 1.0, 2.0], 3)],
)
def test_the_fullest_window_is_found(times: list[float], most: int) -> None:
    assert most_in_a_window(times, 300.0) == most


def test_a_day_at_the_provider_ends_well_and_is_the_same_each_time() -> None:
    # Each takes over the clocks of its process.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        one, other = processes.map(live_through, [{"clips": 12}] * 2)
    assert (one.calls, one.delays, one.tokens) == (other.calls, other.delays, other.tokens)
    assert one.ends == {"complete in attempt 1": 12}
    assert (one.limited, one.doubled) == (0, 0)
