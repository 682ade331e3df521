"""A private copy, changed in one place and put back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutating.trees import ROOT, StaleMutant, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "a.py").write_text("one = 1\ntwo = 2\ntwo += 2\n")
    return Tree(tmp_path)


def test_one_text_is_replaced_and_put_back(tree: Tree) -> None:
    with tree.replaced("a.py", "one = 1", "one = 3"):
        assert (tree.root / "a.py").read_text() == "one = 3\ntwo = 2\ntwo += 2\n"
    assert (tree.root / "a.py").read_text() == "one = 1\ntwo = 2\ntwo += 2\n"


@pytest.mark.parametrize("text", ["three", "two"])
def test_what_does_not_stand_there_once_is_stale(tree: Tree, text: str) -> None:
    with pytest.raises(StaleMutant, match=r"a\.py"), tree.replaced("a.py", text, "x"):
        raise AssertionError


def test_a_copy_holds_what_git_holds(tmp_path: Path) -> None:
    tree = Tree.copy(tmp_path / "tree")
    assert (tree.root / "statusutils" / "tables.py").read_text() == (ROOT / "statusutils" / "tables.py").read_text()
    assert not (tree.root / ".git").exists()
