"""`orchestrator dev`: everything on one machine, started in order, kept running, stopped without a trace.

Our own programs are told everything by environment variables, as in production. What the environment already names
is used instead of the embedded part: DATABASE_URL, the CLOUDFLARE_ or the R2_ variables. Everything that is kept
lies below one directory:

    state.json    secrets and ports of the stand-ins     stream/    the Stream stand-in's videos
    postgres/     the database                           bucket/    the finished files, as plain files
    lock          held while `orchestrator dev` runs here
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from .dev_parts import LOOPBACK, DevParts, DevPlan
from .dev_state import DevState, choose_ports, read_state, write_state
from .errors import DirectoryInUse, KeepsEnding, LocalError, NotInstalled, PortInUse
from .interrupts import Interrupts, unless
from .locks import DirectoryLock
from .ports import free_port_from, wait_until_free

# When a run is killed, the kernel ends its programs; their ports close a moment later.
_PORT_PATIENCE_SECONDS = 2.0
_NAME_WIDTH = 8
_DEFAULT_PORT = 8080


@dataclass(frozen=True, slots=True)
class DevOptions:
    """Where the page is served and where everything is kept."""

    host: str = LOOPBACK
    port: int = _DEFAULT_PORT
    """0: the first free one from 8080."""

    data_dir: Path = Path(".orchestrator")
    postgres_binaries: Path | None = None
    """The directory of `postgres` and `initdb`; None looks for one."""

    stream_arguments: Sequence[str] = ()
    """Further arguments of the Stream stand-in, such as its pace and faults."""


async def run_dev(options: DevOptions) -> int:
    """Run until Ctrl-C or SIGTERM, then stop everything within ten seconds; a second Ctrl-C kills what is left.

    The exit code: 0 stopped when asked, 1 something cannot run, 2 wrong usage or settings, 130 killed when asked twice.
    """
    try:
        directory = _make_directory(options.data_dir)
        with DirectoryLock(directory), Interrupts() as interrupts:
            return await _run(options, directory, interrupts)
    except DirectoryInUse as exc:
        _complain(f"{exc}. If `orchestrator dev` is running there, stop it, or choose another with --data-dir.")
        return 2
    except PortInUse as exc:
        _complain(str(exc))
        return 2
    except LocalError as exc:
        _complain(str(exc))
        return 1


async def _run(options: DevOptions, directory: Path, interrupts: Interrupts) -> int:
    port = await _page_port(options)
    plan = DevPlan(
        directory=directory,
        host=options.host,
        port=port,
        state=await _state(directory / "state.json", port),
        environment=_environment(),
        postgres_binaries=options.postgres_binaries,
        stream_arguments=options.stream_arguments,
    )
    parts = DevParts(plan, _Screen(interrupts).show)
    missing = parts.missing()
    if missing:
        raise NotInstalled("\n".join(missing))
    try:
        await unless(interrupts.stop, parts.live())
    except BaseExceptionGroup as group:
        return _explain(group)
    finally:
        await _stop(parts, interrupts)
    return 130 if interrupts.at_once.is_set() else 0


async def _stop(parts: DevParts, interrupts: Interrupts) -> None:
    """Stop everything in order, or at once when that is asked for meanwhile."""
    try:
        await unless(interrupts.at_once, parts.stop())
    finally:
        # Whatever happened above: nothing is left behind.
        parts.kill()


async def _page_port(options: DevOptions) -> int:
    if options.port == 0:
        return free_port_from(options.host, _DEFAULT_PORT, ())
    if not await wait_until_free(options.host, options.port, _PORT_PATIENCE_SECONDS):
        raise PortInUse(
            f"Port {options.port} on {options.host} is in use by another program. Stop that program, or choose another "
            f"port, for example: --port {options.port + 10 if options.port < 65_000 else _DEFAULT_PORT}"
        )
    return options.port


async def _state(file: Path, page_port: int) -> DevState:
    """The remembered secrets and ports; ports that were lost to another program are replaced."""
    remembered = read_state(file)
    await asyncio.gather(
        *(wait_until_free(LOOPBACK, port, _PORT_PATIENCE_SECONDS) for port in remembered.ports.values())
    )
    state, moved = choose_ports(remembered, LOOPBACK, page_port)
    for name in moved:
        _complain(
            f"Port {remembered.ports[name]} ({name}) is in use by another program; {state.ports[name]} is used from "
            "now on. Addresses of finished clips from before may not work."
        )
    write_state(file, state)
    return state


def _environment() -> dict[str, str]:
    """What our programs will see: the environment, and below it what `.env` here says."""
    written = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**written, **os.environ}


def _make_directory(wanted: Path) -> Path:
    """Private for an ordinary user. For root enterable, as its database runs as somebody else; not listable."""
    try:
        wanted.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        return wanted.resolve()
    except OSError as exc:
        raise LocalError(f"the directory {wanted} cannot be made: {exc.strerror}") from exc


def _explain(group: BaseExceptionGroup) -> int:
    """Say what ended everything, and the exit code for it; what nobody expected is raised again."""
    expected, unexpected = group.split(LocalError)
    if unexpected is not None:
        raise unexpected
    errors = _leaves(expected)
    for error in errors:
        _complain(str(error))
    return 2 if any(isinstance(error, KeepsEnding) and error.wrong_settings for error in errors) else 1


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [] if error is None else [error]


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Screen:
    """Standard output, one line per line of a part, with the part's name before it."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def show(self, name: str, line: str) -> None:
        """Write one line; without a reader (a closed terminal or pipe) there is nobody left to run for: stop."""
        try:
            print(f"{name:<{_NAME_WIDTH}}| {line}" if name else line, flush=True)
        except OSError:
            self._interrupts.stop.set()
