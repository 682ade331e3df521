"""What strangers wrote comes out as letters; columns stay columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.commands import printing
from orchestrator.commands.printing import cut, fill, painted, plain, table, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m b", "ared b"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x9b2Jb\x9d0;x\x9cc", "abc"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("a\x1bcb", "ab"),
        ("a\x1b", "a"),
        ("one\r\ntwo\tthree\x0bfour", "one two three four"),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("evil\u202egnp.exe\u2066x\u2069\u200f", "evilgnp.exex"),
        ("a\u200bb\ufeffc\u00add", "abcd"),
        ("a\u2028b\u2029c\u0085d", "a b c d"),
        ("a\U000e0041b\ud800c", "abc"),
        ("  ä 漢字 \u00a0 🎬  ", "ä 漢字 🎬"),
    ],
)
def test_only_letters_are_left(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(alphabet=st.characters(codec=None) | st.sampled_from("\x1b[]\x9b\x07\\m;0"), max_size=50))
def test_nothing_that_steers_a_terminal_comes_through(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    assert plain(shown) == shown


def test_columns_stand_under_each_other_in_cells() -> None:
    lines = table(("ID", "S", "TITLE"), [("漢字", "x", "one"), ("abc", "y", "two\x1b[2J")])
    assert lines == ["ID    S  TITLE", "漢字  x  one", "abc   y  two"]


def test_wide_letters_are_cut_where_they_end() -> None:
    assert (width("漢字e\u0301"), cut("漢字漢字", 5), cut("abc", 3), fill("漢", 4)) == (5, "漢字…", "abc", "漢  ")


@pytest.mark.parametrize(
    ("is_terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(printing.sys.stdout, "isatty", lambda: is_terminal)
    assert painted("error") == ("\x1b[31merror\x1b[0m" if coloured else "error")


def test_a_title_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing.sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = table(("ID", "TITLE"), [("a", "x" * 100)])
    assert lines[1] == "a   " + "x" * 35 + "…"
