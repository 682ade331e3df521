"""What is told of a transfer: at most five times a second, never less than before, the first part exactly once."""

from __future__ import annotations

from orchestrator.transfer import progress
from orchestrator.transfer.progress import ProgressMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def meter_with_clock(monkeypatch):
    clock, told = Clock(), []
    monkeypatch.setattr(progress, "time", clock)
    return ProgressMeter(told.append), clock, told


def test_motion_is_told_five_times_a_second(monkeypatch):
    meter, clock, told = meter_with_clock(monkeypatch)
    meter.begin(0, 10_000)
    for count in range(1, 1001):
        clock.now += 0.01
        meter.moved(1, count)

    assert 45 <= len(told) <= 51
    assert told[-1].bytes_total == 10_000
    assert told[-1].part == 1


def test_a_part_begun_again_does_not_go_back(monkeypatch):
    meter, clock, told = meter_with_clock(monkeypatch)
    meter.begin(0, 100)
    for done in (50, 10, 60):
        clock.now += 1
        meter.moved(1, done)

    assert [one.bytes_done for one in told] == [50, 50, 60]


def test_the_first_part_is_told_at_once_and_once(monkeypatch):
    meter, _, told = meter_with_clock(monkeypatch)
    meter.begin(0, 100)
    meter.moved(1, 1)
    for number in (1, 2, 3):
        meter.part_is_durable(number, 30)
    meter.end()

    assert [one.is_first_part_durable for one in told] == [False, True, False]
    assert [one.bytes_done for one in told] == [1, 30, 90]


def test_a_resumed_copy_tells_its_first_part_at_the_beginning(monkeypatch):
    meter, _, told = meter_with_clock(monkeypatch)
    meter.begin(60, 100)
    meter.begin(60, 100)
    meter.part_is_durable(3, 30)

    assert (told[0].bytes_done, told[0].is_first_part_durable) == (60, True)
    assert sum(one.is_first_part_durable for one in told) == 1
