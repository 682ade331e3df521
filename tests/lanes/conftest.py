"""What every lane may ask for: its amounts, a place for what it writes, and a way to tell its figures."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house.fixtures import house, sample, stream_options

__all__ = ["house", "sample", "stream_options"]

_ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The switches that `run.py lanes` hands on."""
    parser.addoption("--long", action="store_true", help="the amounts of a release")
    parser.addoption("--fresh", action="store_true", help="forget what an interrupted long run has found")
    parser.addoption("--lane-directory", type=Path, default=None, help="where the lane leaves what it has written")


class Figures:
    """What a lane has counted and measured, in the order in which it was told; printed at the end of the run."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "figures.json"
        self._said: dict[str, object] = {}

    def tell(self, **said: object) -> None:
        """Figures by name, underscores read as spaces: ``tell(seeds=2000, violations=0)``."""
        self._said |= {name.replace("_", " "): value for name, value in said.items()}
        self._path.write_text(json.dumps(self._said))

    def add(self, **counts: int) -> None:
        """Add to counts that several tests of the lane share."""
        told = {name.replace("_", " "): count for name, count in counts.items()}
        self.tell(**{name: int(str(self._said.get(name, 0))) + count for name, count in told.items()})


class Sometimes:
    """Which faults were really seen, and where: a fault that never fired proves nothing."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "sometimes.json"
        self._seen: Counter[str] = Counter()

    def saw(self, fault: str, where: str = "", times: int = 1) -> None:
        """Note that *fault* was met *where* (a status, a call)."""
        self._seen[f"{fault} @ {where}" if where else fault] += times

    def keep(self) -> None:
        """Write what was seen."""
        self._path.write_text(json.dumps(dict(sorted(self._seen.items())), indent=1))


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the amounts of a release were asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def is_fresh(request: pytest.FixtureRequest) -> bool:
    """Whether nothing that was found before is to count."""
    return bool(request.config.getoption("--fresh"))


@pytest.fixture(scope="session")
def amount(is_long: bool) -> Callable[[Any, Any], Any]:
    """`amount(2000, 100_000)`: what CI runs, and what a release runs."""
    return lambda in_ci, in_a_release: in_a_release if is_long else in_ci


@pytest.fixture(scope="session")
def lane_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything goes that the lane's processes write; the secrets lane searches it."""
    named = request.config.getoption("--lane-directory")
    directory = Path(named) if named else tmp_path_factory.mktemp("lane")
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


@pytest.fixture
def house_directory(lane_directory: Path, request: pytest.FixtureRequest) -> Path:
    """A directory for each test's house, kept with what the lane has written."""
    directory = lane_directory / re.sub(r"\W+", "-", request.node.name)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def figures(lane_directory: Path) -> Figures:
    """The lane's figures."""
    return Figures(lane_directory)


@pytest.fixture(scope="session")
def sometimes(lane_directory: Path) -> Any:
    """The lane's list of faults that were really met."""
    seen = Sometimes(lane_directory)
    yield seen
    seen.keep()


@pytest.fixture(scope="session")
def commit() -> str:
    """What a failure is repeated on."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
