"""Running some tests in a tree, and what became of them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mutating.warm import Warm

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


def run_tests(warm: Warm, nodes: Sequence[str], limit_seconds: float, *, stop_at_first: bool) -> Outcome:
    """Run *nodes* (below ``tests``) in the tree that *warm* stands in."""
    with tempfile.TemporaryDirectory() as directory:
        report, words = Path(directory) / "report.xml", Path(directory) / "output.txt"
        arguments = ["-q", "-p", "no:cacheprovider", "-p", "mutating.drawing", "--tb=short", f"--junitxml={report}"]
        arguments += [f"--basetemp={directory}/temporary", *(["-x"] if stop_at_first else [])]
        hung = warm.run([*arguments, *(f"tests/{node}" for node in nodes)], words, limit_seconds)
        return _read(report, words.read_text("utf-8", "replace") if words.exists() else "", hung)


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
