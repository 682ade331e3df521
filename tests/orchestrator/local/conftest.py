"""Places and processes for the tests of the embedded parts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory with a short path that any account may enter: pytest's own are private."""
    directory = Path(tempfile.mkdtemp(prefix="clip-local-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def pids_naming() -> Callable[[Path], list[int]]:
    """The processes, other than this one, whose arguments or environment have the last part of a path; Linux only."""

    def look(path: Path) -> list[int]:
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _names(pid, path)]

    return look


def _names(pid: int, path: Path) -> bool:
    # The last part only: in an address the slashes before it are written differently.
    wanted = os.fsencode(path.name)
    for file in ("cmdline", "environ"):
        try:
            if pid != os.getpid() and wanted in Path(f"/proc/{pid}/{file}").read_bytes():
                return True
        except OSError:
            continue
    return False
