"""A real pgbouncer in transaction mode before a cluster: few sessions, and each transaction meets any of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from house import free_port
from house.cluster import Cluster
from orchestrator.local.processes import Command, kill, spawn, wait_until_ended
from orchestrator.storage.pool import DATABASE_AWAY

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02


@dataclass(eq=False)
class Pooler:
    """One pooler on one port."""

    port: int
    command: Command
    users: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = "postgres") -> str:
        """The address of *database* through it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Return once it answers."""
        with self.log.open("ab") as log:
            self.process = spawn(self.command, stdout=log, stderr=log)
        ends_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                connection = await asyncpg.connect(self.dsn(), timeout=2, statement_cache_size=0)
            except DATABASE_AWAY:
                if time.monotonic() > ends_at:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                await connection.close(timeout=2)
                return

    def let_in(self, *logins: str) -> None:
        """Take these logins, too, with whatever password."""
        with self.users.open("a") as out:
            out.writelines(f'"{login}" ""\n' for login in logins)
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    async def kill(self) -> None:
        """End it at once, with every connection through it."""
        if self.process is not None:
            kill(self.process)
            await wait_until_ended(self.process, 5)


def find_pgbouncer() -> str | None:
    """The program, when it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@asynccontextmanager
async def open_pooler(program: str, cluster: Cluster, sessions: int, **settings: str) -> AsyncIterator[Pooler]:
    """A pooler with at most so many *sessions* at the server; further *settings* are those of its own file."""
    server = cluster.primary
    port = free_port()
    users, file = cluster.directory / "pooler-users", cluster.directory / "pooler.ini"
    users.write_text('"postgres" ""\n')
    stated = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": str(users),
        "pool_mode": "transaction",
        "default_pool_size": str(sessions),
        "max_client_conn": "500",
        "server_login_retry": "1",
        **settings,
    }
    lines = [f"{name} = {value}" for name, value in stated.items()]
    file.write_text("\n".join(["[databases]", f"* = host={server.sockets} port=5432", "[pgbouncer]", *lines, ""]))
    for path in (users, file):
        path.chmod(0o644)
    command = Command([program, str(file)], Path("/"), {"PATH": os.defpath}, signal.SIGKILL, server.account)
    pooler = Pooler(port, command, users, cluster.logs / "pgbouncer.log")
    try:
        await pooler.start()
        yield pooler
    finally:
        await pooler.kill()
