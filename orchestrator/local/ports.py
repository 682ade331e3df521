"""Ports that nobody else listens on."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Collection

from .errors import PortInUse

_POLL_SECONDS = 0.1
_TRIES = 200  # ports looked at before giving up; a machine that uses that many in a row is not a desk


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises:
        PortInUse: nobody can listen there at all: no such address, or a port that we may not use.
    """
    try:
        # As servers do it: a port whose last connections are still being closed counts as free.
        socket.create_server((host, port), family=_family(host), backlog=1).close()
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise PortInUse(f"nothing can listen on {host}, port {port}: {exc.strerror or exc}") from exc
    return True


async def wait_until_free(host: str, port: int, patience_seconds: float) -> bool:
    """Whether the port is free, now or before the patience ends."""
    ends_at = time.monotonic() + patience_seconds
    while not is_free(host, port):
        if time.monotonic() >= ends_at:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def free_port_from(host: str, first: int, taken: Collection[int]) -> int:
    """The first free port at or above *first* that is not in *taken*.

    Counted upwards rather than left to the kernel: what it gives away comes from the range of outgoing connections,
    and by the next start one of those may hold it.

    Raises:
        PortInUse: there is none near.
    """
    for port in range(first, min(first + _TRIES, 65536)):
        if port not in taken and is_free(host, port):
            return port
    raise PortInUse(f"no free port near {first} on {host}")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
