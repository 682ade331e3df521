"""A document from outside is taken whole and harmless, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drivers.strict_json import MAX_DEPTH, BadDocument, decode_object

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
storable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | storable_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(storable_text, inner, max_size=3),
    max_leaves=10,
)


def reason(raw: bytes, max_bytes: int = 100_000) -> str:
    with pytest.raises(BadDocument) as refused:
        decode_object(raw, max_bytes)
    return refused.value.reason


def nested(depth: int) -> bytes:
    """An object whose deepest container is *depth* levels down."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@settings(deadline=None)
@given(value=st.dictionaries(storable_text, storable, max_size=4), ascii_only=st.booleans())
def test_an_honest_document_comes_out_as_it_is(value: dict[str, Any], ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert decode_object(raw, len(raw)) == json.loads(raw)


@settings(deadline=None)
@given(raw=st.binary(max_size=60))
def test_any_bytes_end_in_a_document_or_a_named_refusal(raw: bytes) -> None:
    try:
        outcome = type(decode_object(raw, 1000)).__name__
    except BadDocument as refused:
        outcome = refused.reason
    assert outcome == "dict" or outcome in (BadDocument.__doc__ or "")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", "not_json", id="empty"),
        pytest.param(b"{", "not_json", id="cut off"),
        pytest.param(b"{}x", "not_json", id="something behind it"),
        pytest.param(b"{'a':1}", "not_json", id="other quotes"),
        pytest.param(b'{"a":"\x00"}', "not_json", id="a bare NUL"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", "not_json", id="a number without end"),
        pytest.param(b"[]", "not_an_object", id="a list"),
        pytest.param(b'"text"', "not_an_object", id="a text"),
        pytest.param(b"null", "not_an_object", id="null"),
        pytest.param(b'{"a":"\xff"}', "not_utf8", id="not UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', "not_utf8", id="a surrogate in UTF-8"),
        pytest.param('{"a":1}'.encode("utf-16"), "not_utf8", id="UTF-16"),
        pytest.param(b'{"a":NaN}', "not_finite", id="NaN"),
        pytest.param(b'{"a":-Infinity}', "not_finite", id="infinity"),
        pytest.param(b'{"a":[1e400000]}', "not_finite", id="a number beyond all"),
        pytest.param(b'{"a":1,"a":1}', "duplicate_key", id="a key twice"),
        pytest.param(b'{"b":[{"a":1,"\\u0061":2}]}', "duplicate_key", id="a key twice, spelled otherwise"),
        pytest.param(b'{"a":{"name":"x\\u0000"}}', "nul", id="NUL"),
        pytest.param(b'{"x\\u0000":1}', "nul", id="NUL in a key"),
        pytest.param(b'{"a":["\\ud800"]}', "lone_surrogate", id="a lone surrogate"),
        pytest.param(b'{"\\udfff":1}', "lone_surrogate", id="a lone surrogate in a key"),
        pytest.param(nested(MAX_DEPTH + 1), "too_deep", id="one level too deep"),
        pytest.param(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "too_deep", id="20,000 levels"),
        pytest.param(b'{"a":' * 20_000, "too_deep", id="20,000 levels, unclosed"),
        pytest.param(b'{"a":"' + b"x" * 100_000 + b'"}', "too_large", id="large"),
    ],
)
def test_a_document_that_somebody_would_stumble_over_is_refused(raw: bytes, expected: str) -> None:
    assert reason(raw) == expected


def test_the_limits_themselves_are_allowed() -> None:
    assert decode_object(nested(MAX_DEPTH), 1000)
    raw = b'{"a":"b"}'
    assert decode_object(raw, len(raw)) == {"a": "b"}
    assert reason(raw, len(raw) - 1) == "too_large"


def test_what_lies_at_the_last_level_is_looked_at_too() -> None:
    deepest = nested(MAX_DEPTH).replace(b"{}", b'{"a":"\\u0000"}')
    assert reason(deepest) == "nul"


def test_a_proper_pair_of_surrogates_is_one_letter() -> None:
    assert decode_object(b'{"a":"\\ud83d\\ude00"}', 100) == {"a": "\U0001f600"}
