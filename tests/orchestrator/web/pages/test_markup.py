"""Templates: whatever is filled in is text, unless it is HTML of ours."""

from __future__ import annotations

import pytest

from orchestrator.web.pages.markup import fill, join, link, markup


def test_values_are_escaped_and_markup_is_not_escaped_twice():
    inner = fill("<b>$x</b>", x="<i>")
    assert inner == "<b>&lt;i&gt;</b>"
    assert (
        fill('<p title="$t">$inner</p>', t="\"'&", inner=inner) == '<p title="&quot;&#x27;&amp;"><b>&lt;i&gt;</b></p>'
    )
    assert fill("$nothing|$zero", nothing=None, zero=0) == "|0"
    assert join([markup("<br>"), inner], "") == "<br><b>&lt;i&gt;</b>"


def test_a_value_is_not_a_template():
    assert fill("$x", x="$y $$ ${z}") == "$y $$ ${z}"


def test_a_missing_value_is_an_error():
    with pytest.raises(KeyError):
        fill("$x")


@pytest.mark.parametrize("address", ["https://example.org/a?b=c", "http://127.0.0.1:9000/x"])
def test_web_addresses_may_be_linked_to(address):
    assert link(address) == address


@pytest.mark.parametrize(
    "address", [None, "", "javascript:alert(1)", "data:text/html,x", "//evil.example", "/path", "https://", "http://["]
)
def test_nothing_else_may(address):
    assert link(address) is None
