"""The two databases behind one face: sessions by name, open transactions, and the rows as they are committed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Protocol

from simulation.database import PromptWire, SimulatedDatabase

from orchestrator.monitor.leadership import Term
from orchestrator.storage.clips import Clip
from orchestrator.storage.pool import connect
from twins.by_hand import BY_HAND, copy_clips

#: Who acts, and in which role; the owner's statements are those of somebody who repairs, or of a mistake.
SESSIONS = {
    "api": "orchestrator_api",
    "web": "orchestrator_api",
    "first": "orchestrator_monitor",
    "second": "orchestrator_monitor",
    "owner": None,
}
# Nobody but the test itself can free what a step waits for, so waiting longer shows nothing.
LOCK_TIMEOUT_SECONDS = 0.015
# However slow the machine is, no transaction ends by itself.
_FOR_EVER = timedelta(days=1)

_SNAPSHOT = """
SELECT json_build_object(
    'clips', (SELECT coalesce(json_agg(c ORDER BY c.id), '[]') FROM clips AS c),
    'events', (SELECT coalesce(json_agg(e ORDER BY e.id), '[]') FROM clip_events AS e),
    'signals', (SELECT coalesce(json_agg(s ORDER BY s.id), '[]') FROM clip_signals AS s),
    'lease', (SELECT row_to_json(l) FROM monitor_lease AS l))::text
"""
_EMPTY = """
DELETE FROM clips; DELETE FROM clip_events; DELETE FROM clip_signals;
UPDATE monitor_lease SET holder = NULL, epoch = 0, taken_at = NULL, round_at = NULL, expires_at = '-infinity';
"""
_TIMES = (
    "at", "created_at", "updated_at", "uploaded_at", "completed_at", "upload_expires_at", "status_since", "look_at",
    "taken_at", "expires_at", "round_at",
)  # fmt: skip

Snapshot = dict[str, Any]


class OnePool:
    """A pool of one connection, for what wants a pool."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> AsyncIterator[Any]:
        yield self._connection


class Side(Protocol):
    """One of the two. *pictures* are clips as they were read once, *terms* what the monitors were granted."""

    sessions: dict[str, Any]
    transactions: dict[str, list[Any]]
    pictures: dict[str, Clip]
    terms: dict[str, Term]

    async def begin_anew(self) -> None:
        """Nothing in the tables, nobody leads, no transaction is open."""

    async def kill(self, name: str) -> None:
        """End a session from outside, and open it anew."""

    async def copy_in(self, name: str, records: list[tuple[Any, ...]]) -> str:
        """COPY clips (id, cloudflare_uid, processing_details)."""

    async def stamp(self) -> object:
        """Another one as soon as anything has been committed."""

    async def snapshot(self) -> Snapshot:
        """Everything that is committed."""


class _Memory:
    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}
        self.transactions: dict[str, list[Any]] = {}
        self.pictures: dict[str, Clip] = {}
        self.terms: dict[str, Term] = {}

    def forget(self) -> None:
        self.transactions = {name: [] for name in SESSIONS}
        self.pictures = {}
        self.terms = {}


class PostgresSide(_Memory):
    """A migrated database on a real server."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn
        self._watcher: Any = None

    async def open(self) -> None:
        self._watcher = await connect(self._dsn, None, "watcher")
        for name in SESSIONS:
            await self._connect(name)
        self.forget()

    async def close(self) -> None:
        for connection in (*self.sessions.values(), self._watcher):
            if connection is not None:
                connection.terminate()

    async def begin_anew(self) -> None:
        for name, connection in self.sessions.items():
            if connection.is_closed():
                await self._connect(name)
                continue
            for transaction in reversed(self.transactions[name]):
                await transaction.rollback()
        self.forget()
        await self._watcher.execute(_EMPTY)

    async def kill(self, name: str) -> None:
        pid = self.sessions[name].get_server_pid()
        await self._watcher.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        self.sessions[name].terminate()
        self.transactions[name] = []
        await self._connect(name)

    async def copy_in(self, name: str, records: list[tuple[Any, ...]]) -> str:
        columns = ("id", "cloudflare_uid", "processing_details")
        return str(await self.sessions[name].copy_records_to_table("clips", records=records, columns=columns))

    async def stamp(self) -> object:
        return await self._watcher.fetchval("SELECT pg_current_snapshot()::text")

    async def snapshot(self) -> Snapshot:
        said = json.loads(await self._watcher.fetchval(_SNAPSHOT))
        for rows in (said["clips"], said["events"], said["signals"], [said["lease"]]):
            for row in rows:
                for name in _TIMES:
                    if row.get(name) is not None:
                        text = row[name]
                        row[name] = None if text == "-infinity" else datetime.fromisoformat(text)
        return dict(said)

    async def _connect(self, name: str) -> None:
        self.sessions[name] = await connect(self._dsn, SESSIONS[name], name)
        await self._set_limits(self.sessions[name])

    async def _set_limits(self, connection: Any) -> None:
        await connection.execute(
            f"SET lock_timeout = {int(LOCK_TIMEOUT_SECONDS * 1000)}; SET idle_in_transaction_session_timeout = 0"
        )


class SimulatedSide(_Memory):
    """The simulated database, on the wall clock."""

    def __init__(self) -> None:
        super().__init__()
        self._database: Any = None
        self._commits = 0

    async def begin_anew(self) -> None:
        self._database = SimulatedDatabase(lambda: datetime.now(UTC), LOCK_TIMEOUT_SECONDS, _FOR_EVER)
        self._database.statements |= BY_HAND
        self._database.on_commit = self._committed
        self.forget()
        for name in SESSIONS:
            self.sessions[name] = await self._database.connect(name, PromptWire())

    async def kill(self, name: str) -> None:
        self._database.terminate(name)
        self.transactions[name] = []
        self.sessions[name] = await self._database.connect(name, PromptWire())

    async def copy_in(self, name: str, records: list[tuple[Any, ...]]) -> str:
        return await copy_clips(self.sessions[name], records)

    def _committed(self, *_: object) -> None:
        self._commits += 1

    async def stamp(self) -> object:
        return self._commits

    async def snapshot(self) -> Snapshot:
        rows = self._database.rows
        return {
            "clips": [_plain(row) for row in sorted(rows("clips"), key=itemgetter("id"))],
            "events": [_plain(row) for row in sorted(rows("clip_events"), key=itemgetter("id"))],
            "signals": [_plain(row) for row in sorted(rows("clip_signals"), key=itemgetter("id"))],
            "lease": _plain(self._database.row("monitor_lease", True)) | {"singleton": True},
        }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float(value) if name == "progress" and value is not None else value for name, value in row.items()}
