"""Migrations outside a transaction: an index is built beside the writers, a broken build anew, a race is none."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from orchestrator.storage import migrations, outside
from orchestrator.storage.migrations import MigrationError, migrate, migrations_directory
from orchestrator.storage.outside import MARK, is_outside, statements_of

INDEX = "CREATE INDEX CONCURRENTLY IF NOT EXISTS clips_by_title ON clips (title);"
UNIQUE = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS clips_by_title ON clips (title);"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'clips_by_title'::regclass"


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    return Path(shutil.copytree(migrations_directory(), tmp_path / "migrations"))


def add(ground: Path, sql: str, *, name: str = "9999_index_titles.sql", outside: bool = True) -> None:
    (ground / name).write_text(f"-- Titles.\n{MARK if outside else '-- In one.'}\n\n{sql}\n")


@pytest.fixture
async def owner(empty_database: str, ground: Path):
    await migrate(empty_database, ground)
    connection = await asyncpg.connect(empty_database)
    yield connection
    await connection.close()


def test_a_file_says_that_it_runs_outside_and_falls_into_statements() -> None:
    text = f"-- What for.\n{MARK}\n\n{INDEX}\nANALYZE clips; -- since then\n"
    assert is_outside(text)
    assert not is_outside(f"-- It says {MARK} somewhere")
    assert statements_of(text) == [INDEX.rstrip(";"), "ANALYZE clips"]


async def test_an_index_is_built_beside_a_writer_who_has_not_ended(empty_database, ground, owner) -> None:
    add(ground, INDEX)
    writer = await asyncpg.connect(empty_database)
    begun = writer.transaction()
    await begun.start()
    await writer.execute("INSERT INTO clips (id) VALUES ('c')")
    building = asyncio.create_task(migrate(empty_database, ground))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND wait_event_type = 'Lock'"
    while not await owner.fetchval(waiting):
        await asyncio.sleep(0.01)
    await owner.execute("INSERT INTO clips (id) VALUES ('d')", timeout=1)  # nobody queues behind it
    await begun.commit()
    assert await building == ["9999_index_titles.sql"]
    assert await owner.fetchval(VALID) is True
    await writer.close()


async def test_a_build_that_broke_off_is_built_anew(empty_database, ground, owner) -> None:
    await owner.execute("INSERT INTO clips (id, title) VALUES ('c', 'same'), ('d', 'same')")
    add(ground, UNIQUE)
    with pytest.raises(asyncpg.UniqueViolationError):
        await migrate(empty_database, ground)
    assert await owner.fetchval(VALID) is False, "what is left of it"
    with pytest.raises(asyncpg.UniqueViolationError):
        await migrate(empty_database, ground)
    await owner.execute("UPDATE clips SET title = id")
    assert await migrate(empty_database, ground) == ["9999_index_titles.sql"]
    assert await owner.fetchval(VALID) is True
    assert await migrate(empty_database, ground) == []


async def test_three_at_once_build_one_index_and_none_of_them_waits_for_ever(empty_database, ground, owner) -> None:
    """One that waited within a statement would be waited for by the index, and wait for it."""
    add(ground, INDEX)
    applied = await asyncio.gather(*(migrate(empty_database, ground) for _ in range(3)))
    assert sorted(map(len, applied)) == [0, 0, 1]
    assert await owner.fetchval(VALID) is True


async def test_an_index_that_is_not_valid_in_the_end_is_a_failure(empty_database, ground, owner, monkeypatch) -> None:
    add(ground, INDEX)
    monkeypatch.setattr(outside, "_IS_INVALID", "SELECT true WHERE $1::text IS NULL")
    with pytest.raises(MigrationError, match=r"9999_index_titles\.sql: the index clips_by_title is not valid"):
        await migrate(empty_database, ground)
    names = await owner.fetch("SELECT name FROM schema_migrations")
    assert "9999_index_titles.sql" not in [row["name"] for row in names]


async def test_a_step_that_waits_for_a_lock_lets_the_others_pass_and_tries_again(
    empty_database, ground, owner, monkeypatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.05)
    add(ground, "ALTER TABLE clips ADD COLUMN colour text;", outside=False)
    holder = await asyncpg.connect(empty_database)
    held = holder.transaction()
    await held.start()
    await holder.execute("INSERT INTO clips (id) VALUES ('held')")
    altering = asyncio.create_task(migrate(empty_database, ground))
    for number in range(20):
        # A plain ALTER would have every one of these queue behind it for as long as the holder lives.
        await owner.execute("INSERT INTO clips (id) VALUES ($1)", f"c{number}", timeout=1)
        await asyncio.sleep(0.02)
    assert not altering.done()
    await held.commit()
    assert await altering == ["9999_index_titles.sql"]
    await holder.close()


async def test_a_lock_that_is_never_free_ends_it_in_words(empty_database, ground, owner, monkeypatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.0)
    add(ground, "ALTER TABLE clips ADD COLUMN colour text;", outside=False)
    held = owner.transaction()
    await held.start()
    await owner.execute("INSERT INTO clips (id) VALUES ('held')")
    with pytest.raises(MigrationError, match=r"a lock was not to be had in 30 tries.*pg_stat_activity"):
        await migrate(empty_database, ground)
    await held.rollback()


async def test_another_migration_that_does_not_end_is_told(empty_database, ground, owner, monkeypatch) -> None:
    monkeypatch.setattr(migrations, "_TURN_SECONDS", 0.3)
    await owner.execute("SELECT pg_advisory_lock($1)", migrations._LOCK_KEY)
    with pytest.raises(MigrationError, match="another migration has been under way"):
        await migrate(empty_database, ground)
