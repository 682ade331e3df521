"""The server's half of the simulated database: tables, sessions, transactions, locks that are waited for.

A statement is one Python function over rows. It runs at once and whole; where a row it needs is locked, it is undone
and run again when the row is free, on what the rows are by then: read committed. What a session writes lies in a
layer of its own until it commits, so nobody else sees it, and a session that ends takes it along.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from orchestrator.storage.sessions import _LIMITS
from simulation.database_locks import Blocked, Locks, Mode, Target
from simulation.database_rows import MISSING, Row

# The limits our sessions bring with them, and the server's own on a deadlock.
LOCK_TIMEOUT_SECONDS = float(_LIMITS["lock_timeout"].rstrip("s"))
IDLE_IN_TRANSACTION = timedelta(seconds=float(_LIMITS["idle_in_transaction_session_timeout"].rstrip("s")))
DEADLOCK_SECONDS = 1.0

Values = dict[str, Any]
Answer = tuple[Sequence[Row], str]
Handler = Callable[["Session", tuple[Any, ...]], Answer]
CommitHook = Callable[[str, Values | None, Values | None], None]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement the server knows: its *name* is what the wire is told."""

    name: str
    run: Handler


class Table:
    """Committed rows by key, in the order in which they were inserted."""

    __slots__ = ("by_clip", "name", "next_id", "rows")

    def __init__(self, name: str, has_index_by_clip: bool = False) -> None:
        self.name = name
        self.rows: dict[Any, Values] = {}
        self.next_id = 1
        self.by_clip: dict[str, dict[Any, Values]] | None = {} if has_index_by_clip else None

    def set(self, key: Any, row: Values | None) -> None:
        before = self.rows.get(key)
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row
        if self.by_clip is not None:
            if before is not None:
                self.by_clip[before["clip_id"]].pop(key, None)
            if row is not None:
                self.by_clip.setdefault(row["clip_id"], {})[key] = row


class Waiting:
    """A statement that waits for a lock."""

    __slots__ = ("args", "future", "mode", "session", "statement", "target", "timers")

    def __init__(self, session: Session, statement: Statement, args: tuple[Any, ...], blocked: Blocked) -> None:
        self.session = session
        self.statement = statement
        self.args = args
        self.target = blocked.target
        self.mode = blocked.mode
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.timers: list[asyncio.TimerHandle] = []


class Session:
    """One backend. *client* is told of notifications and of the end."""

    def __init__(self, server: Server, node: str, pid: int) -> None:
        self.server = server
        self.tables = server.tables
        self.node = node
        self.pid = pid
        self.is_over = False
        self.in_transaction = False
        self.has_failed = False
        self.began_at: datetime = server.clock()
        self.idle_since: datetime | None = None
        self.changes: dict[str, dict[Any, Values | None]] = {}
        self.undo: list[tuple[Any, ...]] = []
        self.savepoints: list[tuple[str, int, int]] = []
        self.notices: list[tuple[str, str]] = []
        self.channels: dict[str, None] = {}
        self.waiting: Waiting | None = None
        self.on_notice: Callable[[int, str, str], None] = lambda *_: None
        self.on_end: Callable[[], None] = lambda: None

    # --- What statements read and write ------------------------------------------------------------------

    def now(self) -> datetime:
        """``clock_timestamp()``."""
        return self.server.clock()

    def get(self, table: str, key: Any) -> Values | None:
        """The row as this session sees it."""
        mine = self.changes.get(table)
        if mine is not None and key in mine:
            return mine[key]
        return self.tables[table].rows.get(key)

    def all(self, table: str) -> Iterable[Values]:
        """Every row this session sees, in the order of their insertion; not to be changed meanwhile."""
        rows = self.tables[table].rows
        mine = self.changes.get(table)
        return _layered(rows, mine, None) if mine else rows.values()

    def of_clip(self, table: str, clip_id: str) -> Iterable[Values]:
        """Every row of one clip that this session sees; as `all`."""
        by_clip = self.tables[table].by_clip
        assert by_clip is not None
        rows = by_clip.get(clip_id, {})
        mine = self.changes.get(table)
        return _layered(rows, mine, clip_id) if mine else rows.values()

    def lock(self, table: str, key: Any, mode: Mode) -> None:
        """Take the lock, or stop here until it can be had."""
        if not self.try_lock(table, key, mode):
            raise Blocked((table, key), mode)

    def try_lock(self, table: str, key: Any, mode: Mode) -> bool:
        """Take the lock unless somebody stands in the way: SKIP LOCKED."""
        target: Target = (table, key)
        locks = self.server.locks
        if target in locks.holders:
            self.server.end_idle(locks.in_the_way(self, target, mode))
            if locks.in_the_way(self, target, mode):
                return False
        before = locks.take(self, target, mode)
        if before is None or before < mode:
            self.undo.append(("lock", target, before))
        return True

    def put(self, table: str, key: Any, row: Values | None) -> None:
        """Write, change or delete a row of which this session holds the lock."""
        mine = self.changes.setdefault(table, {})
        self.undo.append(("row", table, key, mine.get(key, MISSING)))
        mine[key] = row

    def next_id(self, table: str) -> int:
        """The next number of an identity column; a rollback leaves a gap."""
        of = self.tables[table]
        of.next_id += 1
        return of.next_id - 1

    def notify(self, channel: str, payload: str) -> None:
        """Tell listeners at the commit; the same told twice is told once."""
        if (channel, payload) not in self.notices:
            self.notices.append((channel, payload))

    # --- Transactions ------------------------------------------------------------------------------------

    def undo_to(self, mark: int, *, keeps_locks: bool = False) -> None:
        """Take back what was done since *mark*."""
        kept = []
        while len(self.undo) > mark:
            entry = self.undo.pop()
            if entry[0] == "row":
                mine = self.changes[entry[1]]
                if entry[3] is MISSING:
                    del mine[entry[2]]
                else:
                    mine[entry[2]] = entry[3]
            elif keeps_locks:
                kept.append(entry)
            else:
                self.server.unlock(self, entry[1], entry[2])
        self.undo += reversed(kept)

    def reset_transaction(self) -> None:
        self.in_transaction = self.has_failed = False
        self.idle_since = None
        self.changes = {}
        self.undo = []
        self.savepoints = []
        self.notices = []


class Server:
    """Tables, sessions and locks. *clock* is the server's own, aware."""

    def __init__(self, clock: Callable[[], datetime], tables: Sequence[Table]) -> None:
        self.clock = clock
        self.tables = {table.name: table for table in tables}
        self.locks = Locks()
        self.sessions: list[Session] = []
        self.on_commit: CommitHook | None = None
        #: The node whose transaction commits while `on_commit` is called.
        self.committing: str | None = None
        self.refuses_until: datetime | None = None
        self.lock_timeout_seconds = LOCK_TIMEOUT_SECONDS
        self.idle_in_transaction = IDLE_IN_TRANSACTION
        self.world = Context()
        self._pids = 1000
        self._ready: deque[Waiting] = deque()
        self._is_busy = False

    # --- Sessions ----------------------------------------------------------------------------------------

    def open(self, node: str) -> Session:
        """A new session, or the refusal of a server that is away."""
        if self.refuses_until is not None:
            if self.clock() < self.refuses_until:
                raise ConnectionRefusedError(111, "Connect call failed")
            self.refuses_until = None
        self._pids += 1
        session = Session(self, node, self._pids)
        self.sessions.append(session)
        return session

    def end(self, session: Session, *, tells_client: bool = True) -> None:
        """End a session: what it had not committed is undone, its locks are free, nothing is sent to it."""
        if session.is_over:
            return
        session.is_over = True
        self.sessions.remove(session)
        waiting = session.waiting
        if waiting is not None:
            self._stop_waiting(waiting)
            if tells_client:
                _fail(waiting.future, asyncpg.ConnectionDoesNotExistError(_LOST_WORDS))
        self._rollback(session)
        session.channels = {}
        if tells_client:
            session.on_end()
        self._drain()

    def end_idle(self, holders: Sequence[Session]) -> None:
        """End those that have been idle in a transaction for too long."""
        now = self.clock()
        for session in holders:
            if session.idle_since is not None and now - session.idle_since >= self.idle_in_transaction:
                self.end(session)

    # --- Statements --------------------------------------------------------------------------------------

    def submit(self, session: Session, statement: Statement, args: tuple[Any, ...]) -> Answer | asyncio.Future[Answer]:
        """Run a statement; a future while it waits for a lock. Raises what PostgreSQL would."""
        if session.idle_since is not None:
            self.end_idle((session,))
        if session.is_over:
            raise asyncpg.ConnectionDoesNotExistError(_LOST_WORDS)
        session.idle_since = None
        self._is_busy = True
        try:
            return self._attempt(session, statement, args)
        except Blocked as blocked:
            return self._wait(session, statement, args, blocked)
        finally:
            self._is_busy = False
            if self._ready:
                self._drain()

    def cancel(self, session: Session) -> None:
        """Stop the statement that waits for a lock, as a cancel request does."""
        if session.waiting is not None:
            self._fail_waiting(session.waiting, asyncpg.QueryCanceledError("canceling statement due to user request"))
            self._drain()

    def _attempt(self, session: Session, statement: Statement, args: tuple[Any, ...]) -> Answer:
        if session.has_failed:
            raise asyncpg.InFailedSQLTransactionError(
                "current transaction is aborted, commands ignored until end of transaction block"
            )
        mark = len(session.undo)
        notices = len(session.notices)
        if not session.in_transaction:
            session.began_at = self.clock()
        try:
            answer = statement.run(session, args)
        except Blocked:
            session.undo_to(mark, keeps_locks=True)
            del session.notices[notices:]
            raise
        except asyncpg.PostgresError:
            self._fail(session)
            raise
        if session.in_transaction:
            session.idle_since = self.clock()
        else:
            self.commit(session)
        return answer

    def _fail(self, session: Session) -> None:
        if session.in_transaction:
            # The innermost block is over at once, its locks with it; only its end is still to be said.
            session.has_failed = True
            session.undo_to(session.savepoints[-1][1] if session.savepoints else 0)
            session.idle_since = self.clock()
        else:
            self._rollback(session)

    # --- Transactions ------------------------------------------------------------------------------------

    def control(self, session: Session, verb: str, name: str = "") -> None:
        """BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE and ROLLBACK TO. Raises what PostgreSQL would."""
        if session.idle_since is not None:
            self.end_idle((session,))
        if session.is_over:
            raise asyncpg.ConnectionDoesNotExistError(_LOST_WORDS)
        if verb == "begin":
            session.in_transaction = True
            session.began_at = session.idle_since = self.clock()
        elif verb == "commit" and not session.has_failed:
            self.commit(session)
        elif verb in ("commit", "rollback"):  # a failed transaction's COMMIT undoes it, without a word
            self._rollback(session)
        elif verb == "rollback_to":
            place = self._savepoint(session, name)
            _, mark, notices = session.savepoints[place]
            del session.savepoints[place + 1 :]
            session.undo_to(mark)
            del session.notices[notices:]
            session.has_failed = False
        elif session.has_failed:
            raise asyncpg.InFailedSQLTransactionError(
                "current transaction is aborted, commands ignored until end of transaction block"
            )
        elif verb == "savepoint":
            session.savepoints.append((name, len(session.undo), len(session.notices)))
        else:
            del session.savepoints[self._savepoint(session, name) :]
        if session.in_transaction:
            session.idle_since = self.clock()
        self._drain()

    def _savepoint(self, session: Session, name: str) -> int:
        for place in reversed(range(len(session.savepoints))):
            if session.savepoints[place][0] == name:
                return place
        raise asyncpg.InvalidSavepointSpecificationError(f"savepoint {name!r} does not exist")

    def commit(self, session: Session) -> None:
        """Make what the session has written everybody's, tell the hook and the listeners, free the locks."""
        written = []
        for name, changes in session.changes.items():
            table = self.tables[name]
            for key, row in changes.items():
                before = table.rows.get(key)
                if before is not row:
                    table.set(key, row)
                    written.append((name, before, row))
        notices, undo = session.notices, session.undo
        session.reset_transaction()
        if self.on_commit is not None and written:
            self.committing = session.node
            for name, before, row in written:
                self.on_commit(name, before, row)
            self.committing = None
        self._free(session, undo)
        for channel, payload in notices:
            for other in self.sessions:
                if channel in other.channels:
                    other.on_notice(session.pid, channel, payload)

    def _rollback(self, session: Session) -> None:
        undo = session.undo
        session.reset_transaction()
        self._free(session, undo)

    def _free(self, session: Session, undo: list[tuple[Any, ...]]) -> None:
        for entry in undo:
            if entry[0] == "lock" and entry[2] is None:
                self.unlock(session, entry[1], None)

    # --- Waiting for locks -------------------------------------------------------------------------------

    def unlock(self, session: Session, target: Target, mode: Mode | None) -> None:
        """Return to *mode*, and have those who wait for the lock try again soon."""
        for waiting in self.locks.give_back(session, target, mode):
            if waiting not in self._ready:
                self._ready.append(waiting)

    def _wait(
        self, session: Session, statement: Statement, args: tuple[Any, ...], blocked: Blocked
    ) -> asyncio.Future[Answer]:
        waiting = Waiting(session, statement, args, blocked)
        self._enqueue(waiting)
        return waiting.future

    def _enqueue(self, waiting: Waiting) -> None:
        waiting.session.waiting = waiting
        self.locks.queues.setdefault(waiting.target, deque()).append(waiting)
        loop = waiting.future.get_loop()
        timeout = asyncpg.LockNotAvailableError("canceling statement due to lock timeout")
        waiting.timers = [
            loop.call_later(DEADLOCK_SECONDS, self._look_for_deadlock, waiting, context=self.world),
            loop.call_later(self.lock_timeout_seconds, self._give_up, waiting, timeout, context=self.world),
        ]
        for holder in self.locks.in_the_way(waiting.session, waiting.target, waiting.mode):
            if holder.idle_since is not None:
                left = (holder.idle_since + self.idle_in_transaction - self.clock()).total_seconds()
                waiting.timers.append(loop.call_later(left, self.end_idle, (holder,), context=self.world))

    def _look_for_deadlock(self, waiting: Waiting) -> None:
        if waiting.session.waiting is waiting and self.locks.is_deadlocked(waiting.session):
            self._give_up(waiting, asyncpg.DeadlockDetectedError("deadlock detected"))

    def _give_up(self, waiting: Waiting, problem: asyncpg.PostgresError) -> None:
        if waiting.session.waiting is waiting:
            self._fail_waiting(waiting, problem)
            self._drain()

    def _fail_waiting(self, waiting: Waiting, problem: asyncpg.PostgresError) -> None:
        self._stop_waiting(waiting)
        self._fail(waiting.session)
        _fail(waiting.future, problem)

    def _stop_waiting(self, waiting: Waiting) -> None:
        waiting.session.waiting = None
        for timer in waiting.timers:
            timer.cancel()
        queue = self.locks.queues[waiting.target]
        queue.remove(waiting)
        if not queue:
            del self.locks.queues[waiting.target]

    def _drain(self) -> None:
        """Have everybody try again who waited for what is free now, in the order in which they came."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._ready:
                waiting = self._ready.popleft()
                if waiting.session.waiting is waiting:
                    self._try_again(waiting)
        finally:
            self._is_busy = False

    def _try_again(self, waiting: Waiting) -> None:
        if self.locks.in_the_way(waiting.session, waiting.target, waiting.mode):
            return
        self._stop_waiting(waiting)
        try:
            answer = self._attempt(waiting.session, waiting.statement, waiting.args)
        except Blocked as blocked:
            waiting.target, waiting.mode = blocked.target, blocked.mode
            self._enqueue(waiting)
        except asyncpg.PostgresError as problem:
            _fail(waiting.future, problem)
        else:
            if not waiting.future.done():
                waiting.future.set_result(answer)


def _layered(rows: Mapping[Any, Values], mine: Mapping[Any, Values | None], clip_id: str | None) -> Iterator[Values]:
    """Committed *rows* with a session's own changes over them; of one clip, if it is named."""
    for key, row in rows.items():
        shown = mine.get(key, row)
        if shown is not None:
            yield shown
    for key, own in mine.items():
        if own is not None and key not in rows and (clip_id is None or own["clip_id"] == clip_id):
            yield own


_LOST_WORDS = "connection was closed in the middle of operation"


def _fail(future: asyncio.Future[Any], problem: BaseException) -> None:
    if not future.done():
        future.set_exception(problem)
        future.exception()  # its client may be gone: nobody has to look
