"""The checker sees each broken promise, and nothing where none is broken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from simulation.checking import Checker, Transaction

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLIP = {
    "id": "c",
    "pipeline": "stream",
    "status": "queued",
    "attempt": 1,
    "progress": Decimal(30),
    "epoch": 3,
    "version": 5,
    "look_at": NOW,
    "pending": 0,
    "processing_details": {},
    "updated_at": NOW,
}
LEASE = {"holder": "h", "epoch": 2, "expires_at": NOW - timedelta(seconds=1)}
BUDGET = {"tokens": 100.0, "blocked_until": NOW + timedelta(minutes=5)}


def line(**changes: Any) -> tuple[str, None, dict[str, Any]]:
    """One line of history."""
    told = {"clip_id": "c", "kind": "moved", "from_status": "queued", "to_status": "processing", "attempt": 1}
    return "clip_events", None, {**told, "source": "monitor", **changes}


def clip(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The clip, changed."""
    before = {**CLIP, **changes.pop("was", {})}
    return "clips", before, {**before, "version": 6, **changes}


def complaints(*rows: Any, node: str = "monitor-1#1") -> list[str]:
    """What the checker says of one transaction in the third epoch of monitor-1."""
    truths: Any = SimpleNamespace(of_move=lambda *_: ())
    checker = Checker(lambda: NOW, truths, lambda name: name.startswith("monitor"))
    checker._epoch = 2
    checker.committed(Transaction("monitor-1#1", [("monitor_lease", LEASE, {**LEASE, "holder": "x", "epoch": 3})]))
    checker.committed(Transaction(node, list(rows)))
    return [each.split(" at ")[0] for each in checker.violations]


def test_a_good_move_is_no_violation() -> None:
    assert complaints(clip(status="processing", progress=Decimal(50)), line()) == []


SIGNAL = {"clip_id": "c", "source": "api", "requested_status": "error", "insists": False}


@pytest.mark.parametrize(
    ("name", "rows", "node"),
    [
        ("I1", [clip(was={"status": "stream_ready", "progress": Decimal(60)}, status="queued")], "monitor-1#1"),
        ("I2 only the monitor moves", [clip(status="processing", progress=Decimal(50)), line()], "web#1"),
        ("I3 no stale epoch", [clip(was={"epoch": 1}, epoch=2, progress=Decimal(31))], "monitor-1#1"),
        ("I3 accepted epochs", [clip(epoch=2, progress=Decimal(31))], "monitor-1#1"),
        ("I3 who writes leads", [clip(progress=Decimal(31))], "monitor-2#1"),
        ("I4", [clip(progress=Decimal(29))], "monitor-1#1"),
        ("progress fits", [clip(status="processing", progress=Decimal(49)), line()], "monitor-1#1"),
        ("progress is 100", [clip(progress=Decimal(100))], "monitor-1#1"),
        ("an unfinished clip", [clip(look_at=None)], "monitor-1#1"),
        ("I5 error", [clip(attempt=2, status="stream_ready", progress=Decimal(60))], "monitor-1#1"),
        ("I5 complete", [clip(was={"status": "complete", "progress": Decimal(100)}, status="error")], "monitor-1#1"),
        ("I10", [clip(status="processing", progress=Decimal(50))], "monitor-1#1"),
        ("I10", [clip(status="processing", progress=Decimal(50)), line(), line()], "monitor-1#1"),
        ("I10", [clip(look_at=NOW + timedelta(seconds=5)), line()], "monitor-1#1"),
        ("promise 3", [("clip_signals", SIGNAL, None)], "monitor-1#1"),
        ("promise 3", [("clip_signals", SIGNAL, None), line(kind="refused", source="webhook")], "monitor-1#1"),
        ("history", [("clip_events", {"clip_id": "c"}, {"clip_id": "d"})], "monitor-1#1"),
        ("rows stay", [("clips", CLIP, None)], "monitor-1#1"),
        ("no call in a block", [("call_budget", BUDGET, {**BUDGET, "tokens": 99.0})], "web#1"),
        ("I3 epochs rise", [("monitor_lease", LEASE, {**LEASE, "epoch": 7})], "monitor-1#1"),
        (
            "I3 a lease is taken only",
            [("monitor_lease", {**LEASE, "expires_at": NOW + timedelta(1)}, {**LEASE, "holder": "y", "epoch": 4})],
            "monitor-2#1",
        ),
    ],
)
def test_a_broken_promise_is_seen(name: str, rows: list[Any], node: str) -> None:
    assert any(said.startswith(name) for said in complaints(*rows, node=node)), complaints(*rows, node=node)


def test_who_was_succeeded_is_noted_and_who_took_its_own_lease_again_is_not() -> None:
    truths: Any = SimpleNamespace(of_move=lambda *_: ())
    checker = Checker(lambda: NOW, truths, lambda name: name.startswith("monitor"))
    over = NOW - timedelta(seconds=1)
    for epoch, node in enumerate(("monitor-1#1", "monitor-1#1", "monitor-2#1"), 1):
        before = {"holder": f"of {node}", "epoch": epoch - 1, "expires_at": over}
        checker.committed(Transaction(node, [("monitor_lease", before, {**before, "epoch": epoch})]))
    assert checker.succeeded == [(NOW, "monitor-1#1")]
