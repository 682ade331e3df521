"""Clips that are left alone: for how long, and that nothing is kept of those that never come up again."""

from __future__ import annotations

from orchestrator.monitor.pauses import Pauses


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_each_pause_is_longer_than_the_one_before_up_to_a_bound() -> None:
    clock = Clock()
    pauses = Pauses(clock, 1.0, 5.0)
    for seconds in (1.0, 2.0, 4.0, 5.0, 5.0):
        pauses.put("a")
        clock.seconds += seconds - 0.01
        assert pauses.now() == ["a"]
        clock.seconds += 0.01
        assert pauses.now() == []


def test_a_clip_that_is_well_again_begins_anew_and_others_are_not_touched() -> None:
    clock = Clock()
    pauses = Pauses(clock, 1.0, 5.0)
    for _ in range(3):
        pauses.put("a")
    pauses.put("b")
    pauses.lift("a")
    pauses.lift("never heard of")
    pauses.put("a")
    clock.seconds = 1.0
    assert pauses.now() == []


def test_what_is_long_over_is_forgotten() -> None:
    clock = Clock()
    pauses = Pauses(clock, 1.0, 5.0)
    for n in range(1000):
        pauses.put(f"c{n}")
    clock.seconds = 6.5
    assert pauses.now() == []
    assert pauses._by_clip == {}
