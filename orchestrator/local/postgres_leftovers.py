"""What a killed run may have left at a data directory: a server that still runs, or a file that names a dead one.

Only to be used while the directory is locked: then whatever runs there has lost its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import structlog

from .errors import PostgresUnavailable

_POLL_SECONDS = 0.05
_CONNECT_SECONDS = 5.0  # a local server answers in milliseconds, even to say that it is shutting down

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Leftover:
    """What `postmaster.pid` says: the server's process, and where its socket is."""

    pid: int
    socket_directory: str
    port: str


async def clear_leftovers(data: Path, limit_at: float) -> None:
    """Return when no server runs on *data* any more, and no stale file keeps the next one from starting.

    Raises:
        PostgresUnavailable: a server runs there that does not stop, or that is not ours to stop.
    """
    asked = False
    while (found := _read(data)) is not None:
        if not _is_alive(found.pid) or _is_certainly_another_program(found.pid, data):
            _disarm(data)
            return
        if time.monotonic() >= limit_at:
            raise PostgresUnavailable(
                f"process {found.pid} holds {data} and does not end; if it is a PostgreSQL server, stop it, "
                f"otherwise remove {data / 'postmaster.pid'}"
            )
        if not asked and await _answers_for(found, data):
            # Answered through its own socket: the number is certainly that of the server, and not of a stranger.
            _log.info("stopping a PostgreSQL server that a killed run left behind", pid=found.pid)
            _interrupt(found.pid, data)
            asked = True
        await asyncio.sleep(_POLL_SECONDS)


def _read(data: Path) -> _Leftover | None:
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except PermissionError as exc:
        raise PostgresUnavailable(f"{data} belongs to another account") from exc
    lines += [""] * (5 - len(lines))
    pid = lines[0].strip()
    # An empty or torn file is what a machine that lost power leaves.
    return _Leftover(int(pid) if pid.isdigit() else 0, lines[4].strip(), lines[3].strip())


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_certainly_another_program(pid: int, data: Path) -> bool:
    """Whether the number was given to somebody else since; after a reboot, or in a container, it often is.

    A server's working directory is its data directory. Only Linux shows it; elsewhere nothing is certain.
    """
    if sys.platform != "linux":
        return False
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) != data.resolve()
    except PermissionError:
        # Another account's process: a server that we started runs as ours, or we are root and may look.
        return True
    except OSError:
        return False


def _disarm(data: Path) -> None:
    """Let the next server get past the stale file, but keep what it says of shared memory.

    The server ignores a file that names its own parent, which we are going to be, and then still checks that no
    worker of the dead server holds the memory. Removing the file would skip that check.
    """
    file = data / "postmaster.pid"
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if len(lines) < 7:
        file.unlink()
        return
    lines[0] = f"{os.getpid()}\n"
    with file.open("r+", encoding="utf-8") as opened:
        opened.write("".join(lines))
        opened.truncate()


async def _answers_for(found: _Leftover, data: Path) -> bool:
    """Whether a server answers at the noted socket and serves *data*; False also while it starts or shuts down."""
    if not found.socket_directory or not found.port.isdigit():
        return False
    address = f"postgresql://postgres@/postgres?host={quote(found.socket_directory, safe='')}&port={found.port}"
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await asyncpg.connect(address)
            try:
                served = await connection.fetchval("SHOW data_directory")
            finally:
                await connection.close()
        return bool(served) and _is_same_directory(served, data)
    return False


def _is_same_directory(served: str, data: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(served, data)
    return False


def _interrupt(pid: int, data: Path) -> None:
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        return
    except PermissionError as exc:
        raise PostgresUnavailable(f"a server of another account (process {pid}) runs on {data}") from exc
