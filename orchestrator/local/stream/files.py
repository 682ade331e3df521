"""Small requests to the file system, made in place: each is quick on a local disk."""

from __future__ import annotations

import os
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


def write_private(path: Path, text: str) -> None:
    """*path* holds *text*, whole or not at all, for this user alone."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    os.replace(draft, path)
