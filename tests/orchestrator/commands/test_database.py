"""A database that cannot be used is one line, without a password in it."""

from __future__ import annotations

import socket

import pytest

from orchestrator.commands.database import place_of

SECRET = "c4n4ry"


@pytest.mark.parametrize(
    ("address", "code", "complaint"),
    [
        (
            f"postgresql://u:{SECRET}@127.0.0.1:1/db",
            1,
            "the database at 127.0.0.1:1/db does not answer (connection refused); is it running, is DATABASE_URL ri",
        ),
        (f"postgresql://u:{SECRET}@nobody.invalid/db", 1, "the database at nobody.invalid:5432/db does not answer ("),
        (f"postgresql://u:se/{SECRET}@h/db", 2, "DATABASE_URL cannot be read; percent-encode special characters"),
        (f"postgresql://u:se#{SECRET}@h/db", 2, "DATABASE_URL cannot be read"),
        (f"postgresql://u:se?{SECRET}@h/db", 2, "DATABASE_URL cannot be read"),
        (f"postgresql://u:12/{SECRET}@h/db", 1, "the database at the address in DATABASE_URL does not answer"),
        (f"postgresql://u:{SECRET}@127.0.0.1/db?sslmode={SECRET}", 2, "DATABASE_URL cannot be read"),
        (f"mysql://u:{SECRET}@h/db", 2, "DATABASE_URL: must start with postgresql://"),
        (f"postgresql://u:[{SECRET}@h/db", 2, "DATABASE_URL: "),
    ],
)
async def test_an_address_that_leads_nowhere(
    cli, monkeypatch: pytest.MonkeyPatch, address: str, code: int, complaint: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", address)
    ran = await cli("clips", "ls")
    assert (ran.code, ran.out) == (code, "")
    assert complaint in ran.err
    assert SECRET not in ran.err


async def test_no_address_at_all(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    ran = await cli("clips", "ls")
    assert (ran.code, ran.err) == (2, "The settings cannot be used:\n  DATABASE_URL: is not set\n")


async def test_a_database_that_is_not_there(cli, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    monkeypatch.setenv("DATABASE_URL", database.replace(name, "no_such_database"))
    ran = await cli("clips", "ls")
    assert ran.code == 2
    assert ran.err == 'database "no_such_database" does not exist; create it, or mend DATABASE_URL\n'


async def test_a_database_that_is_not_migrated(cli, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)
    ran = await cli("clips", "ls")
    assert ran.code == 1
    assert "run `orchestrator migrate`" in ran.err
    for command in ("serve", "monitor"):
        ran = await cli(command, *PLAUSIBLE)
        assert ran.code == 1
        assert ran.err.startswith("nothing was started: the database lacks 0001_create_clips.sql")
        assert ran.err.endswith("; run `orchestrator migrate`\n")
    ran = await cli("migrate")
    assert (ran.code, ran.out[:29]) == (0, "Applied 0001_create_clips.sql")
    ran = await cli("migrate")
    assert (ran.code, ran.out) == (0, "The database is at the newest version.\n")


async def test_it_acts_in_the_role_that_may_only_ask(cli, ground) -> None:
    await ground.owner.execute("REVOKE SELECT ON clips FROM orchestrator_api")
    ran = await cli("clips", "ls")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "permission denied for table clips; run `orchestrator migrate` as the owner of the database\n"


async def test_a_newer_database_is_left_alone(cli, ground) -> None:
    await ground.owner.execute("INSERT INTO schema_migrations (name, sha256) VALUES ('9999_future.sql', 'x')")
    for arguments in (("migrate",), ("serve", *PLAUSIBLE)):
        ran = await cli(*arguments)
        assert ran.code == 1
        assert "the database is newer than this program: it has 9999_future.sql; install a newer version" in ran.err


PLAUSIBLE = (
    "--cloudflare-account-id=a",
    "--cloudflare-api-token=t",
    "--cloudflare-api-url=http://127.0.0.1:1",
    "--r2-endpoint-url=http://127.0.0.1:1",
    "--r2-access-key-id=k",
    "--r2-secret-access-key=s",
    "--r2-bucket-name=clips",
)


async def test_a_port_that_is_taken_is_named(cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = await cli.process("serve", *PLAUSIBLE, "--port", str(port))
    assert ran.code == 2
    assert f"nothing can listen at 127.0.0.1:{port} (" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("postgresql://u:p@h/db", "h:5432/db"),
        ("postgresql://u:p@h:1/db?sslmode=require", "h:1/db"),
        ("postgresql://u@/db?host=/run/x", "/run/x:5432/db"),
        ("postgresql://u:p@[::1]:7/db", "::1:7/db"),
        ("postgresql://u:p/s@h/db", "the address in DATABASE_URL"),
        ("postgresql://u:12/s@h/db", "the address in DATABASE_URL"),
    ],
)
def test_a_place_is_told_without_who_enters_it(address: str, place: str) -> None:
    assert place_of(address) == place
