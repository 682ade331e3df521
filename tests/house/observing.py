"""A second, independent history in the database under test: who wrote what, and who led at that moment.

Each process of the program logs in under a name of its own, so that a write tells whose it was. The triggers only
note; they refuse nothing and change nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

_OBSERVER = """
CREATE SCHEMA observer;
CREATE TABLE observer.terms (
    epoch bigint PRIMARY KEY, login text, at timestamptz DEFAULT clock_timestamp(), released boolean DEFAULT false);
CREATE TABLE observer.writes (
    id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(), login text, clip_id text,
    version bigint, former_epoch bigint, epoch bigint, lease_epoch bigint, lease_login text,
    from_status text, to_status text, from_attempt integer, attempt integer, from_progress numeric, progress numeric);
CREATE TABLE observer.reports (
    id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(), login text, clip_id text,
    requested_status text, lease_epoch bigint, lease_login text);

CREATE FUNCTION observer.note_term() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NEW.epoch <> OLD.epoch THEN
        INSERT INTO observer.terms (epoch, login) VALUES (NEW.epoch, session_user);
    ELSIF NEW.expires_at = '-infinity' THEN
        UPDATE observer.terms SET released = true WHERE epoch = NEW.epoch;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER observer_term AFTER UPDATE ON monitor_lease FOR EACH ROW EXECUTE FUNCTION observer.note_term();

CREATE FUNCTION observer.note_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO observer.writes (login, clip_id, version, former_epoch, epoch, lease_epoch, lease_login, from_status,
                                 to_status, from_attempt, attempt, from_progress, progress)
    SELECT session_user, NEW.id, NEW.version, OLD.epoch, NEW.epoch, l.epoch, t.login, OLD.status,
           NEW.status, OLD.attempt, NEW.attempt, OLD.progress, NEW.progress
      FROM public.monitor_lease l LEFT JOIN observer.terms t USING (epoch);
    RETURN NULL;
END $$;
CREATE TRIGGER observer_write AFTER UPDATE ON clips FOR EACH ROW EXECUTE FUNCTION observer.note_write();

CREATE TABLE observer.slowness (seconds double precision);
CREATE FUNCTION observer.slow_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_sleep(seconds) FROM observer.slowness;
    RETURN NEW;
END $$;
CREATE TRIGGER observer_slows BEFORE UPDATE ON clips FOR EACH ROW EXECUTE FUNCTION observer.slow_down();

CREATE FUNCTION observer.note_report() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO observer.reports (login, clip_id, requested_status, lease_epoch, lease_login)
    SELECT session_user, NEW.clip_id, NEW.requested_status, l.epoch, t.login
      FROM public.monitor_lease l LEFT JOIN observer.terms t USING (epoch);
    RETURN NULL;
END $$;
CREATE TRIGGER observer_report AFTER INSERT ON clip_signals FOR EACH ROW
    WHEN (NEW.observed) EXECUTE FUNCTION observer.note_report();
"""


async def observe(rows: asyncpg.Connection) -> None:
    """Begin to note terms, writes and reports in the schema `observer`. *rows* is the owner's connection."""
    await rows.execute(_OBSERVER)


@dataclass(frozen=True, slots=True)
class Logins:
    """The addresses of one database, one for each name that logs in."""

    by_name: dict[str, str]

    def name_of(self, login: str | None) -> str | None:
        """Whose login that is."""
        return next((name for name, dsn in self.by_name.items() if _user_of(dsn) == login), None)

    def login_of(self, name: str) -> str:
        """The login of *name*."""
        return _user_of(self.by_name[name])


@asynccontextmanager
async def logins(rows: asyncpg.Connection, database: str, names: Sequence[str], password: str) -> AsyncIterator[Logins]:
    """A login for each of *names* that may act as monitor and as web process; removed at the end."""
    run = secrets.token_hex(4)
    users = {name: f"{name.replace('-', '_')}_{run}" for name in names}
    for user in users.values():
        await rows.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        await rows.execute(f"GRANT orchestrator_monitor, orchestrator_api TO {user}")
    try:
        yield Logins({name: with_user(database, user, password) for name, user in users.items()})
    finally:
        for user in users.values():
            await rows.execute(f"DROP ROLE IF EXISTS {user}")


def with_user(database: str, user: str, password: str) -> str:
    """The address *database* for somebody else."""
    parts = urlsplit(database)
    query = [(key, value) for key, value in parse_qsl(parts.query) if key not in ("user", "password")]
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{place}", query=urlencode(query)))


def _user_of(dsn: str) -> str:
    return str(urlsplit(dsn).username)


async def slow_writes(rows: asyncpg.Connection, seconds: float | None) -> None:
    """Let each write to a clip take that long from now on; None: as ever."""
    await rows.execute("DELETE FROM observer.slowness")
    if seconds is not None:
        await rows.execute("INSERT INTO observer.slowness VALUES ($1)", seconds)


async def leader(rows: asyncpg.Connection) -> tuple[int, str | None]:
    """The present epoch, and the login that leads; None when the lease is free."""
    row = await rows.fetchrow(
        "SELECT l.epoch, CASE WHEN l.expires_at > clock_timestamp() THEN t.login END AS login"
        "  FROM monitor_lease l LEFT JOIN observer.terms t USING (epoch)"
    )
    return int(row["epoch"]), row["login"]
