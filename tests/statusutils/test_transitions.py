"""Which moves are allowed: every pair of statuses, and every rule by name."""

from __future__ import annotations

import pytest

from statusutils import STREAM, Position, Request, StatusTable, is_valid_status_transition, refusal
from statusutils.transitions import RULES, needs_evidence

# One row for each current status, one column for each new one, in the order of the table; 1 is allowed.
#             up qu pr sr wf mp dl r2 co er
PAIRS = {
    "uploading":      "0  1  1  1  1  1  1  1  1  1",
    "queued":         "0  0  1  1  1  1  1  1  1  1",
    "processing":     "0  0  0  1  1  1  1  1  1  1",
    "stream_ready":   "0  0  0  0  1  1  1  1  1  1",
    "waitformp4":     "0  0  0  0  0  1  1  1  1  1",
    "mp4_processing": "0  0  0  0  1  0  1  1  1  1",
    "mp4downloading": "0  0  0  0  0  0  0  1  1  1",
    "r2_uploading":   "0  0  0  0  0  0  0  0  1  1",
    "complete":       "0  0  0  0  0  0  0  0  0  1",
    "error":          "0  0  0  0  0  0  0  0  0  0",
}  # fmt: skip


@pytest.mark.parametrize("current", PAIRS)
def test_every_pair_of_statuses(current: str) -> None:
    allowed = {new: is_valid_status_transition(current, new) for new in PAIRS}
    assert allowed == dict(zip(PAIRS, (mark == "1" for mark in PAIRS[current].split()), strict=True))


@pytest.mark.parametrize(
    ("current", "new"),
    [("uploading", "sleeping"), ("sleeping", "error"), ("sleeping", "sleeping"), ("", "queued"), ("queued", "ERROR")],
)
def test_an_unknown_status_on_either_side_is_refused(current: str, new: str) -> None:
    assert not is_valid_status_transition(current, new)


def test_another_table_is_judged_by_its_own_order(other_table: StatusTable) -> None:
    assert is_valid_status_transition("drafted", "rendered", other_table)
    assert not is_valid_status_transition("rendered", "drafted", other_table)
    assert not is_valid_status_transition("uploading", "queued", other_table)


def at(status: str, attempt: int = 2) -> Position:
    return Position(attempt, status, 50.0)


REFUSALS = [
    pytest.param(at("queued"), Request(2, "sleeping"), "unknown-status", id="unknown-status"),
    pytest.param(at("error"), Request(3, "sleeping"), "unknown-status", id="unknown-beats-retry"),
    pytest.param(at("queued"), Request(1, "processing"), "older-attempt", id="older-attempt-forward"),
    pytest.param(at("queued"), Request(1, "error", insists=True), "older-attempt", id="older-attempt-error"),
    pytest.param(at("error"), Request(4, "queued"), "skipped-attempt", id="skipped-attempt"),
    pytest.param(at("queued"), Request(3, "processing"), "not-failed", id="retry-while-running"),
    pytest.param(at("complete"), Request(3, "uploading"), "not-failed", id="retry-of-complete"),
    pytest.param(at("error"), Request(3, "complete"), "retry-to-end", id="retry-straight-to-complete"),
    pytest.param(at("error"), Request(3, "error"), "retry-to-end", id="retry-straight-to-error"),
    pytest.param(at("queued"), Request(2, "queued"), "repeated", id="repeated"),
    pytest.param(at("error"), Request(2, "error", insists=True), "repeated", id="repeated-error"),
    pytest.param(at("complete"), Request(2, "complete", observed=True), "repeated", id="repeated-complete"),
    pytest.param(at("complete"), Request(2, "error"), "complete-is-final", id="late-error"),
    pytest.param(at("complete"), Request(2, "error", observed=True), "complete-is-final", id="late-observed-error"),
    pytest.param(at("complete"), Request(2, "queued"), "complete-is-final", id="complete-backward"),
    pytest.param(at("error"), Request(2, "mp4_processing"), "error-needs-retry", id="error-then-mp4"),
    pytest.param(at("error"), Request(2, "complete", observed=True), "error-needs-retry", id="error-then-complete"),
    pytest.param(at("processing"), Request(2, "queued"), "backward", id="backward"),
    pytest.param(at("mp4downloading"), Request(2, "waitformp4"), "backward", id="backward-out-of-the-pair"),
]


@pytest.mark.parametrize(("position", "asked", "rule"), REFUSALS)
def test_what_is_refused_and_by_which_rule(position: Position, asked: Request, rule: str) -> None:
    refused = refusal(STREAM, position, asked)
    assert refused is not None
    assert refused.name == rule


def test_every_rule_has_a_case_above() -> None:
    assert {case.values[2] for case in REFUSALS} == {rule.name for rule in RULES}


@pytest.mark.parametrize(
    ("position", "asked"),
    [
        pytest.param(at("uploading"), Request(2, "queued"), id="forward"),
        pytest.param(at("processing"), Request(2, "mp4downloading"), id="skipping"),
        pytest.param(at("mp4_processing"), Request(2, "waitformp4"), id="alternating-back"),
        pytest.param(at("waitformp4"), Request(2, "mp4_processing"), id="alternating-forth"),
        pytest.param(at("r2_uploading"), Request(2, "error"), id="error-from-late"),
        pytest.param(at("uploading"), Request(2, "error"), id="error-from-the-start"),
        pytest.param(at("complete"), Request(2, "error", insists=True), id="insisting-error-ends-complete"),
        pytest.param(at("error"), Request(3, "uploading"), id="retry-from-the-start"),
        pytest.param(at("error"), Request(3, "r2_uploading"), id="retry-from-late"),
    ],
)
def test_what_is_allowed(position: Position, asked: Request) -> None:
    assert refusal(STREAM, position, asked) is None


@pytest.mark.parametrize(
    ("position", "asked", "expected"),
    [
        pytest.param(at("queued"), Request(2, "complete"), True, id="a-fact-on-somebodys-word"),
        pytest.param(at("queued"), Request(2, "complete", insists=True), True, id="insisting-is-no-evidence"),
        pytest.param(at("queued"), Request(2, "complete", observed=True), False, id="a-fact-that-was-seen"),
        pytest.param(at("queued"), Request(2, "error"), False, id="error-states-no-fact"),
        pytest.param(at("queued"), Request(2, "error", hearsay=True), True, id="an-error-that-was-only-heard-of"),
        pytest.param(at("queued"), Request(2, "error", observed=True, hearsay=True), False, id="heard-of-and-seen"),
        pytest.param(at("error"), Request(3, "mp4downloading"), False, id="a-new-attempt-states-no-fact"),
    ],
)
def test_facts_need_evidence(position: Position, asked: Request, expected: bool) -> None:
    assert needs_evidence(STREAM, position, asked) is expected
