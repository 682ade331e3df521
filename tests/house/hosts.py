"""Hosts of one's own: network namespaces with nothing but a loopback, and what leads from there to the services.

A process in such a host sees no network that another host sees. The database is reached by its socket in the file
system; for each other service a relay listens on the host's own loopback and hands on through a socket of that kind.

    python hosts.py DIRECTORY PORT [PORT]     the relay inside
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin:/usr/bin:/bin"
_CHUNK_BYTES = 256 * 1024
_START_SECONDS = 20.0

Reached = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def missing_tool() -> str | None:
    """Why there can be no hosts here; None when there can."""
    if os.geteuid() != 0:
        return "only root can have network namespaces"
    return None if shutil.which("ip", path=_SYSTEM_DIRECTORIES) else "ip is not installed"


@asynccontextmanager
async def hosts(names: Sequence[str], directory: Path, ports: Sequence[int]) -> AsyncIterator[dict[str, list[str]]]:
    """By name, what stands before a command that is to run on that host; *ports* of this loopback lead there, too."""
    run = secrets.token_hex(3)
    spaces = {name: f"lane-{run}-{number}" for number, name in enumerate(names)}
    directory.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            server = await asyncio.start_unix_server(_to(_tcp(port)), directory / f"{port}")
            stack.callback(server.close)
        for space in spaces.values():
            _ip("netns", "add", space)
            stack.callback(_ip, "netns", "del", space)
            _ip("-n", space, "link", "set", "lo", "up")
            relay = _start_relay(space, directory, ports)
            stack.callback(_end, relay)
            assert relay.stdout is not None
            async with asyncio.timeout(_START_SECONDS):
                assert await asyncio.to_thread(relay.stdout.readline) == b"ready\n"
        yield {name: _inside(space) for name, space in spaces.items()}


def _inside(space: str) -> list[str]:
    return [_found("ip"), "netns", "exec", space]


def _ip(*arguments: str) -> None:
    subprocess.run([_found("ip"), *arguments], check=True, capture_output=True, timeout=10)


def _found(program: str) -> str:
    found = shutil.which(program, path=_SYSTEM_DIRECTORIES)
    assert found is not None
    return found


def _start_relay(space: str, directory: Path, ports: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [*_inside(space), sys.executable, "-P", str(Path(__file__)), str(directory), *map(str, ports)]
    # Imported here: the relay itself needs nothing of the program.
    from orchestrator.local.processes import Command, spawn

    whole = Command(command, directory, {"PATH": os.environ["PATH"]}, signal.SIGKILL)
    return spawn(whole, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _end(relay: subprocess.Popen[bytes]) -> None:
    relay.send_signal(signal.SIGKILL)
    relay.wait()


def _tcp(port: int) -> Callable[[], Awaitable[Reached]]:
    return lambda: asyncio.open_connection("127.0.0.1", port)


def _unix(path: Path) -> Callable[[], Awaitable[Reached]]:
    return lambda: asyncio.open_unix_connection(path)


def _to(reach: Callable[[], Awaitable[Reached]]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
    """What is done with each connection: its bytes go on to whoever *reach* reaches, and back."""

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await reach()
            await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))

    return hand_on


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _relay(directory: Path, ports: Sequence[int]) -> None:
    servers = [await asyncio.start_server(_to(_unix(directory / str(port))), "127.0.0.1", port) for port in ports]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_relay(Path(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
