"""A database for the simulation: in memory, on a clock that is handed in, with the faults of a wire.

It runs the program's own statements, by their text, each as a function over rows; what the tables' triggers and
checks do is done here, too. That all of it does what PostgreSQL does is what the lane *sql* proves, by taking the same
steps in both.

    database = SimulatedDatabase(clock)
    pool = database.pool("monitor-1", wire)          # as asyncpg's
    database.on_commit = lambda table, before, after: ...
    database.drop("monitor-1")                       # the process was killed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from simulation.database_client import Connection, Pool, PromptWire, UnknownStatement, Wire, open_connection
from simulation.database_law import insert_clip
from simulation.database_server import IDLE_IN_TRANSACTION, LOCK_TIMEOUT_SECONDS, CommitHook, Server, Table, Values
from simulation.database_statements import known_statements

__all__ = ["PromptWire", "SimulatedDatabase", "UnknownStatement", "Wire"]

_STATEMENTS = known_statements()


class SimulatedDatabase:
    """One server with the tables of the migrations. *clock* is its wall clock: aware, in UTC."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
        idle_in_transaction: timedelta = IDLE_IN_TRANSACTION,
    ) -> None:
        self._server = Server(
            clock,
            (
                Table("clips"),
                Table("clip_events", has_index_by_clip=True),
                Table("clip_signals", has_index_by_clip=True),
                Table("monitor_lease"),
                Table("call_budget"),
                Table("transfers"),
                Table("transfer_parts"),
                Table("idempotency_keys"),
                Table("uploads"),
                Table("artifacts"),
                Table("provider_asks"),
            ),
        )
        self._server.lock_timeout_seconds = lock_timeout_seconds
        self._server.idle_in_transaction = idle_in_transaction
        # None stands for the beginning of time: nobody has ever led.
        lease = {"holder": None, "epoch": 0, "taken_at": None, "expires_at": None, "round_at": None}
        self._server.tables["monitor_lease"].set(True, lease)
        self.statements = dict(_STATEMENTS)

    def pool(self, node: str, wire: Wire, max_size: int = 10) -> Pool:
        """A pool of connections from *node*."""
        return Pool(lambda: self.connect(node, wire), max_size)

    async def connect(self, node: str, wire: Wire) -> Connection:
        """One connection from *node*."""
        return await open_connection(self._server, self.statements, node, wire)

    # --- For the world around it -------------------------------------------------------------------------

    @property
    def on_commit(self) -> CommitHook | None:
        """Called with (table, before, after) for each row a commit changes: None stands for no row.

        The rows are the tables' own: to be read and kept, never changed.
        """
        return self._server.on_commit

    @on_commit.setter
    def on_commit(self, hook: CommitHook | None) -> None:
        self._server.on_commit = hook

    @property
    def committing(self) -> str | None:
        """The node whose commit `on_commit` is being told of."""
        return self._server.committing

    def drop(self, node: str) -> None:
        """End the sessions of a node that is no more: undone what was not committed, locks free, listeners gone."""
        for session in [one for one in self._server.sessions if one.node == node]:
            self._server.end(session, tells_client=False)

    def terminate(self, node: str | None = None) -> None:
        """End the sessions of *node* (all when None), as pg_terminate_backend does: their clients find out."""
        for session in [one for one in self._server.sessions if node in (None, one.node)]:
            self._server.end(session)

    def refuse(self, until: datetime) -> None:
        """Be away until that moment of the clock: sessions end, new ones are refused, what was committed stays."""
        self._server.refuses_until = until
        self.terminate()

    def rows(self, table: str) -> Iterable[Mapping[str, Any]]:
        """The committed rows of *table*, in the order of their insertion."""
        return self._server.tables[table].rows.values()

    def row(self, table: str, key: object) -> Values | None:
        """One committed row: a clip by its id, the lease by True, the others by their primary keys."""
        return self._server.tables[table].rows.get(key)

    def put(self, table: str, key: object, row: Values | None) -> None:
        """Put a row into *table* before a run begins, or take one away (None) that nobody asks for any more."""
        self._server.tables[table].set(key, row)

    def insert_clip(self, given: Mapping[str, Any]) -> None:
        """Make a clip before a run begins, triggers and all."""
        session = self._server.open("ground")
        insert_clip(session, given)
        self._server.commit(session)
        self._server.end(session)

    @property
    def sessions(self) -> list[str]:
        """The nodes of the open sessions."""
        return [session.node for session in self._server.sessions]
