"""What every test may ask for: a PostgreSQL server, a freshly migrated database of its own, and connections to it.

The server is our embedded one, without waiting for the disk; TEST_DATABASE_URL names another one to use instead, whose
user may create databases and roles. With CI=true a skipped test is a failure: what CI does not run, it does not prove.
A test of what only root, only an ordinary user or only Linux can do is marked, and is left out elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from orchestrator.drivers.ffmpeg import find_ffmpeg
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.storage.migrations import migrate
from orchestrator.storage.pool import connect

# Copying files is several times quicker than writing the copy through the log, which is what 15 and newer do unasked.
_FAST_COPY_VERSION = 150000

_MARKERS = {
    "as_root": ("only root can do this", os.geteuid() == 0),
    "as_user": ("root is not held back by this", os.geteuid() != 0),
    "on_linux": ("other systems have no such thing", sys.platform == "linux"),
}
_LEFT_OUT = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    for name, (reason, _) in _MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {reason}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot exist here."""
    absent = {name for name, (_, applies) in _MARKERS.items() if not applies}
    left_out = [item for item in items if absent & {mark.name for mark in item.iter_markers()}]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
        marks = [mark.name for item in left_out for mark in item.iter_markers()]
        config.stash[_LEFT_OUT] = {name: marks.count(name) for name in sorted(absent)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was left out to the process that tells it, where the tests run in several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash.get(_LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it over; every process has left out the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and why."""
    for name, count in terminalreporter.config.stash.get(_LEFT_OUT, {}).items():
        if count:
            terminalreporter.write_line(f"{count} tests were left out ({name}): {_MARKERS[name][0]}")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server for the tests: its address for a named database, and a name that no other run uses."""

    dsn: Callable[[str], str]
    maintenance_database: str
    prefix: str

    async def execute(self, statement: str) -> None:
        """Run one statement at the server, outside the databases of the tests."""
        connection = await asyncpg.connect(self.dsn(self.maintenance_database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def clone(self, template: str, name: str) -> None:
        """Make the database *name* as a copy of *template*."""
        connection = await asyncpg.connect(self.dsn(self.maintenance_database))
        try:
            fast = connection.get_server_version().major * 10_000 >= _FAST_COPY_VERSION
            strategy = "STRATEGY FILE_COPY" if fast else ""
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {strategy}')
        finally:
            await connection.close()

    async def drop(self, name: str) -> None:
        """Remove the database *name*, and whoever is still connected to it."""
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The ffmpeg of this machine, or the one that came along."""
    return find_ffmpeg(None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that all tests of this run share."""
    prefix = f"test_{os.getpid()}_{secrets.token_hex(3)}"
    address = os.environ.get("TEST_DATABASE_URL")
    if address:
        database = urlsplit(address).path.lstrip("/") or "postgres"
        yield PostgresServer(lambda name: urlunsplit(urlsplit(address)._replace(path=f"/{name}")), database, prefix)
        return
    # Not pytest's own directory: it is private, and root's server runs as somebody who could not enter it.
    directory = Path(tempfile.mkdtemp(prefix="clip-tests-"))
    directory.chmod(0o711)
    server = EmbeddedPostgres(directory / "postgres", PostgresOptions(durable=False))
    try:
        asyncio.run(server.start())
        yield PostgresServer(server.dsn, "postgres", prefix)
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def database_template(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database in which every migration has been applied."""
    name = f"{postgres_server.prefix}_template"

    async def make() -> None:
        await postgres_server.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        await migrate(postgres_server.dsn(name))

    asyncio.run(make())
    yield name
    asyncio.run(postgres_server.drop(name))


@pytest.fixture
async def database(postgres_server: PostgresServer, database_template: str) -> AsyncIterator[str]:
    """The address of a migrated database that belongs to this test alone."""
    name = f"{postgres_server.prefix}_{secrets.token_hex(4)}"
    await postgres_server.clone(database_template, name)
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


@pytest.fixture(scope="module")
def shared_database(postgres_server: PostgresServer, database_template: str) -> Iterator[str]:
    """The address of a migrated database for the tests of one file, with what the test before has left in it."""
    name = f"{postgres_server.prefix}_{secrets.token_hex(4)}"
    asyncio.run(postgres_server.clone(database_template, name))
    yield postgres_server.dsn(name)
    asyncio.run(postgres_server.drop(name))


@pytest.fixture
async def emptied_database(shared_database: str) -> str:
    """The same with no clip, worker or leader in it: copying a database takes far longer than most tests."""
    connection = await asyncpg.connect(shared_database)
    await connection.execute(
        "TRUNCATE clips, clip_events, clip_signals, clip_pgqueuer, workers, worker_progress, worker_failures"
        " RESTART IDENTITY"
    )
    await connection.execute("UPDATE monitor_lease SET holder = NULL, epoch = 0, expires_at = '-infinity'")
    await connection.close()
    return shared_database


@pytest.fixture
async def owner(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of whoever migrated: no role stands in its way, the trigger does."""
    connection = await connect(database, None, "test owner")
    yield connection
    await connection.close()


@pytest.fixture
async def api(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection in the role of the web process."""
    connection = await connect(database, "orchestrator_api", "test api")
    yield connection
    await connection.close()


@pytest.fixture
async def empty_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The address of a database without anything in it, for tests of the migrations themselves."""
    name = f"{postgres_server.prefix}_{secrets.token_hex(4)}"
    await postgres_server.clone("template0", name)
    yield postgres_server.dsn(name)
    await postgres_server.drop(name)


def _fails_when_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"in CI a skipped test is a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips into failures in CI."""
    report = yield
    _fails_when_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn whole files that skip themselves into failures in CI."""
    report = yield
    _fails_when_skipped(report)
    return report
