"""The log files of the servers that we start: one for this run, one for the run before, never more."""

from __future__ import annotations

import os
from pathlib import Path

_TAIL_BYTES = 4000
_TAIL_LINES = 8  # what fits a message: the reason is nearly always in the last few lines


def rotate(log_file: Path) -> None:
    """Make *log_file* anew and empty, readable by its owner alone; the one before is kept beside it."""
    if log_file.exists():
        log_file.replace(log_file.with_name(f"{log_file.name}.1"))
    os.close(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def tail(log_file: Path, start: int = 0) -> str:
    """The last lines written at or after byte *start*, on one line."""
    with log_file.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        opened.seek(max(start, end - _TAIL_BYTES))
        text = opened.read().decode(errors="replace")
    return " / ".join(line.strip() for line in text.strip().splitlines()[-_TAIL_LINES:]) or "it said nothing"
