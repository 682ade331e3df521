"""What reaches the terminal: cleaned of everything that could steer it, in columns, in colour where that is wanted.

Titles, details and the provider's texts are written by strangers. As JSON they go out in ASCII, so that a program
gets them whole and a terminal gets nothing but letters.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.commands.failures import OutputClosed
from statusutils import COMPLETE, ERROR

# Sequences a terminal obeys: CSI, then strings (OSC, DCS, SOS, PM, APC) up to their end, then the short ones.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_COLOURS = {COMPLETE: "32", ERROR: "31"}
_UNDER_WAY = "36"
# Narrower than this no column would be left for a title.
_TITLE_MIN_CELLS = 20


def plain(text: str) -> str:
    """*text* on one line, without control characters, escape sequences, and characters that turn or hide text."""
    shown = (letter if letter.isprintable() else _instead_of(letter) for letter in _ESCAPES.sub("", text))
    return " ".join("".join(shown).split())


def _instead_of(letter: str) -> str:
    # Blanks and line ends keep words apart; what has no width (bidi marks, joiners, tags) leaves no trace.
    return " " if letter.isspace() else ""


def say(line: str = "") -> None:
    """Print one line that is clean already, at once.

    Raises:
        OutputClosed: nobody reads it.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError as problem:
        raise OutputClosed from problem


def say_json(document: Any) -> None:
    """Print *document* as one line of ASCII."""
    say(json.dumps(document, ensure_ascii=True, separators=(",", ":"), default=str))


def complain(text: str) -> None:
    """Print one line on stderr."""
    print(plain(text), file=sys.stderr, flush=True)


def has_colour() -> bool:
    """Whether stdout is a terminal and nobody has asked for no colour (https://no-color.org/)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(status: str, cells: int = 0) -> str:
    """*status*, filled up to *cells*, in its colour."""
    text = plain(status).ljust(cells)
    return f"\x1b[{_COLOURS.get(status, _UNDER_WAY)}m{text}\x1b[0m" if has_colour() else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]], coloured: int | None = None) -> list[str]:
    """The lines of a table; the last column is cut to the terminal's width, the column *coloured* holds statuses."""
    clean = [[plain(cell) for cell in row] for row in rows]
    widths = [max(width(row[at]) for row in [list(head), *clean]) for at in range(len(head))]
    left = sum(widths[:-1]) + 2 * (len(head) - 1)
    room = max(_TITLE_MIN_CELLS, shutil.get_terminal_size().columns - left) if sys.stdout.isatty() else None
    lines = []
    for number, row in enumerate([list(head), *clean]):
        cells = [fill(cell, widths[at]) for at, cell in enumerate(row[:-1])]
        if number and coloured is not None:
            cells[coloured] = painted(row[coloured], widths[coloured])
        lines.append("  ".join([*cells, row[-1] if room is None else cut(row[-1], room)]).rstrip())
    return lines


def width(text: str) -> int:
    """How many cells of a terminal *text* takes."""
    return sum(_cells(letter) for letter in text)


def fill(text: str, cells: int) -> str:
    """*text* with blanks up to *cells*."""
    return text + " " * (cells - width(text))


def cut(text: str, cells: int) -> str:
    """*text*, shortened with an ellipsis when it is wider than *cells*."""
    if width(text) <= cells:
        return text
    kept, taken = [], 0
    for letter in text:
        taken += _cells(letter)
        if taken > cells - 1:
            break
        kept.append(letter)
    return "".join(kept) + "…"


def _cells(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def moment(at: datetime) -> str:
    """A time for people: UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
