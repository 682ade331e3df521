"""Any bytes under any status are a result or one of our two kinds of failure, and they quote no address."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drivers.cloudflare_answers import (
    Answer,
    Operation,
    RateLimitedError,
    RepeatableError,
    Reply,
    no_answer,
    read_answer,
)
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError

READING = Operation("read", "GET", repeatable=True, missing_is_answer=True)
CREATING = Operation("create", "POST", creates=True)
OPERATIONS = [
    READING,
    CREATING,
    Operation("remove", "DELETE", repeatable=True, missing_is_answer=True, bare=True),
    Operation("enable", "POST", repeatable=True, refused_for_now="not_ready"),
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "result": anything,
        "success": anything,
        "errors": st.lists(st.fixed_dictionaries({}, optional={"code": anything, "message": anything})) | anything,
    },
)


def outcome(operation: Operation, status: int, body: bytes, retry_after: float | None = None) -> Answer | DriverError:
    try:
        return read_answer(operation, Reply(status, {}, body, retry_after))
    except DriverError as failed:
        return failed


def envelope(success: bool, *errors: Any) -> bytes:
    return json.dumps({"result": None, "success": success, "errors": errors, "messages": []}).encode()


@settings(deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    status=st.integers(100, 599),
    body=st.binary(max_size=40) | st.builds(lambda document: json.dumps(document).encode(), documents),
    retry_after=st.none() | st.floats(1, 3600),
)
def test_nothing_else_ever_comes_out(operation: Operation, status: int, body: bytes, retry_after: float | None) -> None:
    found = outcome(operation, status, body, retry_after)
    if isinstance(found, Answer):
        assert 200 <= status < 300 or found.is_missing
    if operation.creates:
        assert not isinstance(found, RepeatableError)
    if status == 429:
        assert isinstance(found, DriverError)
    if status >= 500 and operation.creates:
        assert isinstance(found, RateLimitedError) or (
            isinstance(found, DriverError) and found.code == "outcome_unknown"
        )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_success_that_names_errors_is_success(operation: Operation) -> None:
    found = outcome(operation, 200, envelope(True, {"code": 971}, {"code": 10003}, {"code": 10000}))
    assert isinstance(found, Answer)
    assert not found.is_missing


def test_the_reason_is_told_short_and_without_addresses() -> None:
    error = {"code": 10005, "message": "bad https://host/x?Signature=canary " + "x" * 500}
    found = outcome(READING, 400, envelope(False, error, error, error, error, {"code": [1], "message": {}}))
    assert isinstance(found, PermanentError)
    assert found.text.startswith("read: HTTP 400: 10005 bad (address) x")
    assert "canary" not in found.text
    assert len(found.text) < 700


@pytest.mark.parametrize(
    ("operation", "retry_after", "kind", "code"),
    [
        (READING, None, RepeatableError, "provider_timeout"),
        (READING, 5.0, RepeatableError, "provider_timeout"),
        (READING, 6.0, TransientError, "provider_timeout"),
        (CREATING, None, TransientError, "outcome_unknown"),
        (Operation("token", "POST"), None, TransientError, "provider_timeout"),
    ],
)
def test_what_no_answer_means_depends_on_the_call(
    operation: Operation, retry_after: float | None, kind: type, code: str
) -> None:
    failed = no_answer(operation, "provider_timeout", "No answer.", retry_after)
    assert type(failed) is kind
    assert failed.code == code
