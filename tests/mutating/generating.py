"""Small changes to a module's code, made by rule: each is one place written differently.

Comparisons turned round, `and` for `or`, `not` dropped, numbers one up or down, True for False, None returned,
statements left out. Types, docstrings and decorators are left alone: no test is meant to notice them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
# A comparison and its neighbour: an edge that is moved by one step.
_MOVED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


@dataclass(frozen=True, slots=True)
class Change:
    """One place of a module written differently: *source* is the whole module with it."""

    line: int
    was: str
    becomes: str
    source: str

    def __str__(self) -> str:
        return f"line {self.line}: {_short(self.was)}  ->  {_short(self.becomes)}"


def changes(source: str) -> list[Change]:
    """All small changes to *source*, in the order of their places."""
    tree = ast.parse(source)
    places = _Places(source)
    found = [
        places.changed(node, text) for node in _executed(tree) for text in _alternatives(node) if _can_stand(node, text)
    ]
    return sorted(found, key=lambda change: change.line)


class _Places:
    """Where nodes stand in a source; ast counts columns in bytes."""

    def __init__(self, source: str) -> None:
        self._bytes = source.encode()
        self._starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def changed(self, node: ast.expr | ast.stmt, text: str) -> Change:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        was = self._bytes[start:end].decode()
        return Change(node.lineno, was, text, (self._bytes[:start] + text.encode() + self._bytes[end:]).decode())


def _executed(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Every expression and statement but types, docstrings, decorators and imports."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _executed(child)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True  # both sides have the same length, always
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    # `X = A | B` names a type; a type alias has no other meaning.
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)


def _alternatives(node: ast.expr | ast.stmt) -> Iterator[str]:
    match node:
        case ast.Compare(ops=[one]):
            for table in (_TURNED, _MOVED):
                if type(one) in table:
                    yield f"({ast.unparse(ast.Compare(node.left, [table[type(one)]()], node.comparators))})"
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"({ast.unparse(ast.BoolOp(other, node.values))})"
        case ast.UnaryOp(op=ast.Not()):
            yield f"({ast.unparse(node.operand)})"
        case ast.IfExp():
            yield f"({ast.unparse(node.body)})"
            yield f"({ast.unparse(node.orelse)})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int() | float() as value):
            yield repr(value + 1)
            yield repr(value - 1)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
            yield "pass"


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _can_stand(node: ast.expr | ast.stmt, text: str) -> bool:
    """Whether it is another text, and not one of the log's: what is logged is not what is promised."""
    old = ast.unparse(node)
    return old != text.strip("()") and not old.startswith(("log.", "await asyncio.sleep("))


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 70 else f"{flat[:67]}..."
