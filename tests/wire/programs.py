"""Starting the callers beside the test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """Where the programs find themselves and the product."""
    return {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}


async def load(**job: Any) -> dict[str, Any]:
    """The figures of one `wire.load`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wire.load",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(job["seconds"] + 60):
            said, _ = await process.communicate(json.dumps(job).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said
    return dict(json.loads(said))


class Crowd:
    """A running `wire.crowd`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, what: str, seconds: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """One command and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        async with asyncio.timeout(seconds):
            line = await self._process.stdout.readline()
        assert line, f"the crowd has ended at {what}"
        return dict(json.loads(line))


@asynccontextmanager
async def crowd(host: str, port: int, token: str = "", through: Sequence[str] = ()) -> AsyncIterator[Crowd]:
    """A crowd for as long as the block runs; *through* is a command that starts it elsewhere, as `ip netns exec x`."""
    process = await asyncio.create_subprocess_exec(
        *through, sys.executable, "-m", "wire.crowd", host, str(port), token,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(), limit=16 * 1024 * 1024,
    )  # fmt: skip
    try:
        yield Crowd(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
