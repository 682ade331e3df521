"""Running some tests in a tree, and what became of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mutating.trees import Tree

# A change that cannot even be run proves nothing about the tests.
_BROKEN = re.compile(
    r"\b(SyntaxError|IndentationError|ImportError|ModuleNotFoundError|NameError|UnboundLocalError|PostgresSyntaxError"
    r"|UndefinedColumnError|UndefinedFunctionError|UndefinedTableError|AmbiguousColumnError)\b"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What pytest said: *failures* are assertions and the like, *errors* tests that could not be run."""

    passed: int
    failures: tuple[str, ...]
    errors: tuple[str, ...]
    hung: bool
    output: str

    @property
    def is_clean(self) -> bool:
        """Whether everything ran and passed."""
        return self.passed > 0 and not self.failures and not self.errors and not self.hung

    @property
    def is_noticed(self) -> bool:
        """Whether a test failed for what it saw, and not because nothing could be run."""
        return bool(self.failures) and not self.hung and not any(_BROKEN.search(text) for text in self.failures)


def run_tests(tree: Tree, nodes: Sequence[str], limit_seconds: float, dsn: str, *, stop_at_first: bool) -> Outcome:
    """Run *nodes* (below ``tests``) in *tree*, on the PostgreSQL server at *dsn*."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
        command += [f"--basetemp={directory}/temporary", *(["-x"] if stop_at_first else [])]
        command += [f"tests/{node}" for node in nodes]
        environment = os.environ | {
            "PYTHONPATH": f"{tree.root}{os.pathsep}{tree.root / 'tests'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TEST_DATABASE_URL": dsn,
        }
        output, hung = _call(command, tree.root, environment, limit_seconds)
        return _read(report, output, hung)


def _call(command: list[str], place: Path, environment: dict[str, str], limit_seconds: float) -> tuple[str, bool]:
    # A group of its own: what the tests have started ends with them.
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_seconds)
        return output, False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], True


def _read(report: Path, output: str, hung: bool) -> Outcome:
    if not report.exists():
        return Outcome(0, (), () if hung else (output[-4000:],), hung, output)
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 (pytest wrote it)
    failures = tuple(_words(found) for case in cases for found in case.findall("failure"))
    errors = tuple(_words(found) for case in cases for found in (*case.findall("error"), *case.findall("skipped")))
    passed = sum(1 for case in cases if len(case) == 0 or all(part.tag.startswith("system") for part in case))
    return Outcome(passed, failures, errors, hung, output)


def _words(found: ElementTree.Element) -> str:
    """What was wrong, without the code around it."""
    told = [line for line in (found.text or "").splitlines() if line.startswith("E ")]
    return "\n".join([found.get("message", ""), *told])
