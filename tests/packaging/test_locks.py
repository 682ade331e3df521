"""The locks: complete, by hash, without addresses and paths, and with the embedded parts only where they belong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())
_RUNTIME = _PROJECT["project"]["dependencies"]
_LOCAL = _PROJECT["project"]["optional-dependencies"]["local"]
_WORKER = _PROJECT["project"]["optional-dependencies"]["worker"]
_DEV = _PROJECT["dependency-groups"]["dev"]
_BUILD = _PROJECT["build-system"]["requires"]

_LOCKS = ("runtime.txt", "local.txt", "dev.txt", "build.txt")


def text(lock: str) -> str:
    return (_ROOT / "requirements" / lock).read_text()


def pins(lock: str) -> list[tuple[str, str]]:
    """Name and version of every entry; a name stands twice where its versions differ by Python."""
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text(lock), re.MULTILINE)
    return [(canonicalize_name(name), version) for name, version in pinned]


def versions(lock: str) -> dict[str, str]:
    return dict(pins(lock))


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


@pytest.mark.parametrize("lock", _LOCKS)
def test_every_version_is_pinned_by_hash(lock: str) -> None:
    entries = [entry for entry in re.split(r"\n(?=\S)", text(lock)) if not entry.startswith("#")]
    assert len(entries) == len(pins(lock)) > 0
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


@pytest.mark.parametrize("lock", _LOCKS)
def test_no_address_and_no_path_of_a_machine_is_in_it(lock: str) -> None:
    assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|(^|\s)/\w+/", text(lock), re.MULTILINE)


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("runtime.txt", [*_RUNTIME, *_WORKER]),
        ("local.txt", [*_RUNTIME, *_LOCAL, *_BUILD]),
        ("dev.txt", [*_RUNTIME, *_LOCAL, *_WORKER, *_DEV, *_BUILD]),
        ("build.txt", _BUILD),
    ],
)
def test_a_lock_holds_what_the_project_asks_for(lock: str, requirements: list[str]) -> None:
    for requirement in map(Requirement, requirements):
        found = [version for name, version in pins(lock) if name == canonicalize_name(requirement.name)]
        assert found
        assert all(requirement.specifier.contains(version) for version in found), requirement


def test_production_holds_neither_embedded_parts_nor_tools() -> None:
    assert not set(versions("runtime.txt")) & (names(_LOCAL) | names(_DEV))


@pytest.mark.parametrize("lock", ["runtime.txt", "local.txt", "build.txt"])
def test_what_is_tested_is_what_runs(lock: str) -> None:
    assert set(pins(lock)) <= set(pins("dev.txt"))


def test_whoever_can_run_the_tests_can_run_everything() -> None:
    assert set(versions("local.txt")) <= set(versions("dev.txt"))
