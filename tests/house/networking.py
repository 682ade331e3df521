"""A network of one's own, in which packets of single connections can be dropped without a word."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

# From <sched.h>: a network namespace of the calling thread, which its children inherit.
_CLONE_NEWNET = 0x40000000
_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin:/usr/bin:/bin"


def missing_tool() -> str | None:
    """Why there can be no such network here; None when there can."""
    if os.geteuid() != 0:
        return "only root can have a network of its own"
    absent = [name for name in ("ip", "nft") if shutil.which(name, path=_SYSTEM_DIRECTORIES) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Inside the block this thread and what it starts live in a network of their own, with nothing but loopback.

    The kernel clears it away with its last process and socket, however those end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as usual:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no network of our own")
        try:
            _run("ip", "link", "set", "lo", "up")
            _run("nft", "add table inet lane; add chain inet lane out { type filter hook output priority 0; }")
            yield
        finally:
            if libc.setns(usual.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "no way back to the usual network")


def drop(address: str) -> None:
    """From now on nothing reaches *address* and nothing comes from it; nobody is told."""
    _run("nft", f"add rule inet lane out ip daddr {address} drop; add rule inet lane out ip saddr {address} drop")


def heal() -> None:
    """Everything passes again."""
    _run("nft", "flush chain inet lane out")


def _run(program: str, *arguments: str) -> None:
    found = shutil.which(program, path=_SYSTEM_DIRECTORIES)
    assert found is not None
    subprocess.run([found, *arguments], check=True, capture_output=True, timeout=10)
