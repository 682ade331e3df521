"""A PostgreSQL server of our own, for a machine that has none: started, watched and stopped by us.

The server is a direct child, listens on a Unix socket in a private directory and nowhere else, and keeps its data
from run to run. Everything of it lies below one directory:

    lock            held as long as a process of ours uses the directory
    data-18/        the cluster, one per major version
    server.log      what the server says, of this run and the one before
    socket/         the socket
    elsewhere       only when root started us here and nobody may enter: names the place where the rest is

    async with EmbeddedPostgres(Path("/srv/demo/postgres")) as server:
        connection = await asyncpg.connect(server.dsn("postgres"))
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import asyncpg
import structlog

from .errors import PostgresUnavailable
from .locks import DirectoryLock
from .postgres_binaries import PostgresBinaries, copy_binaries, find_binaries
from .postgres_home import Home, choose_home, give, is_open_to_others, shelf, socket_directory
from .postgres_leftovers import clear_leftovers
from .processes import Command, has_ended, kill, spawn, stop, wait_until_ended
from .server_logs import rotate, tail

SUPERUSER = "postgres"

_INITDB_SECONDS = 120.0  # takes 1 s here; a hundred times that for a slow disk
_STARTED_POLL_SECONDS = 0.02

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """How to run the server. The defaults keep the data safe."""

    durable: bool = True
    """False for tests: no waiting for the disk. A crash of the machine may then cost the data."""

    binaries: Path | None = None
    """The directory of `postgres` and `initdb`; None looks for one."""

    start_limit_seconds: float = 60.0
    """A start takes 0.05 s, after a crash 0.3 s; replaying a gigabyte of log on a slow disk takes most of a minute."""

    stop_limit_seconds: float = 4.0
    """A stop takes 0.05 s; whatever was not written by then is replayed at the next start."""

    max_connections: int = 200
    """Room for several web processes with pools of 10 to 20; an unused place costs next to nothing."""


class EmbeddedPostgres:
    """One server on one directory. To be started and stopped on the main thread; `start` again after `stop` is fine."""

    def __init__(self, directory: Path, options: PostgresOptions | None = None) -> None:
        self._wanted = directory
        self._options = options or PostgresOptions()
        self._locks = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_directory: Path | None = None
        self._log_file: Path | None = None

    async def __aenter__(self) -> EmbeddedPostgres:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def name(self) -> str:
        """What people call it."""
        return "database"

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it was not started or has ended."""
        if self._process is None or has_ended(self._process):
            return None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server lives."""
        return self.pid is not None

    @property
    def exit_code(self) -> int | None:
        """None: a server's exit code means nothing to us."""
        return None

    def last_words(self) -> str:
        """The last lines of the server's log."""
        return tail(self._log_file) if self._log_file is not None else "it was not started"

    def kill(self) -> None:
        """End the server at once and wait for nothing; the next start recovers."""
        if self._process is not None:
            kill(self._process)

    def dsn(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """The address of *database* for asyncpg and libpq. Whoever may enter the socket's directory may connect."""
        if self._socket_directory is None:
            raise RuntimeError("the server has no address before it is started")
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self._socket_directory), safe='')}"

    async def start(self) -> None:
        """Return once the server answers a query.

        A server that a killed run left behind on the same directory is stopped cleanly first.

        Raises:
            NotInstalled: there is no PostgreSQL here.
            PostgresUnavailable: it does not start; the text says why.
            DirectoryInUse: another process runs a server on this directory.
        """
        if self._process is not None:
            raise RuntimeError("the server is started already")
        try:
            await self._start()
        except BaseException:
            if self._process is not None:
                kill(self._process)
            self._forget()
            raise

    async def stop(self) -> None:
        """Return once the server has ended, cleanly if it can within the limit. Safe to repeat."""
        try:
            if self._process is not None and not has_ended(self._process):
                clean = await stop(self._process, signal.SIGINT, self._options.stop_limit_seconds)
                if not clean:
                    _log.warning("PostgreSQL did not stop in time and was killed; its next start recovers")
        finally:
            self._forget()

    def _forget(self) -> None:
        self._process = None
        if self._socket_directory is not None:
            # One for a long path lies among the temporary files. A killed server's is not empty, and is used again.
            with contextlib.suppress(OSError):
                self._socket_directory.rmdir()
        self._socket_directory = None
        self._locks.close()

    async def _start(self) -> None:
        wanted = self._wanted.resolve()
        _make_directory(wanted)
        self._locks.enter_context(DirectoryLock(wanted))
        home = choose_home(wanted)
        if home.directory != wanted:
            self._locks.enter_context(DirectoryLock(home.directory))
            _log.info(
                "PostgreSQL keeps its data elsewhere, as nobody may enter this directory", place=str(home.directory)
            )
        binaries = _choose_binaries(home, self._options.binaries)
        data = home.directory / f"data-{binaries.major}"
        limit_at = time.monotonic() + self._options.start_limit_seconds
        await clear_leftovers(data, limit_at)
        if not data.exists():
            await _initialise(binaries, home, data, self._options)
        sockets = socket_directory(home)
        command = _server_command(binaries, home, data, sockets, self._options)
        self._log_file = _new_log(home)
        await self._launch(command, self._log_file, data, limit_at)
        self._socket_directory = sockets
        await self._connect_once(limit_at)
        _log.info("PostgreSQL is ready", version=binaries.major, pid=self.pid, data=str(data))

    async def _launch(self, command: Command, log_file: Path, data: Path, limit_at: float) -> None:
        """Start the server and wait for its word that it is ready; once more when a dying predecessor is in the way."""
        while True:
            with log_file.open("ab") as output:
                written = output.tell()
                self._process = spawn(command, stdout=output, stderr=output)
            while not has_ended(self._process):
                if _is_ready(data, self._process.pid):
                    return
                if time.monotonic() >= limit_at:
                    raise PostgresUnavailable(f"PostgreSQL did not start in time; see {log_file}")
                await asyncio.sleep(_STARTED_POLL_SECONDS)
            said = tail(log_file, written)
            # Workers of a killed server hold its shared memory for a moment longer.
            if "still in use" not in said or time.monotonic() >= limit_at:
                raise PostgresUnavailable(f"PostgreSQL does not start ({log_file}): {said}")
            await asyncio.sleep(_STARTED_POLL_SECONDS)

    async def _connect_once(self, limit_at: float) -> None:
        """One real connection: the proof that the address we give away is answered."""
        limit_seconds = max(limit_at - time.monotonic(), 1.0)
        try:
            async with asyncio.timeout(limit_seconds):
                connection = await asyncpg.connect(self.dsn())
                try:
                    await connection.fetchval("SELECT 1")
                finally:
                    await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
            raise PostgresUnavailable(f"PostgreSQL started but does not answer: {exc}") from exc


def _make_directory(wanted: Path) -> None:
    """Private for an ordinary user; for root enterable but not listable, as the server runs as somebody else."""
    wanted.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)


def _choose_binaries(home: Home, explicit: Path | None) -> PostgresBinaries:
    """The preferred PostgreSQL, or the one of the version that the existing data is of; raises NotInstalled."""
    usable = [found for found in find_binaries(explicit) if _may_run(found, home)]
    if not usable:
        raise PostgresUnavailable("PostgreSQL is installed where the account that has to run it may not enter")
    existing = {int(data.name.removeprefix("data-")) for data in home.directory.glob("data-*[0-9]")}
    chosen = next((found for found in usable if found.major in existing), usable[0])
    if existing and chosen.major not in existing:
        _log.warning(
            "the existing data is of another PostgreSQL version that is not installed; starting with an empty database",
            existing=sorted(existing),
            version=chosen.major,
        )
    if home.account is not None and not is_open_to_others(chosen.directory):
        return copy_binaries(chosen, shelf())
    return chosen


def _may_run(binaries: PostgresBinaries, home: Home) -> bool:
    """Only the bundled one can be moved to where another account reaches it."""
    return binaries.bundled or home.account is None or is_open_to_others(binaries.directory)


async def _initialise(binaries: PostgresBinaries, home: Home, data: Path, options: PostgresOptions) -> None:
    """Make the cluster; it appears under its name only when it is whole."""
    _log.info("making the database cluster, once", version=binaries.major)
    unfinished = data.with_name(f"{data.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    give(unfinished, home.account)
    # trust: the socket's directory is the lock on the door, and there is no other door.
    arguments = [str(binaries.directory / "initdb"), "-D", str(unfinished), "-U", SUPERUSER, "-E", "UTF8"]
    arguments += ["--auth=trust", *_locale_arguments(binaries.major)]
    if not options.durable:
        arguments.append("--no-sync")
    command = Command(arguments, home.directory, _environment(), signal.SIGKILL, home.account)
    log_file = home.directory / "initdb.log"
    with log_file.open("wb") as output:
        process = spawn(command, stdout=output, stderr=output)
    try:
        ended = await wait_until_ended(process, _INITDB_SECONDS)
    finally:
        kill(process)
    if not ended or process.returncode != 0:
        raise PostgresUnavailable(f"initdb failed ({log_file}): {tail(log_file) if ended else 'it took too long'}")
    unfinished.rename(data)
    log_file.unlink()


def _locale_arguments(major: int) -> list[str]:
    """Sorting that is the same on every machine. The builtin provider came with 17; the bundled builds have no ICU."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C"]


def _server_command(
    binaries: PostgresBinaries, home: Home, data: Path, sockets: Path, options: PostgresOptions
) -> Command:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "max_connections": str(options.max_connections),
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "log_checkpoints": "off",  # the log is for what is wrong; a checkpoint every five minutes is not
    }
    if not options.durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    arguments = [str(binaries.directory / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        arguments += ["-c", f"{name}={value}"]
    # SIGINT is the clean and quick stop: it ends the sessions and writes everything.
    return Command(arguments, home.directory, _environment(), signal.SIGINT, home.account)


def _environment() -> dict[str, str]:
    """Nothing of ours: PGDATA, PGOPTIONS or a locale of the user's would change what the server does."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _is_ready(data: Path, pid: int) -> bool:
    """Whether the server with this *pid* says it is ready; what a killed one left behind says so, too."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _new_log(home: Home) -> Path:
    """An empty log for this run, which the server may write."""
    log_file = home.directory / "server.log"
    rotate(log_file)
    give(log_file, home.account)
    return log_file
