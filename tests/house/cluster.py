"""A PostgreSQL server of a lane's own, with real durability, to be ended, frozen, copied and replaced at will (Linux).

    async with make_cluster(log_directory) as cluster:
        server = cluster.primary
        await server.end(signal.SIGQUIT)      # immediate
        await server.start()
        standby = await cluster.add_standby()
        server.kill()
        await standby.promote()

Nothing of it is left when the block ends: no process, no directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import asyncpg

from house.relay import Upstream
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.local.processes import Account, Command, has_ended, kill, spawn, wait_until_ended
from orchestrator.storage.pool import DATABASE_AWAY

START_SECONDS = 60.0
END_SECONDS = 30.0
_COPY_SECONDS = 60.0
_POLL_SECONDS = 0.02
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # A standby that is a moment behind still finds what it lacks.
    "wal_keep_size": "64MB",
}


@dataclass(eq=False)
class Server:
    """One server on one data directory."""

    data: Path
    sockets: Path
    programs: Path
    account: Account | None
    log: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def upstream(self) -> Upstream:
        """Where a relay finds it."""
        return Upstream(str(self.sockets / ".s.PGSQL.5432"))

    @property
    def is_running(self) -> bool:
        """Whether its main process lives."""
        return self.process is not None and not has_ended(self.process)

    def dsn(self, database: str = "postgres") -> str:
        """Its own address, past any relay."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.sockets), safe='')}"

    async def start(self) -> None:
        """Return once it takes connections. What dies of a predecessor is waited for."""
        limit_at = time.monotonic() + START_SECONDS
        self._spawn()
        while True:
            if not self.is_running:
                # Workers of a killed one hold its memory for a moment.
                await asyncio.sleep(_POLL_SECONDS)
                self._spawn()
            with contextlib.suppress(*DATABASE_AWAY, asyncpg.PostgresError):
                connection = await asyncpg.connect(self.dsn(), timeout=2)
                await connection.close(timeout=2)
                return
            if time.monotonic() > limit_at:
                raise TimeoutError(f"PostgreSQL does not start: {self.log.read_text('utf-8', 'replace')[-2000:]}")
            await asyncio.sleep(_POLL_SECONDS)

    def _spawn(self) -> None:
        settings = _SETTINGS | {"unix_socket_directories": str(self.sockets)} | self.settings
        arguments = [str(self.programs / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        with self.log.open("ab") as log:
            command = Command(arguments, self.data, environment, signal.SIGINT, self.account)
            self.process = spawn(command, stdout=log, stderr=log)

    async def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast; SIGQUIT: immediate, as in a crash; SIGKILL: worse. Returns when it has ended."""
        if self.process is None:
            return
        if self.is_running:
            self.process.send_signal(how)
        if not await wait_until_ended(self.process, END_SECONDS):
            kill(self.process)
            await wait_until_ended(self.process, END_SECONDS)
        self.process = None

    def freeze(self) -> list[int]:
        """SIGSTOP to the main process and then to all its workers; their numbers."""
        assert self.process is not None
        stopped = [self.process.pid]
        self.process.send_signal(signal.SIGSTOP)
        for worker in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGSTOP)
                stopped.append(worker)
        return stopped

    @staticmethod
    def thaw(stopped: list[int]) -> None:
        """SIGCONT to all that were stopped, workers first."""
        for process in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    async def catch_up(self, primary: Server) -> None:
        """Return once a standby has all that *primary* had written when this began."""
        from_primary = await asyncpg.connect(primary.dsn(), timeout=5)
        here = await asyncpg.connect(self.dsn(), timeout=5)
        try:
            written = await from_primary.fetchval("SELECT pg_current_wal_lsn()::text")
            async with asyncio.timeout(_COPY_SECONDS):
                while not await here.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written):
                    await asyncio.sleep(_POLL_SECONDS)
        finally:
            await from_primary.close(timeout=5)
            await here.close(timeout=5)

    async def promote(self) -> None:
        """Make a standby take writes."""
        connection = await asyncpg.connect(self.dsn(), timeout=5)
        try:
            await connection.fetchval("SELECT pg_promote(true, 30)")
        finally:
            await connection.close(timeout=5)


@dataclass(eq=False)
class Cluster:
    """The servers of one lane; *primary* is the one that takes writes."""

    directory: Path
    logs: Path
    primary: Server
    servers: list[Server]

    async def add_standby(self) -> Server:
        """A copy of the primary that follows it, asynchronously, and has caught up once."""
        number = len(self.servers)
        old = self.primary
        data, sockets = self.directory / f"data-{number}", self.directory / f"s{number}"
        command = [old.programs / "pg_basebackup", "-h", old.sockets, "-U", "postgres", "-D", data]
        command += ["-R", "--checkpoint=fast", "--no-sync"]
        copied = await asyncio.create_subprocess_exec(*map(str, command), stderr=subprocess.PIPE)
        async with asyncio.timeout(_COPY_SECONDS):
            _, said = await copied.communicate()
        if copied.returncode != 0:
            raise RuntimeError(f"pg_basebackup failed: {said.decode()}")
        sockets.mkdir(mode=0o700)
        _give(self.directory, [data, sockets], old.account)
        log = self.logs / f"postgres-{number}.log"
        standby = Server(data, sockets, old.programs, old.account, log, dict(old.settings))
        self.servers.append(standby)
        await standby.start()
        # One that does not follow yet would lose the seconds since it was copied, and nobody promotes such a one.
        await standby.catch_up(old)
        return standby


@asynccontextmanager
async def make_cluster(
    logs: Path, settings: Mapping[str, str] | None = None, directory: Path | None = None
) -> AsyncIterator[Cluster]:
    """A new cluster with its primary running under *settings*; its data goes below *directory*, or to a new one."""
    # Not below a private directory: a server that root starts runs as somebody else.
    place = Path(tempfile.mkdtemp(prefix="clip-lane-", dir=directory))
    place.chmod(0o711)
    cluster = None
    try:
        primary = await _initialise(place, logs / "postgres-0.log")
        primary.settings |= settings or {}
        cluster = Cluster(place, logs, primary, [primary])
        await primary.start()
        yield cluster
    finally:
        for server in cluster.servers if cluster else ():
            if server.process is not None:
                kill(server.process)
                server.thaw(_children(server.process.pid))
                await wait_until_ended(server.process, END_SECONDS)
        shutil.rmtree(place, ignore_errors=True)


async def _initialise(place: Path, log: Path) -> Server:
    """A fresh data directory, made as `orchestrator dev` makes its own."""
    # Not waiting for the disk once, here: the servers below do, as a server has to.
    async with EmbeddedPostgres(place / "made", PostgresOptions(durable=False)) as made:
        assert made.pid is not None
        programs = Path(f"/proc/{made.pid}/exe").resolve().parent
        data = Path(f"/proc/{made.pid}/cwd").resolve()
    owner = data.stat()
    account = Account(owner.st_uid, owner.st_gid) if owner.st_uid != os.geteuid() else None
    sockets = place / "s0"
    sockets.mkdir(mode=0o700)
    _give(place, [sockets], account)
    return Server(data, sockets, programs, account, log)


def _give(place: Path, paths: list[Path], account: Account | None) -> None:
    if account is None:
        return
    assert all(path.is_relative_to(place) for path in paths)
    for path in paths:
        os.chown(path, account.uid, account.gid)
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                os.chown(Path(directory, name), account.uid, account.gid, follow_symlinks=False)


def _children(parent: int) -> list[int]:
    """The processes that *parent* has started and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # pid (name) state ppid; a name may hold anything but ends at the last bracket
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found
