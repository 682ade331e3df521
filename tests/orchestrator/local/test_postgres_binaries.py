from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.local import postgres_binaries
from orchestrator.local.errors import NotInstalled
from orchestrator.local.postgres_binaries import copy_binaries, find_binaries


def install(directory: Path, version: str, programs: tuple[str, ...] = ("postgres", "initdb")) -> Path:
    """Something that looks like an installed PostgreSQL of this version."""
    directory.mkdir(parents=True)
    for program in programs:
        (directory / program).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (directory / program).chmod(0o755)
    return directory


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without PostgreSQL; what is put into the returned directory is found as the system's."""
    monkeypatch.setattr(postgres_binaries, "_WHEEL_PACKAGE", "no_such_package")
    monkeypatch.setattr(postgres_binaries, "_SYSTEM_PATTERNS", ((str(tmp_path / "versions"), "*/bin"),))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_the_bundled_ones_come_before_the_systems_and_the_newest_first() -> None:
    found = find_binaries()
    bundled = [each for each in found if each.bundled]
    assert [each.major for each in bundled] == sorted((each.major for each in bundled), reverse=True)
    assert bundled
    assert found[: len(bundled)] == bundled


def test_path_comes_before_the_versioned_directories_and_links_are_followed(bare_machine: Path) -> None:
    real = install(bare_machine / "opt" / "bin", "16.3")
    install(bare_machine / "versions" / "17" / "bin", "17.1")
    install(bare_machine / "versions" / "9" / "bin", "15.8")
    (bare_machine / "path").mkdir()
    (bare_machine / "path" / "postgres").symlink_to(real / "postgres")
    assert [(each.directory.parent.name, each.major) for each in find_binaries()] == [
        ("opt", 16),
        ("17", 17),
        ("9", 15),
    ]


@pytest.mark.parametrize(
    ("version", "programs"),
    [("13.9", ("postgres", "initdb")), ("16.1", ("postgres",)), ("nonsense", ("postgres", "initdb"))],
    ids=["too-old", "without-initdb", "something-else"],
)
def test_what_cannot_serve_is_passed_over(bare_machine: Path, version: str, programs: tuple[str, ...]) -> None:
    install(bare_machine / "versions" / "1" / "bin", version, programs)
    with pytest.raises(NotInstalled, match=r"clip-orchestrator\[local\]"):
        find_binaries()


def test_an_explicit_one_is_the_only_one(bare_machine: Path) -> None:
    chosen = install(bare_machine / "mine", "16.1")
    install(bare_machine / "versions" / "17" / "bin", "17.1")
    assert [each.directory for each in find_binaries(chosen)] == [chosen]
    with pytest.raises(NotInstalled, match="nowhere"):
        find_binaries(bare_machine / "nowhere")


def test_a_copy_keeps_the_layout_and_its_libraries_and_everybody_may_read_it(tmp_path: Path) -> None:
    package = tmp_path / "site" / "some_package"
    directory = install(package / "pginstall18" / "bin", "18.4")
    libraries = tmp_path / "site" / "some_package.libs"
    libraries.mkdir(mode=0o700)
    (libraries / "libpq.so").write_bytes(b"code")
    (libraries / "libpq.so").chmod(0o600)
    original = find_binaries(directory)[0]
    copied = copy_binaries(original, tmp_path)
    assert (copied.directory / "initdb").read_text() == (directory / "initdb").read_text()
    library = copied.directory / ".." / ".." / ".." / "some_package.libs" / "libpq.so"
    assert library.read_bytes() == b"code"
    assert stat.S_IMODE(library.stat().st_mode) == 0o644
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o755
    assert copy_binaries(original, tmp_path) == copied


def test_an_upgraded_installation_is_copied_anew(tmp_path: Path) -> None:
    directory = install(tmp_path / "package" / "pginstall" / "bin", "18.4")
    before = copy_binaries(find_binaries(directory)[0], tmp_path)
    (directory / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.10'\n")
    assert copy_binaries(find_binaries(directory)[0], tmp_path) != before
