"""Places and processes that run out: small file systems, few file descriptors, little memory (Linux, as root)."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
_MOUNT_SECONDS = 30
_GONE_SECONDS = 10.0
_CGROUPS = Path("/sys/fs/cgroup")


class CannotLimit(Exception):
    """This machine does not let us; the text says what is missing."""


@contextmanager
def small_disk(size_bytes: int, mode: str = "1777") -> Iterator[Path]:
    """A file system of its own with so many bytes; gone, with all that is on it, at the end of the block."""
    place = Path(tempfile.mkdtemp(prefix="clip-disk-"))
    options = f"size={size_bytes},mode={mode}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "clip-disk", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        place.rmdir()
        raise CannotLimit(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        _unmount(place)
        place.rmdir()


def _unmount(place: Path) -> None:
    ends_at = time.monotonic() + _MOUNT_SECONDS
    while subprocess.run(["umount", place], capture_output=True).returncode != 0:
        if time.monotonic() > ends_at:
            # Somebody still has a file open; the mount goes with them.
            subprocess.run(["umount", "--lazy", place], check=True)
            return
        time.sleep(0.1)


def fill(place: Path) -> Path:
    """Take every byte that is left at *place*; the file to remove again."""
    taken = place / "taken"
    with taken.open("ab", buffering=0) as out:
        for size in (MIB, 4096, 1):
            block = b"\0" * size
            with contextlib.suppress(OSError):
                while out.write(block) == size:
                    pass
    return taken


def is_full(place: Path) -> bool:
    """Whether not even a small file can be written at *place*."""
    probe = place / "probe"
    try:
        probe.write_bytes(b"x" * 4096)
    except OSError as problem:
        return problem.errno == errno.ENOSPC
    finally:
        probe.unlink(missing_ok=True)
    return False


def limit_files(pid: int, count: int) -> None:
    """Let a running process have *count* file descriptors and no more."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, count))


def open_files(pid: int) -> int:
    """How many file descriptors it has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def peak_memory_bytes(pid: int) -> int:
    """The most that a process has had in memory at once so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("a process without memory")


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """What holds processes to so much memory; *name* says what it is."""

    name: str
    group: Path | None
    limit_bytes: int

    def add(self, pid: int) -> None:
        """Hold a running process to it."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(pid))
        else:
            # Address space is several times what a process uses: its libraries and the stacks of its threads count.
            space_bytes = max(4 * self.limit_bytes, 1024 * MIB)
            resource.prlimit(pid, resource.RLIMIT_AS, (space_bytes, space_bytes))


@contextmanager
def limited_memory(limit_bytes: int) -> Iterator[MemoryLimit]:
    """A control group of version 1 or 2 where one may be made, else a limit of the address space."""
    for root, file in ((_CGROUPS / "memory", "memory.limit_in_bytes"), (_CGROUPS, "memory.max")):
        group = root / f"clip-lane-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(str(limit_bytes))
        except OSError:
            group.rmdir()
            continue
        try:
            yield MemoryLimit(f"control group, {limit_bytes // MIB} MiB", group, limit_bytes)
        finally:
            _remove(group)
        return
    yield MemoryLimit("address space", None, limit_bytes)


def _remove(group: Path) -> None:
    """Remove the group once the last process in it has gone."""
    ends_at = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.05)
