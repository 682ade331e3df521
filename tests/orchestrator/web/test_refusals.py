"""A flood of refusals is told once, counted, and told again after a pause."""

from __future__ import annotations

import logging

from orchestrator.web.refusals import Refusals, Seldom, UnreadableCalls


def test_one_passes_and_the_next_after_a_pause_with_the_count_of_those_between():
    now = 100.0
    seldom = Seldom(10.0, lambda: now)
    assert [seldom.passes() for _ in range(5)] == [0, None, None, None, None]
    now = 109.9
    assert seldom.passes() is None
    now = 110.0
    assert seldom.passes() == 5
    assert seldom.passes() is None
    now = 200.0
    assert seldom.passes() == 1


def test_each_event_has_a_pause_of_its_own(capfd):
    refusals = Refusals()
    for _ in range(1000):
        refusals.warn("one", reason="stale")
        refusals.warn("another")
    said = "".join(capfd.readouterr())
    assert [said.count(event) for event in ("reason", "unlogged_before")] == [1, 2]


def test_what_could_not_be_read_is_stripped_and_seldom_told():
    calls = UnreadableCalls()
    records = [logging.LogRecord("x", logging.ERROR, "x.py", 1, "x", (), (ValueError, ValueError("canary"), None))] * 3
    assert [calls.filter(record) for record in records] == [True, False, False]
    assert records[0].exc_info is None
