"""What runs out does, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from house.limits import MIB, CannotLimit, fill, is_full, limit_files, limited_memory, open_files, small_disk

pytestmark = pytest.mark.as_root


def test_a_small_disk_is_filled_and_freed_and_gone() -> None:
    try:
        with small_disk(2 * MIB) as place:
            assert not is_full(place)
            taken = fill(place)
            assert is_full(place)
            taken.unlink()
            assert not is_full(place)
    except CannotLimit as problem:
        pytest.skip(str(problem))
    assert not place.exists()
    assert str(place) not in Path("/proc/mounts").read_text()


def test_files_and_memory_are_limited() -> None:
    hungry = "import sys; sys.stdin.readline(); x = bytearray(1200 * 2**20); x[::4096] = b'1' * len(x[::4096])"
    with limited_memory(128 * MIB) as limit:
        child = subprocess.Popen([sys.executable, "-c", hungry], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        limit.add(child.pid)
        limit_files(child.pid, 64)
        assert "64" in Path(f"/proc/{child.pid}/limits").read_text().partition("Max open files")[2].split("\n")[0]
        assert 0 < open_files(child.pid) < 64
        child.communicate(b"\n", timeout=30)
        assert child.returncode != 0
    assert limit.group is None or not limit.group.exists()
