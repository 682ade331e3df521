"""The command line's connection: it acts in the role that may only ask, and says in one line when it cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import asyncpg

from orchestrator.commands.failures import WRONG_USAGE, CommandFailed, DatabaseAway
from orchestrator.settings import DatabaseSettings
from orchestrator.storage.pool import DATABASE_AWAY, connect, find_access

ROLE = "orchestrator_api"
_CLOSE_SECONDS = 5.0
# Nothing of the address is quoted: the piece at fault may be the password.
UNREADABLE_ADDRESS = ("DATABASE_URL cannot be read", "percent-encode special characters in user and password")


@asynccontextmanager
async def asking(settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may ask and read, closed at the end; what the database refuses ends the command.

    Print nothing inside: a broken pipe is a broken connection to whoever reads the error.

    Raises:
        DatabaseAway: it does not answer.
        CommandFailed: it answers and does not let us in, or is not ours.
    """
    dsn = settings.database_url.get_secret_value()
    with translated(dsn):
        connection = await _connected(dsn)
        try:
            yield connection
        finally:
            with suppress(*DATABASE_AWAY):
                await connection.close(timeout=_CLOSE_SECONDS)


async def _connected(dsn: str) -> asyncpg.Connection:
    try:
        access = await find_access(dsn, ROLE)
        return await connect(dsn, access.role, "clip-orchestrator command line", pooled=access.pooled)
    except ValueError:
        raise CommandFailed("; ".join(UNREADABLE_ADDRESS), WRONG_USAGE) from None


@contextmanager
def translated(dsn: str) -> Iterator[None]:
    """Whatever the database and its driver raise leaves as one line with a remedy."""
    try:
        yield
    except asyncpg.InvalidAuthorizationSpecificationError as problem:
        raise CommandFailed(f"{problem}; mend user and password in DATABASE_URL", WRONG_USAGE) from None
    except asyncpg.InvalidCatalogNameError as problem:
        raise CommandFailed(f"{problem}; create it, or mend DATABASE_URL", WRONG_USAGE) from None
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as problem:
        raise CommandFailed(f"the database does not fit this program ({problem}); run `orchestrator migrate`") from None
    except asyncpg.InsufficientPrivilegeError as problem:
        raise CommandFailed(f"{problem}; run `orchestrator migrate` as the owner of the database") from None
    except DATABASE_AWAY as problem:
        raise DatabaseAway(no_answer(dsn, problem)) from None
    except asyncpg.PostgresError as problem:
        raise CommandFailed(f"the database refused: {problem}") from None


def no_answer(dsn: str, problem: BaseException) -> str:
    """That the database does not answer, where it was looked for, and what to do; never with a password."""
    return f"the database at {place_of(dsn)} does not answer ({why(problem)}); is it running, is DATABASE_URL right?"


def why(problem: BaseException) -> str:
    """A connection's failure in a few words: the server's own, the system's, or the kind of it."""
    if isinstance(problem, asyncpg.PostgresError):
        return str(problem)
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, ConnectionRefusedError):
        return "connection refused"
    if isinstance(problem, OSError):
        return problem.strerror or "it cannot be reached"
    return type(problem).__name__


def place_of(dsn: str) -> str:
    """Host, port and database of an address; the rest of it may be secret."""
    unknown = "the address in DATABASE_URL"
    try:
        parts = urlsplit(dsn)
        # A directory of sockets travels as a parameter.
        host = parts.hostname or next(iter(parse_qs(parts.query).get("host", ())), "the default host")
        port = parts.port or 5432
    except ValueError:
        return unknown
    # An @ elsewhere means that a character of the password was taken for the end of the host.
    return f"{host}:{port}{parts.path}" if parts.netloc.count("@") == dsn.count("@") else unknown
