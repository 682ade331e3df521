from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from orchestrator.local import postgres_binaries, postgres_home
from orchestrator.local.errors import DirectoryInUse, NotInstalled, PostgresUnavailable
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions
from orchestrator.local.postgres_binaries import PostgresBinaries, find_binaries
from orchestrator.local.processes import Command, has_ended, spawn, stop

_LIMIT_SECONDS = 30.0

# Starts a server, says its pid, and then does nothing until it is killed.
_OWNER = """
import asyncio, sys
from pathlib import Path
from orchestrator.local import processes
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions

async def own():
    server = EmbeddedPostgres(Path(sys.argv[1]), PostgresOptions(durable=False))
    await server.start()
    print("pid", server.pid, flush=True)
    await asyncio.Event().wait()

if sys.argv[2] == "untied":
    # As on a system that does not tell a child of its parent's death.
    tie = processes._tethered
    processes._tethered = lambda command: [*tie(command)[:4], "0", *tie(command)[5:]]
asyncio.run(own())
"""


def postgres(directory: Path, **settings: object) -> EmbeddedPostgres:
    options = {"durable": False} | settings
    return EmbeddedPostgres(directory / "postgres", PostgresOptions(**options))  # type: ignore[arg-type]


async def remember(server: EmbeddedPostgres, word: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE words (word text)")
    await connection.execute("INSERT INTO words VALUES ($1)", word)
    await connection.close()


async def recall(server: EmbeddedPostgres) -> str:
    connection = await asyncpg.connect(server.dsn())
    try:
        return str(await connection.fetchval("SELECT word FROM words"))
    finally:
        await connection.close()


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(_LIMIT_SECONDS):
        while runs(pid):
            await asyncio.sleep(0.01)


@pytest.fixture
async def server(open_directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with postgres(open_directory) as running:
        yield running


async def test_it_answers_queries_and_listens_on_no_network(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn())
    assert await connection.fetchval("SHOW listen_addresses") == ""
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SELECT lower('ÄÖ')") == "äö"
    await connection.close()


async def test_only_its_own_account_may_reach_the_socket_and_the_data(
    server: EmbeddedPostgres, open_directory: Path
) -> None:
    for name in ("socket", next((open_directory / "postgres").glob("data-*")).name):
        found = (open_directory / "postgres" / name).stat()
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert (found.st_uid == 0) is False


async def test_data_stays_from_run_to_run(open_directory: Path) -> None:
    server = postgres(open_directory)
    async with server:
        await remember(server, "kept")
        pid = server.pid
    assert pid is not None
    assert not runs(pid)
    assert not list((open_directory / "postgres").glob("data-*/postmaster.pid"))
    async with server:
        assert await recall(server) == "kept"


async def test_a_stop_disconnects_whoever_is_still_there(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn())
    async with asyncio.timeout(_LIMIT_SECONDS):
        await server.stop()
    assert not server.is_running
    connection.terminate()


async def test_after_the_server_was_killed_the_next_start_recovers(open_directory: Path) -> None:
    server = postgres(open_directory, durable=True)
    await server.start()
    await remember(server, "survives")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(_LIMIT_SECONDS):
        while server.is_running:
            await asyncio.sleep(0.01)
    await server.stop()
    # What says "ready" in there now is what the dead one wrote.
    assert list((open_directory / "postgres").glob("data-*/postmaster.pid"))
    async with server:
        assert await recall(server) == "survives"


def start_owner(directory: Path, tie: str) -> tuple[subprocess.Popen[bytes], int]:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(directory / "postgres"), tie], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    said = next(line for line in owner.stdout if line.startswith(b"pid "))
    return owner, int(said.split()[1])


@pytest.mark.on_linux
async def test_when_its_owner_is_killed_the_server_stops_cleanly(open_directory: Path) -> None:
    owner, pid = start_owner(open_directory, "tied")
    owner.kill()
    owner.wait(_LIMIT_SECONDS)
    await until_gone(pid)
    assert "database system is shut down" in (open_directory / "postgres" / "server.log").read_text()


@pytest.mark.on_linux
async def test_a_server_that_lost_its_owner_is_stopped_and_replaced(open_directory: Path) -> None:
    owner, orphan = start_owner(open_directory, "untied")
    owner.kill()
    owner.wait(_LIMIT_SECONDS)
    assert runs(orphan)
    async with postgres(open_directory) as server:
        assert not runs(orphan)
        assert server.pid != orphan
    log = (open_directory / "postgres" / "server.log.1").read_text()
    assert "database system is shut down" in log


async def test_a_directory_in_use_is_refused_and_its_server_left_alone(
    server: EmbeddedPostgres, open_directory: Path
) -> None:
    with pytest.raises(DirectoryInUse, match=str(os.getpid())):
        await postgres(open_directory).start()
    await remember(server, "untouched")


@pytest.mark.on_linux
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "torn"])
async def test_a_stale_file_with_the_number_of_a_stranger_keeps_nobody_from_starting(
    open_directory: Path, whole: bool
) -> None:
    server = postgres(open_directory)
    async with server:
        file = next((open_directory / "postgres").glob("data-*/postmaster.pid"))
        lines = file.read_text().splitlines(keepends=True)
    stranger = spawn(Command(["/bin/sleep", "60"], Path("/"), {}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        lines[0] = f"{stranger.pid}\n"
        file.write_text("".join(lines) if whole else "")
        file.chmod(0o600)
        os.chown(file, file.parent.stat().st_uid, file.parent.stat().st_gid)
        async with server:
            assert not has_ended(stranger)
    finally:
        await stop(stranger, signal.SIGKILL, _LIMIT_SECONDS)


async def test_a_cluster_that_was_half_made_is_made_anew(open_directory: Path) -> None:
    major = find_binaries()[0].major
    unfinished = open_directory / "postgres" / f"data-{major}.new"
    unfinished.mkdir(parents=True)
    (open_directory / "postgres").chmod(0o711)
    (unfinished / "PG_VERSION").write_text("half")
    async with postgres(open_directory):
        assert not unfinished.exists()


async def test_a_long_path_gets_a_short_socket(open_directory: Path) -> None:
    deep = open_directory / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    async with postgres(deep) as server:
        await remember(server, "reachable")
        sockets = Path(parse_qs(urlsplit(server.dsn()).query)["host"][0])
        assert sockets.is_dir()
        assert not sockets.is_relative_to(open_directory)
    assert not sockets.exists()


async def test_a_wish_that_cannot_be_served_says_why(open_directory: Path) -> None:
    with pytest.raises(NotInstalled, match="nowhere"):
        await postgres(open_directory, binaries=Path("/nowhere")).start()
    # And nothing is held afterwards.
    async with postgres(open_directory):
        pass


async def test_a_server_that_refuses_to_start_is_quoted(open_directory: Path) -> None:
    async with postgres(open_directory):
        pass
    configuration = next((open_directory / "postgres").glob("data-*/postgresql.conf"))
    configuration.write_text("no_such_setting = 1\n")
    with pytest.raises(PostgresUnavailable, match="no_such_setting"):
        await postgres(open_directory).start()


async def test_a_start_that_is_cancelled_leaves_nothing_running(open_directory: Path) -> None:
    server = postgres(open_directory)
    starting = asyncio.create_task(server.start())
    async with asyncio.timeout(_LIMIT_SECONDS):
        while not (open_directory / "postgres" / "initdb.log").exists():
            await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with server:
        await remember(server, "fresh")


def others() -> list[PostgresBinaries]:
    """One PostgreSQL per further version that is here."""
    first, *rest = find_binaries()
    return list({each.major: each for each in rest if each.major != first.major}.values())


@pytest.mark.parametrize("binaries", others(), ids=lambda each: str(each.major))
async def test_existing_data_is_opened_by_its_own_version(open_directory: Path, binaries: PostgresBinaries) -> None:
    async with postgres(open_directory, binaries=binaries.directory) as server:
        await remember(server, "older")
    async with postgres(open_directory) as server:
        assert await recall(server) == "older"


@pytest.fixture
def shelf(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where clusters go that may not lie where they belong; on a real machine below /var/lib."""
    monkeypatch.setattr(postgres_home, "_SHELVES", (open_directory / "shelf",))
    return open_directory / "shelf"


@pytest.mark.usefixtures("shelf")
@pytest.mark.as_root
async def test_in_a_private_directory_of_roots_the_cluster_lives_elsewhere_and_nothing_is_opened(
    open_directory: Path,
) -> None:
    private = open_directory / "private"
    private.mkdir(mode=0o700)
    async with postgres(private) as server:
        await remember(server, "kept elsewhere")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not list((private / "postgres").glob("data-*"))
    moved = private.rename(open_directory / "moved")
    async with postgres(moved) as server:
        assert await recall(server) == "kept elsewhere"


@pytest.mark.usefixtures("shelf")
@pytest.mark.as_root
async def test_a_private_directory_made_anew_does_not_get_the_old_data(open_directory: Path) -> None:
    private = open_directory / "private"
    private.mkdir(mode=0o700)
    async with postgres(private) as server:
        await remember(server, "old")
    (private / "postgres" / "elsewhere").unlink()
    async with postgres(private) as server:
        with pytest.raises(asyncpg.UndefinedTableError):
            await recall(server)


@pytest.mark.as_root
async def test_where_there_is_no_place_for_it_either_it_says_so(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = open_directory / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(postgres_home, "_SHELVES", (private / "shelf",))
    with pytest.raises(PostgresUnavailable, match="ordinary user"):
        await postgres(private).start()


@pytest.mark.as_root
async def test_programs_that_nobody_may_reach_are_copied_to_where_they_run(
    open_directory: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = find_binaries()[0].directory
    package = bundled.parent.parent
    hidden = open_directory / "hidden"
    hidden.mkdir(mode=0o700)
    shutil.copytree(bundled.parent, hidden / package.name / bundled.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, hidden / libraries.name)
    unreachable = hidden / package.name / bundled.parent.name / "bin"
    with pytest.raises(PostgresUnavailable, match="may not enter"):
        await postgres(open_directory, binaries=unreachable).start()
    monkeypatch.setattr(postgres_binaries, "_wheel_directories", lambda: [unreachable])
    async with postgres(open_directory) as server:
        await remember(server, "runs")
    assert list(shelf.glob("*/*/*/bin/postgres"))


@pytest.mark.as_root
async def test_root_carries_on_an_ordinary_users_cluster_as_that_user(open_directory: Path) -> None:
    async with postgres(open_directory) as server:
        await remember(server, "theirs")
    for place, directories, files in os.walk(open_directory / "postgres"):
        for name in (*directories, *files):
            os.chown(Path(place, name), 12345, 12345, follow_symlinks=False)
    async with postgres(open_directory) as server:
        assert server.pid is not None
        assert await recall(server) == "theirs"
        assert Path(f"/proc/{server.pid}").stat().st_uid == 12345
