"""Migrating: safe to repeat and to race, sharp-eyed for edits, and of use where it may not create roles."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.storage.migrations import (
    MigrationError,
    migrate,
    migrations_directory,
    pending_migrations,
    read_migrations,
)
from orchestrator.storage.pool import connect, find_access

ALL = [migration.name for migration in read_migrations()]
ROLES = ("orchestrator_api", "orchestrator_monitor")


async def names_applied(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["name"] for row in await connection.fetch("SELECT name FROM schema_migrations ORDER BY name")]
    finally:
        await connection.close()


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    return Path(shutil.copytree(migrations_directory(), tmp_path / "migrations"))


async def test_from_empty_to_newest_and_again(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    assert await pending_migrations(connection) == ALL
    assert await migrate(empty_database) == ALL
    assert await pending_migrations(connection) == []
    assert await migrate(empty_database) == []
    assert await names_applied(empty_database) == ALL
    await connection.close()


async def test_every_step_on_the_way_can_be_migrated_on(empty_database: str, ground: Path) -> None:
    """An installation of any age catches up, with clips in it."""
    later = [ground / name for name in ALL[1:]]
    texts = [path.read_text() for path in later]
    # What the privileges name is there only at the end; the law needs the first step alone.
    privileges = (ground / "privileges.sql").read_text()
    (ground / "privileges.sql").write_text("SELECT 'nothing yet'")
    for path in later:
        path.unlink()
    assert await migrate(empty_database, ground) == ALL[:1]
    connection = await asyncpg.connect(empty_database)
    await connection.execute("INSERT INTO clips (id) VALUES ('c')")
    for path, text in zip(later, texts, strict=True):
        path.write_text(text)
        assert await migrate(empty_database, ground) == [path.name]
    (ground / "privileges.sql").write_text(privileges)
    assert await migrate(empty_database, ground) == []
    assert await connection.fetchval("SELECT status FROM clips") == "uploading"
    await connection.close()


async def test_three_at_once_apply_each_step_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(3)))
    assert sorted(map(len, applied)) == [0, 0, len(ALL)]
    assert await names_applied(empty_database) == ALL


async def test_databases_of_one_server_may_be_migrated_at_once(login) -> None:
    """Roles belong to the server, so the lock of one database does not keep the others off them."""
    dsns = [await login("SUPERUSER") for _ in range(4)]
    with capture_logs() as logs:
        await asyncio.gather(*(migrate(dsn) for dsn in dsns for _ in range(2)))
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
    for dsn in dsns:
        connection = await connect(dsn, "orchestrator_api", "test")
        await connection.execute("INSERT INTO clips (id) VALUES ('c')")
        await connection.close()


async def test_an_edited_migration_is_refused_by_name(empty_database: str, ground: Path) -> None:
    await migrate(empty_database, ground)
    edited = ground / ALL[1]
    edited.write_text(edited.read_text() + "\n-- changed my mind\n")
    (ground / "9999_add_something.sql").write_text("CREATE TABLE something (id int)")
    with pytest.raises(MigrationError, match=f"{ALL[1]} was edited"):
        await migrate(empty_database, ground)
    assert await names_applied(empty_database) == ALL, "nothing after the edited one was applied"
    connection = await asyncpg.connect(empty_database)
    with pytest.raises(MigrationError, match="was edited"):
        await pending_migrations(connection, ground)
    await connection.close()


async def test_a_database_newer_than_the_program_is_refused(empty_database: str, ground: Path) -> None:
    (ground / "9999_add_something.sql").write_text("CREATE TABLE something (id int)")
    await migrate(empty_database, ground)
    with pytest.raises(MigrationError, match=r"newer than this program.*9999_add_something\.sql"):
        await migrate(empty_database)


async def test_a_failing_migration_leaves_nothing_of_itself(empty_database: str, ground: Path) -> None:
    (ground / "9999_add_something.sql").write_text("CREATE TABLE something (id int); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_database, ground)
    assert await names_applied(empty_database) == ALL
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT to_regclass('something')") is None
    await connection.close()
    (ground / "9999_add_something.sql").unlink()
    assert await migrate(empty_database, ground) == []


async def test_the_law_is_stated_again_each_time(empty_database: str) -> None:
    await migrate(empty_database)
    connection = await asyncpg.connect(empty_database)
    await connection.execute(
        "CREATE OR REPLACE FUNCTION status_may_move(pipeline text, old text, new text) RETURNS boolean"
        " LANGUAGE sql IMMUTABLE AS 'SELECT true'; DROP TRIGGER clips_obey_the_law ON clips"
    )
    await migrate(empty_database)
    await connection.execute("INSERT INTO clips (id) VALUES ('c')")
    await connection.execute("UPDATE clips SET status = 'processing', progress = 50")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE clips SET status = 'queued'")
    await connection.close()


async def test_it_works_in_a_schema_with_an_odd_name(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    await connection.execute('CREATE SCHEMA "Video; clips"')
    await connection.execute(
        "DO $$ BEGIN"
        " EXECUTE format('ALTER DATABASE %I SET search_path = %I', current_database(), 'Video; clips'); END $$"
    )
    await connection.close()
    await migrate(empty_database)
    api = await connect(empty_database, "orchestrator_api", "test")
    await api.execute("INSERT INTO clips (id, processing_details) VALUES ('c', '{\"requested_status\": \"error\"}')")
    assert await api.fetchval("SELECT count(*) FROM clip_signals") == 1
    assert await api.fetchval(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'clips'::regclass"
    ) == ('"Video; clips"')
    await api.close()


async def test_an_owner_who_may_not_create_roles_is_told_and_served(login, ground: Path) -> None:
    """As on a managed database whose administrator gave out no roles: other names stand for ours, which are there."""
    for path in (ground / "privileges.sql", ground / "limits.sql"):
        path.write_text(path.read_text().replace("orchestrator_", "absent_"))
    dsn = await login("NOCREATEROLE")
    with capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.storage.migrations.ROLES", ("absent_api", "absent_monitor"))
        await migrate(dsn, ground)
        await migrate(dsn, ground)
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == 2
    assert "the trigger holds alone" in warnings[0]["event"]
    assert (await find_access(dsn, "absent_api")).role is None
    connection = await connect(dsn, None, "test")
    await connection.execute("INSERT INTO clips (id) VALUES ('c')")
    await connection.execute('UPDATE clips SET processing_details = \'{"requested_status": "error"}\'')
    assert await connection.fetchval("SELECT count(*) FROM clip_signals") == 1
    for statement in ("UPDATE clips SET progress = 3", "UPDATE clips SET status = 'complete'"):
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(statement)
    await connection.close()


async def test_roles_that_an_administrator_made_are_given_their_rights_by_a_plain_owner(login, database: str) -> None:
    """The roles are there (another database of the server made them); this owner may neither make nor alter any."""
    dsn = await login("NOCREATEROLE", before=f"GRANT {', '.join(ROLES)} TO {{login}}")
    with capture_logs() as logs:
        await migrate(dsn)
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
    assert (await find_access(dsn, "orchestrator_api")).role == "orchestrator_api"
    api = await connect(dsn, "orchestrator_api", "test")
    await api.execute("INSERT INTO clips (id) VALUES ('c')")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await api.execute("UPDATE clips SET status = 'complete'")
    await api.close()


async def test_an_owner_who_may_create_roles_can_act_in_them(login, ground: Path, postgres_server) -> None:
    """Newer servers let the maker of a role administer it and not act in it, unless it says so."""
    names = tuple(f"{postgres_server.prefix}_{role}" for role in ("api", "monitor"))
    for path in (ground / "privileges.sql", ground / "limits.sql"):
        text = path.read_text()
        for ours, theirs in zip(ROLES, names, strict=True):
            text = text.replace(ours, theirs)
        path.write_text(text)
    dsn = await login("CREATEROLE")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.storage.migrations.ROLES", names)
            await migrate(dsn, ground)
            await migrate(dsn, ground)
        for name in names:
            assert (await find_access(dsn, name)).role == name
            connection = await connect(dsn, name, "test")
            assert await connection.fetchval("SELECT current_user") == name
            await connection.close()
    finally:
        owner = await connect(dsn, None, "test")
        await owner.execute(f"DROP OWNED BY {', '.join(names)}; DROP ROLE {', '.join(names)}")
        await owner.close()


def test_files_are_numbered_without_gaps_and_say_what_they_do() -> None:
    assert [int(name[:4]) for name in ALL] == list(range(1, len(ALL) + 1))
    for migration in read_migrations():
        assert migration.sql.startswith("-- "), migration.name
        heading = migration.sql.split("\n\n")[0].lower()
        assert "before" in heading or "after" in heading, f"{migration.name} does not say when it goes"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer does it, away from the checkout."""
    root = Path(__file__).resolve().parents[3]
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_an_installed_program_carries_the_ground_inside(installed: Path) -> None:
    code = (
        "import json; from orchestrator.storage.migrations import *;"
        " print(json.dumps([str(migrations_directory()), [m.sha256 for m in read_migrations()]]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, env={"PYTHONPATH": str(installed)}, capture_output=True, check=True
    )
    directory, fingerprints = json.loads(ran.stdout)
    assert Path(directory) == installed / "orchestrator" / "_migrations"
    assert fingerprints == [migration.sha256 for migration in read_migrations()]
    for name in ("law.sql", "history.sql", "privileges.sql", "limits.sql"):
        assert (Path(directory) / name).read_bytes() == (migrations_directory() / name).read_bytes()


async def test_nothing_is_migrated_through_a_pooler(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock belongs to a session, which there is somebody else's the moment after."""
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda _: 1)
    with pytest.raises(MigrationError, match="DATABASE_DIRECT_URL"):
        await migrate(empty_database)
