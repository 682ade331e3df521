"""Memory between pieces that live on is handed back; where the C library cannot, nothing happens."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from orchestrator import memory
from orchestrator.memory import unused_memory_returned

PIECES = 400
# Above what Python allocates by itself, and below what the C library maps one by one.
PIECE_BYTES = 100_000
LIMIT_SECONDS = 20.0

_IN_A_PROCESS = f"""
import asyncio
from pathlib import Path
from orchestrator.memory import unused_memory_returned

def used() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "RssAnon" in line)

async def main() -> None:
    pieces = [bytes([1]) * {PIECE_BYTES} for _ in range({PIECES})]
    kept = pieces[::2]
    del pieces
    before = used()
    async with unused_memory_returned(0.05):
        async with asyncio.timeout({LIMIT_SECONDS}):
            while before - used() < {PIECES // 4 * PIECE_BYTES // 1024}:
                await asyncio.sleep(0.05)
    print(len(kept), "kept")

asyncio.run(main())
"""


async def test_what_lies_between_pieces_that_are_kept_is_handed_back() -> None:
    if memory._find_trim() is None:
        pytest.skip("this C library keeps what it keeps: there is no malloc_trim")
    # In a process of its own: nothing else allocates or frees there.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _IN_A_PROCESS, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    assert told.decode().strip() == f"{PIECES // 2} kept"


async def test_it_goes_on_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []

    def trim(kept_bytes: int) -> int:
        trims.append(kept_bytes)
        return 1

    monkeypatch.setattr(memory, "_find_trim", lambda: trim)
    async with asyncio.timeout(LIMIT_SECONDS), unused_memory_returned(0.001):
        while len(trims) < 3:
            await asyncio.sleep(0.001)
    assert set(trims) == {0}
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "memory"]


async def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_find_trim", lambda: None)
    async with unused_memory_returned(0.001):
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "memory"]


def test_a_c_library_without_it_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert memory._find_trim() is None
