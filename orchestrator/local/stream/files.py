"""Small questions to the file system, asked in place: each is one system call on a local disk."""

from __future__ import annotations

from pathlib import Path


def size_of(path: Path) -> int:
    """The size in bytes; 0 for a file that is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder."""
    return path.exists()


def remove(path: Path) -> None:
    """There is no such file when this returns."""
    path.unlink(missing_ok=True)
