"""What a session of ours brings with it, and how to do without a session: through a pooler each transaction may meet
another one, so that each brings its role and its limits itself.

Directly, role and limits are set once, as the connection is opened. A pooler in transaction mode (pgbouncer, say)
refuses or forgets such settings. There every statement outside a transaction becomes one of its own, and every
transaction begins with

    BEGIN; SET LOCAL lock_timeout = '5s'; …; SET LOCAL ROLE orchestrator_api
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import asyncpg

# Sessions that hang may not hold up others; far above any statement of ours. A leader that froze in the midst of a
# write still holds the lease's row: its transaction has to end before its lease does, or nobody could take over.
_LIMITS = {"lock_timeout": "5s", "statement_timeout": "30s", "idle_in_transaction_session_timeout": "8s"}
# A session that is asked half a question (its line fell silent between preparing a statement and running it) is neither
# idle nor at work: none of the above ends it, and a proxy that holds its line open hides that nobody is there any more.
# This one does; servers have it since version 17.
_TRANSACTION_LIMIT = ("transaction_timeout", "8s")
_TRANSACTION_LIMIT_SINCE = 17
# How the server finds a peer that vanished without a word, in about 10 s. Behind a pooler its peer is the pooler.
_KEEP_ALIVES = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "client_connection_check_interval": "5s",
}


def session_settings(role: str | None) -> Mapping[str, str]:
    """What a session with the server itself is opened with."""
    return {**_LIMITS, **_KEEP_ALIVES, **({"role": role} if role else {})}


def transaction_limit(connection: asyncpg.Connection) -> Mapping[str, str]:
    """What bounds a whole transaction, as far as the server of *connection* has it."""
    name, value = _TRANSACTION_LIMIT
    return {name: value} if connection.get_server_version().major >= _TRANSACTION_LIMIT_SINCE else {}


class WithSession(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """A connection whose session is ours from the beginning to the end; `limit_transactions` comes first."""

    async def limit_transactions(self) -> None:
        """Set what an older server would refuse, as a name unknown to it, when the connection is opened."""
        if setting := self._transaction_limit():
            await self.execute(setting)

    def get_reset_query(self) -> str:
        """Nothing: no statement of ours leaves anything behind in its session, and asking costs a round trip a loan.

        A transaction that was left open is rolled back all the same.
        """
        return ""

    def _transaction_limit(self) -> str:
        return "; ".join(f"SET {name} = '{value}'" for name, value in transaction_limit(self).items())


def sessionless(role: str | None) -> type[asyncpg.Connection]:
    """The kind of connection that asks nothing of its session and acts in *role*, for use through a pooler."""
    settings = [f"SET LOCAL {name} = '{value}'" for name, value in _LIMITS.items()]
    if role is not None:
        quoted = role.replace('"', '""')
        settings.append(f'SET LOCAL ROLE "{quoted}"')
    return type("Sessionless", (_Sessionless,), {"opening": "; ".join(settings)})


class _Sessionless(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """A connection each of whose transactions sets what it needs."""

    opening = ""

    def get_reset_query(self) -> str:
        """Nothing: no session is ours, and what was set has ended with its transaction."""
        return ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """As the base class has it, in a transaction."""
        if not self.is_in_transaction() and query.startswith("BEGIN"):
            # asyncpg's own way to begin one: what every transaction needs travels with it.
            more = [f"SET LOCAL {name} = '{value}'" for name, value in transaction_limit(self).items()]
            return str(await super().execute("; ".join([query.rstrip("; "), self.opening, *more]), timeout=timeout))
        async with self._in_one():
            return str(await super().execute(query, *args, timeout=timeout))

    async def executemany(self, *args: Any, **options: Any) -> None:
        """As the base class has it, in a transaction."""
        async with self._in_one():
            await super().executemany(*args, **options)

    async def fetch(self, *args: Any, **options: Any) -> Any:
        """As the base class has it, in a transaction."""
        async with self._in_one():
            return await super().fetch(*args, **options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        """As the base class has it, in a transaction."""
        async with self._in_one():
            return await super().fetchrow(*args, **options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        """As the base class has it, in a transaction."""
        async with self._in_one():
            return await super().fetchval(*args, **options)

    def _in_one(self) -> AbstractAsyncContextManager[Any]:
        """A transaction, unless one is open."""
        return nullcontext() if self.is_in_transaction() else self.transaction()
