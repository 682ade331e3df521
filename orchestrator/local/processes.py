"""Child processes that end when they are told to, and do not outlive us.

Children get a process group of their own: Ctrl-C reaches only us, and we stop them in the order that is right. On
Linux the kernel stops them when we are killed. `subprocess.Popen` rather than asyncio's children: a server that one
event loop has started may be stopped by another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.drivers import tether

_POLL_SECONDS = 0.01  # chosen: short against every wait here, and 100 looks a second cost nothing
_KILL_SECONDS = 5.0  # SIGKILL cannot be refused; only a process stuck in the kernel takes longer

# macOS has it from Python 3.13 on. Without it, what an ended program left running in its group stays.
_CAN_LOOK_FIRST = hasattr(os, "waitid")

_TETHER = Path(tether.__file__)


@dataclass(frozen=True, slots=True)
class Account:
    """Who a child runs as, when that is not us."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """A program to start: its arguments, where, with which environment, and as whom."""

    arguments: Sequence[str]
    """The program as an absolute path, then its arguments."""

    cwd: Path
    """A directory that the account may enter."""

    environment: Mapping[str, str]
    death_signal: signal.Signals = signal.SIGTERM
    """What the child gets when we die without a word (Linux)."""

    account: Account | None = None


def spawn(command: Command, *, stdout: int | IO[bytes], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """The running child, tied to our own life.

    To be called on the main thread: Linux counts the end of the starting *thread* as the parent's death.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started on the main thread, or they end with the thread that started them")
    return subprocess.Popen(
        _tethered(command),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=command.cwd,
        env=dict(command.environment),
        process_group=0,
    )


def _tethered(command: Command) -> list[str]:
    account = command.account or Account(uid=-1, gid=-1)
    settings = [int(command.death_signal), os.getpid(), account.uid, account.gid]
    return [sys.executable, "-I", "-S", str(_TETHER), *map(str, settings), *command.arguments]


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether *process* has ended; what it left running in its group is then killed.

    Looks without collecting first: as long as the ended process is not collected, its number cannot be another's.
    """
    if process.returncode is not None:
        return True
    if not _CAN_LOOK_FIRST:
        return process.poll() is not None
    with contextlib.suppress(ChildProcessError):
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        _signal_group(process.pid, signal.SIGKILL)
    return process.poll() is not None


async def wait_until_ended(process: subprocess.Popen[bytes], limit_seconds: float) -> bool:
    """True once *process* has ended, False when the limit passes first."""
    ends_at = time.monotonic() + limit_seconds
    while not has_ended(process):
        if time.monotonic() >= ends_at:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def stop(process: subprocess.Popen[bytes], first: signal.Signals, limit_seconds: float) -> bool:
    """End *process*: *first*, and SIGKILL for its whole group when the limit has passed. True when *first* was enough.

    Safe to repeat. Cancellation ends the patience, not the child: it is killed before the cancellation passes on.
    """
    try:
        if not has_ended(process):
            process.send_signal(first)
        if await wait_until_ended(process, limit_seconds):
            return True
    except asyncio.CancelledError:
        kill(process)
        raise
    kill(process)
    await wait_until_ended(process, _KILL_SECONDS)
    return False


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for *process* and the group it leads, at once."""
    if not has_ended(process):
        _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, what)
