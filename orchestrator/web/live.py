"""Changes as they happen: one database connection listens for the whole process and feeds every open stream.

Everything is read by one task, one statement after the other, so that within a stream a clip never goes back: not
live, not after a reconnect. A notification carries ids only; what is sent is the row as it is now. Whenever the
connection was lost, it listens again before it sweeps, so that nothing falls between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import structlog

from orchestrator.storage.pool import ACQUIRE_TIMEOUT_SECONDS, DATABASE_AWAY, CannotListen
from orchestrator.web.streaming import Batch, ChunkQueue
from signals import CHANGED_CHANNEL

log = structlog.get_logger(__name__)

# Longer than a batch of the monitor takes, shorter than an eye notices.
COALESCE_SECONDS = 0.1
# Chunks a client may lag behind; at ten a second that is six seconds. Then it is cut off and reconnects.
QUEUE_MAX = 64
# Clips one stream starts with when it follows all; what is older is in the list.
SNAPSHOT_MAX = 500
# Ids noted between two reads. Beyond it a sweep costs less than a longer list.
_DIRTY_MAX = 10_000
# Event ids are given out before their transaction commits, so a lower one may appear after a higher one was seen.
_OVERLAP = 1000
# The oldest history line a resumed stream is filled up from, so that a week-old id does not read a week.
_RESUME_MAX = 20_000
_BATCH = 500
_PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
# How often a silent listening connection is asked whether it is still there; its loss must not go unseen.
# Until it is noticed, open streams are told nothing.
_PROBE_SECONDS = 5.0
_PROBE_TIMEOUT_SECONDS = 3.0

_COLUMNS = (
    "c.id, c.pipeline, c.status, c.progress::float8 AS progress, c.error_message, c.updated_at, c.attempt, c.version"
)
_LAST_EVENT = "(SELECT max(e.id) FROM clip_events e WHERE e.clip_id = c.id) AS event_id"
_CHANGED = f"SELECT {_COLUMNS}, {_LAST_EVENT} FROM clips c WHERE c.id = ANY($1::text[])"
# everybody's_start: unfinished clips, and those with history past the id the client has seen
_RECENT = f"""
WITH recent AS (
    SELECT clip_id FROM clip_events WHERE id > greatest($1::bigint, (SELECT max(id) FROM clip_events) - {_RESUME_MAX})
), wanted AS (
    (SELECT id FROM clips WHERE look_at IS NOT NULL ORDER BY id DESC LIMIT {SNAPSHOT_MAX})
    UNION
    (SELECT DISTINCT clip_id FROM recent ORDER BY clip_id DESC LIMIT {SNAPSHOT_MAX})
)
SELECT {_COLUMNS}, {_LAST_EVENT} FROM clips c JOIN wanted USING (id) ORDER BY c.id
"""
_NEWEST_EVENT = "SELECT coalesce(max(id), 0) FROM clip_events"


@dataclass(eq=False)
class Client:
    """One open stream: what it follows (None: every clip), and what waits to be sent to it."""

    clip_ids: frozenset[str] | None
    last_event_id: int
    cut: Callable[[], None]
    queue: ChunkQueue = field(default_factory=lambda: ChunkQueue(QUEUE_MAX))
    needs_start: bool = True
    # Of followed clips alone: the version sent last. Their number is bounded by the call.
    sent: dict[str, int] = field(default_factory=dict)

    def wants(self, clip_id: str) -> bool:
        """Whether a change of that clip is for this client."""
        return not self.needs_start and (self.clip_ids is None or clip_id in self.clip_ids)

    def give(self, chunk: bytes | None) -> bool:
        """Queue *chunk*; False when the client is too slow to be kept. None ends the stream."""
        return self.queue.put(chunk)


class LiveFeed:
    """The one reader, and the clients it feeds. *connect* opens the connection that listens."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        on_cut: Callable[[], None] = lambda: None,
        probe_seconds: float = _PROBE_SECONDS,
    ) -> None:
        self._pool = pool
        self._connect = connect
        self._on_cut = on_cut
        self._probe_seconds = probe_seconds
        self._clients: set[Client] = set()
        self._dirty: set[str] = set()
        self._newest_event_id = 0
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_closed = False

    @property
    def client_count(self) -> int:
        """Open streams."""
        return len(self._clients)

    def start(self) -> None:
        """Begin to listen and to feed."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="live-listener"),
            asyncio.create_task(self._feed(), name="live-feed"),
        ]

    async def close(self) -> None:
        """End every stream and stop listening."""
        self.is_closed = True
        for client in list(self._clients):
            if not client.give(None):
                client.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def subscribed(
        self, clip_ids: frozenset[str] | None, last_event_id: int, cut: Callable[[], None]
    ) -> AsyncIterator[Client]:
        """A client that is fed until the block ends; *cut* is called when it is too slow."""
        client = Client(clip_ids, last_event_id, cut)
        self._clients.add(client)
        self._work.set()
        try:
            yield client
        finally:
            self._clients.discard(client)

    def note(self, clip_ids: Iterable[str]) -> None:
        """These clips have changed."""
        if not self._clients:
            return
        self._dirty.update(clip_ids)
        if len(self._dirty) > _DIRTY_MAX:
            self.sweep()
        self._work.set()

    def sweep(self) -> None:
        """Something may have been missed: everybody starts anew from where this process had got to."""
        self._dirty.clear()
        for client in self._clients:
            if not client.needs_start:
                client.needs_start = True
                client.last_event_id = self._newest_event_id
        self._work.set()

    async def _listen(self) -> None:
        """Hold the listening connection; when it is lost, listen again and sweep."""
        failures = 0
        while True:
            try:
                connection = await self._connect()
            except DATABASE_AWAY as problem:
                failures += 1
                if failures == 1:
                    log.warning("live changes cannot be heard; pages poll", reason=type(problem).__name__)
                if isinstance(problem, CannotListen):
                    self.sweep()  # nobody will ever tell: streams live on looking
                await asyncio.sleep(_PAUSES_SECONDS[min(failures, len(_PAUSES_SECONDS)) - 1])
                continue
            try:
                lost = asyncio.Event()
                connection.add_termination_listener(lambda *_: lost.set())  # noqa: B023  (of this very turn)
                await connection.add_listener(CHANGED_CHANNEL, self._heard)
                if failures:
                    log.info("live changes are heard again")
                failures = 0
                self.sweep()
                await self._probe_until(lost, connection)
            except DATABASE_AWAY:
                failures += 1
            finally:
                connection.terminate()
            await asyncio.sleep(_PAUSES_SECONDS[0])

    async def _probe_until(self, lost: asyncio.Event, connection: asyncpg.Connection) -> None:
        while True:
            try:
                async with asyncio.timeout(self._probe_seconds):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=_PROBE_TIMEOUT_SECONDS)
            else:
                return

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self.note(clip_id for clip_id in str(payload).split(",") if clip_id)

    async def _feed(self) -> None:
        """Read what changed and hand it out, for as long as the process runs."""
        while True:
            await self._work.wait()
            self._work.clear()
            dirty, self._dirty = self._dirty, set()
            try:
                await self._start_clients()
                await self._send_changes(dirty)
            except DATABASE_AWAY as problem:
                log.warning("changes could not be read; trying again", reason=type(problem).__name__)
                self._dirty |= dirty
                self._work.set()
                await asyncio.sleep(1)
            except asyncpg.PostgresError:
                # The edge of this task: without it every stream would stand still unseen.
                log.exception("changes could not be read; trying again")
                self._work.set()
                await asyncio.sleep(5)
            await asyncio.sleep(COALESCE_SECONDS)

    async def _start_clients(self) -> None:
        """Send newcomers the present state of what they follow."""
        newcomers = [client for client in self._clients if client.needs_start]
        if not newcomers:
            return
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            newest = await connection.fetchval(_NEWEST_EVENT)
            self._newest_event_id = max(self._newest_event_id, newest)
            followed = set().union(*(client.clip_ids for client in newcomers if client.clip_ids is not None))
            rows = {row["id"]: row for row in await self._read(connection, followed)}
            # After an outage many come back at once with the same id: one read serves them all.
            recent: dict[int, list[Mapping[str, Any]]] = {}
            batch = Batch(self._newest_event_id)
            for client in newcomers:
                if client.clip_ids is not None:
                    mine = [rows[clip_id] for clip_id in client.clip_ids if clip_id in rows]
                else:
                    # A newcomer without an id of its own starts now.
                    after = client.last_event_id - _OVERLAP if client.last_event_id else self._newest_event_id
                    if after not in recent:
                        recent[after] = await connection.fetch(_RECENT, after)
                    mine = recent[after]
                client.needs_start = False
                self._hand_out(client, mine, batch)

    async def _send_changes(self, dirty: set[str]) -> None:
        """Send the present state of *dirty* clips to those who follow them."""
        wanted = {clip_id for clip_id in dirty if any(client.wants(clip_id) for client in self._clients)}
        if not wanted:
            return
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            rows = await self._read(connection, wanted)
        self._newest_event_id = max([self._newest_event_id, *(row["event_id"] or 0 for row in rows)])
        batch = Batch(self._newest_event_id)
        everything = batch.chunk(rows)
        for client in list(self._clients):
            if client.clip_ids is None and not client.needs_start:
                self._give(client, everything)
            else:
                self._hand_out(client, [row for row in rows if client.wants(row["id"])], batch)

    async def _read(self, connection: asyncpg.Connection, clip_ids: set[str]) -> list[Mapping[str, Any]]:
        ordered = sorted(clip_ids)
        rows: list[Mapping[str, Any]] = []
        for start in range(0, len(ordered), _BATCH):
            rows += await connection.fetch(_CHANGED, ordered[start : start + _BATCH])
        return rows

    def _hand_out(self, client: Client, rows: list[Mapping[str, Any]], batch: Batch) -> None:
        if client.clip_ids is not None:
            rows = [row for row in rows if client.sent.get(row["id"], 0) < row["version"]]
            client.sent |= {row["id"]: row["version"] for row in rows}
        if rows:
            self._give(client, batch.chunk(rows))

    def _give(self, client: Client, chunk: bytes) -> None:
        if not client.give(chunk):
            log.info("a slow event stream was cut off")
            self._on_cut()
            self._clients.discard(client)
            client.cut()
