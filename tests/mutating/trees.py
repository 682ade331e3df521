"""Private copies of the checkout, in which one text at a time is replaced by another."""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class StaleMutant(Exception):
    """What was to be replaced does not stand there exactly once: the mutant has to follow the code."""


class Tree:
    """A copy of the checkout at *root*, which belongs to one worker."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def copy(cls, root: Path) -> Tree:
        """A copy of every file of the checkout that git knows or would take in, as it stands now."""
        asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        root.mkdir()
        names = subprocess.run(asked, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, root / name)
        # By their hash: a change within the same second and of the same length must not be overlooked.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        for package in ("statusutils", "signals", "orchestrator", "tests"):
            compileall.compile_dir(root / package, quiet=1, invalidation_mode=by_hash)
        return cls(root)

    @contextmanager
    def replaced(self, file: str, text: str, becomes: str) -> Iterator[None]:
        """The tree with *text*, which must stand in *file* once, replaced by *becomes*.

        Raises:
            StaleMutant: it does not.
        """
        before = (self.root / file).read_text()
        if before.count(text) != 1:
            raise StaleMutant(f"{file} holds this {before.count(text)} times:\n{text}")
        with self.changed(file, before.replace(text, becomes)):
            yield

    @contextmanager
    def changed(self, file: str, source: str) -> Iterator[None]:
        """The tree with *source* as the whole of *file*."""
        path = self.root / file
        before = path.read_text()
        path.write_text(source)
        try:
            yield
        finally:
            path.write_text(before)
