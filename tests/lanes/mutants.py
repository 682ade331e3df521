"""The deliberate bugs of ``mutants.toml`` as values."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

_LIST = Path(__file__).with_suffix(".toml")

# Every promise, invariant and liveness goal has to be broken by some mutant.
CLAIMS = (
    *(f"P{number}" for number in range(1, 13)),
    *(f"I{number}" for number in range(1, 21)),
    *(f"L{number}" for number in range(1, 11)),
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One deliberate bug: *text* in *file* replaced by *becomes*, which *tests* have to notice."""

    name: str
    breaks: tuple[str, ...]
    file: str
    text: str
    becomes: str
    tests: tuple[str, ...]


def read_mutants() -> tuple[Mutant, ...]:
    """All of them, in the order of the list."""
    rows = tomllib.loads(_LIST.read_text())["mutant"]
    return tuple(
        Mutant(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})
        for row in rows
    )
