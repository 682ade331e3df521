"""What counts as a small change, and what is left alone."""

from __future__ import annotations

import ast

import pytest

from mutating.generating import changes


def becomes(source: str) -> list[str]:
    return [change.source for change in changes(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["(a >= b)", "(a <= b)"]),
        ("a is b", ["(a is not b)"]),
        ("a and b", ["(a or b)"]),
        ("not a", ["(a)"]),
        ("a if b else c", ["(a)", "(c)"]),
        ("a = True", ["a = False"]),
        ("a = 3", ["a = 4", "a = 2"]),
        ("raise a", ["pass"]),
        ("a += b", ["pass"]),
        ("call(a)", ["pass"]),
        ("é = 'é', b == c", ["é = 'é', (b != c)"]),
        ("def f() -> int:\n    return a", ["def f() -> int:\n    return None"]),
    ],
)
def test_each_place_is_written_differently_in_each_way_there_is(source: str, expected: list[str]) -> None:
    assert becomes(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "def f(a: 3 = b) -> 4: ...",
        "@dataclass(slots=True)\nclass A: ...",
        "from a import b",
        "Kind = A | B",
        "log.info(a)",
        "zip(a, b, strict=True)\n",
        "return_nothing = lambda: None",
        "def f():\n    return None",
        "a < b < c",
    ],
)
def test_what_no_test_is_meant_to_notice_is_left_alone(source: str) -> None:
    assert [change for change in changes(source) if change.was != source.strip()] == []


def test_every_change_is_still_a_program_and_another_one() -> None:
    with open(ast.__file__) as file:
        source = file.read()
    for change in changes(source)[::50]:
        assert ast.dump(ast.parse(change.source)) != ast.dump(ast.parse(source))
