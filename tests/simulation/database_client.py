"""The client's half of the simulated database: connections, transactions and pools as asyncpg has them.

Between client and server is the wire: each statement asks it twice, on its way there and on its way back. What it
raises on the way there means that the statement was never run (or is run later, when the wire says so); on the way
back, that it was run and nobody heard of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

import asyncpg

from orchestrator.storage.pool import COMMAND_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS, _Loan
from simulation.database_rows import Row
from simulation.database_server import Answer, Server, Session, Statement
from simulation.database_trips import Trip

_PING = Statement("ping", lambda *_: ([], "SELECT 0"))


class Wire(Protocol):
    """What lies between one node and the database. *name* is the statement's: ``write_moves``, ``commit``, ``connect``.

    Raising `TimeoutError` leaves the connection as it is; any other error of the wire ends it.
    """

    async def request(self, name: str) -> None:
        """Return when the statement has reached the server. Raising: it has not."""

    async def reply(self, name: str) -> None:
        """Return when the answer has reached the client. Raising: it was run, but the answer is lost."""

    def arrives_after(self, name: str) -> float | None:
        """After `request` raised or was cancelled: the seconds until the statement is run all the same; None: never."""

    def notice_after(self, channel: str) -> float | None:
        """Seconds that a notification takes; None: it is lost."""

    def sets_out(self, name: str) -> float | None:
        """Asked first, for a short cut: the seconds to the server of a statement that nothing will befall.

        0.0: it takes no time there and back. None: `request` and `reply` have to be asked.
        """

    def comes_back(self, name: str) -> float:
        """The seconds of the way back, where `sets_out` gave those of the way there."""


class PromptWire:
    """A wire without latency or faults; a base for others."""

    def sets_out(self, name: str) -> float | None:
        return None

    def comes_back(self, name: str) -> float:
        # Asked only after a way out that took a known time, and `sets_out` names none.
        raise NotImplementedError

    async def request(self, name: str) -> None:
        pass

    async def reply(self, name: str) -> None:
        pass

    def arrives_after(self, name: str) -> float | None:
        return None

    def notice_after(self, channel: str) -> float | None:
        return 0.0


class UnknownStatement(BaseException):
    """The server was sent a text that it does not know: a statement of the program is new or has changed.

    No Exception, so that no edge of the program takes it for a fault of its own.
    """


class Connection:
    """What the program uses of ``asyncpg.Connection``."""

    def __init__(self, server: Server, statements: dict[str, Statement], session: Session, wire: Wire) -> None:
        self._server = server
        self._statements = statements
        self._session = session
        self._wire = wire
        self._is_closed = False
        self._is_busy = False
        self._top: Transaction | None = None
        self._savepoints = 0
        #: The texts that the server has taken: it is asked only once.
        self._prepared: dict[str, None] = {}
        self._context: Context = copy_context()
        self._loop: Any = asyncio.get_running_loop()
        self._listeners: dict[str, dict[Any, Context]] = {}
        self._on_termination: dict[Any, Context] = {}
        session.on_notice = self._noticed
        session.on_end = self._ended

    # --- Statements --------------------------------------------------------------------------------------

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]:
        return list((await self._ask(query, args, timeout))[0])

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Row | None:
        rows = (await self._ask(query, args, timeout))[0]
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        rows = (await self._ask(query, args, timeout))[0]
        return rows[0][column] if rows else None

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        return (await self._ask(query, args, timeout))[1]

    def transaction(self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False) -> Any:
        if isolation not in (None, "read_committed") or readonly or deferrable:
            raise UnknownStatement(f"a transaction with isolation {isolation!r}")
        return Transaction(self)

    def is_in_transaction(self) -> bool:
        return self._session.in_transaction

    def _ask(self, query: str, args: tuple[Any, ...], timeout: float | None) -> Coroutine[Any, Any, Answer]:
        statement = self._statements.get(query)
        if statement is None:
            raise UnknownStatement(query)
        has_zero = False
        for arg in args:
            for text in arg if type(arg) in (list, tuple) else (arg,):  # what stands in an array travels as text, too
                if type(text) is str:
                    if not text.isascii():
                        self._check_encoding(query, text)
                    has_zero = has_zero or "\0" in text
        if not self._session.has_failed:
            self._prepared[query] = None
        if has_zero:
            statement = Statement(statement.name, _refuse_zero)
        server, session = self._server, self._session
        return self._travel(
            statement.name,
            lambda: server.submit(session, statement, args),
            COMMAND_TIMEOUT_SECONDS if timeout is None else timeout,
        )

    def _check_encoding(self, query: str, text: str) -> None:
        """What is no UTF-8 is refused by the client, once the server has taken the statement's text."""
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            if self._session.has_failed and query not in self._prepared:
                raise asyncpg.InFailedSQLTransactionError("current transaction is aborted") from problem
            self._prepared[query] = None
            raise asyncpg.DataError(f"invalid input for a query argument: {problem}") from problem

    def _control(self, verb: str, name: str = "") -> Coroutine[Any, Any, None]:
        server, session = self._server, self._session
        return self._travel(verb, lambda: server.control(session, verb, name), COMMAND_TIMEOUT_SECONDS)

    async def _travel(self, name: str, run: Callable[[], Any], timeout: float) -> Any:
        """There, be run, and back, within *timeout* seconds."""
        if self._is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        if self._is_busy:
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
        self._is_busy = True
        try:
            seconds = self._wire.sets_out(name)
            if seconds is None:
                return await self._travel_with_the_wire(name, run, timeout)
            if seconds == 0.0:
                return run()
            return await self._travel_undisturbed(name, run, seconds, timeout)
        finally:
            self._is_busy = False

    async def _travel_undisturbed(self, name: str, run: Callable[[], Any], seconds: float, timeout: float) -> Any:
        trip = Trip(self._loop, self._context, self._session, run, partial(self._wire.comes_back, name))
        try:
            return await trip.make(seconds, timeout)
        except (asyncio.CancelledError, TimeoutError):
            if trip.waits_for_lock:
                self._server.cancel(self._session)
            raise

    async def _travel_with_the_wire(self, name: str, run: Callable[[], Any], timeout: float) -> Any:
        async with asyncio.timeout(timeout):
            await self._go(name, run)
            problem, answer = None, None
            try:
                answer = run()
                if isinstance(answer, asyncio.Future):
                    answer = await self._waited_for(answer)
            except asyncpg.PostgresError as refusal:
                problem = refusal
            await self._come_back(name)
            if problem is not None:
                raise problem
            return answer

    async def _go(self, name: str, run: Callable[[], Any]) -> None:
        try:
            await self._wire.request(name)
        except (asyncio.CancelledError, TimeoutError):
            # What had been sent is run before whatever this connection sends next.
            if self._wire.arrives_after(name) is not None:
                _run_unheard(run)
                self._server.cancel(self._session)
            raise
        except Exception:
            after = self._wire.arrives_after(name)
            self._lose()
            if after is None:
                self._server.end(self._session, tells_client=False)
            else:
                self._run_later(after, run)
            raise

    async def _waited_for(self, answer: asyncio.Future[Answer]) -> Answer:
        try:
            return await answer
        except asyncio.CancelledError:
            self._server.cancel(self._session)
            raise

    async def _come_back(self, name: str) -> None:
        try:
            await self._wire.reply(name)
        except (asyncio.CancelledError, TimeoutError):
            raise
        except Exception:
            self._lose()
            self._server.end(self._session, tells_client=False)
            raise

    def _run_later(self, seconds: float, run: Callable[[], Any]) -> None:
        def arrive() -> None:
            _run_unheard(run)
            if self._session.waiting is not None:
                self._session.waiting.future.add_done_callback(lambda _: end())
            else:
                end()

        def end() -> None:
            self._server.end(self._session, tells_client=False)

        asyncio.get_running_loop().call_later(seconds, arrive, context=self._server.world.copy())

    # --- Listening ---------------------------------------------------------------------------------------

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        if channel not in self._listeners:
            await self._travel("listen", lambda: self._session.channels.setdefault(channel), COMMAND_TIMEOUT_SECONDS)
            self._listeners[channel] = {}
        self._listeners[channel][callback] = copy_context()

    async def remove_listener(self, channel: str, callback: Callable[..., None]) -> None:
        if self._is_closed or callback not in self._listeners.get(channel, {}):
            return
        del self._listeners[channel][callback]
        if not self._listeners[channel]:
            del self._listeners[channel]
            await self._travel("unlisten", lambda: self._session.channels.pop(channel, None), COMMAND_TIMEOUT_SECONDS)

    def add_termination_listener(self, callback: Callable[..., None]) -> None:
        self._on_termination[callback] = copy_context()

    def remove_termination_listener(self, callback: Callable[..., None]) -> None:
        self._on_termination.pop(callback, None)

    def _noticed(self, pid: int, channel: str, payload: str) -> None:
        seconds = self._wire.notice_after(channel)
        if seconds is None:
            return

        def deliver() -> None:
            for callback, context in list(self._listeners.get(channel, {}).items()):
                context.copy().run(callback, self, pid, channel, payload)

        asyncio.get_running_loop().call_later(seconds, deliver, context=self._context.copy())

    # --- The end -----------------------------------------------------------------------------------------

    def is_closed(self) -> bool:
        return self._is_closed

    def get_server_pid(self) -> int:
        return self._session.pid

    async def close(self, *, timeout: float | None = None) -> None:
        if self._is_closed:
            return
        try:
            if timeout is None:
                await self._wire.request("close")
            else:
                async with asyncio.timeout(timeout):
                    await self._wire.request("close")
        finally:
            self.terminate()

    def terminate(self) -> None:
        self._lose()
        self._server.end(self._session, tells_client=False)

    async def reset(self, *, timeout: float | None = None) -> None:
        """What a pool does before it hands a connection to the next: one round trip."""
        self._listeners.clear()
        self._session.channels.clear()
        if self._session.in_transaction or self._top is not None:
            self._top = None
            await self._control("rollback")
        await self._travel("reset", lambda: None, timeout or COMMAND_TIMEOUT_SECONDS)

    def _ended(self) -> None:
        """The server has ended the session: the client finds its connection closed."""
        if not self._is_closed:
            asyncio.get_running_loop().call_soon(self._lose, context=self._context.copy())

    def _lose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._listeners.clear()
        told, self._on_termination = self._on_termination, {}
        for callback, context in told.items():
            asyncio.get_running_loop().call_soon(callback, self, context=context.copy())


def _run_unheard(run: Callable[[], Any]) -> None:
    """Run what nobody waits for the answer of."""
    try:
        run()
    except asyncpg.PostgresError:
        return


def _refuse_zero(*_: Any) -> Answer:
    raise asyncpg.CharacterNotInRepertoireError('invalid byte sequence for encoding "UTF8": 0x00')


class Transaction:
    """A transaction, or a savepoint inside one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._savepoint = ""
        self._state = "new"
        self._is_managed = False

    async def __aenter__(self) -> None:
        if self._is_managed:
            raise asyncpg.InterfaceError("cannot enter context: already in an `async with` block")
        self._is_managed = True
        await self.start()

    async def __aexit__(self, kind: Any, problem: Any, trace: Any) -> None:
        try:
            await self._end("rollback" if kind is not None else "commit")
        finally:
            self._is_managed = False

    async def start(self) -> None:
        connection = self._connection
        if connection._top is None:
            connection._top = self
        else:
            connection._savepoints += 1
            self._savepoint = f"s{connection._savepoints}"
        self._state = "failed"
        await connection._control("savepoint" if self._savepoint else "begin", self._savepoint)
        self._state = "started"

    async def commit(self) -> None:
        await self._end("commit")

    async def rollback(self) -> None:
        await self._end("rollback")

    async def _end(self, verb: str) -> None:
        if self._state != "started":
            raise asyncpg.InterfaceError(f"cannot {verb}; the transaction is in error state")
        connection = self._connection
        if connection._top is self:
            connection._top = None
        if self._savepoint:
            verb = "release" if verb == "commit" else "rollback_to"
        self._state = "failed"
        await connection._control(verb, self._savepoint)
        self._state = "ended"


class Pool:
    """What the program uses of ``asyncpg.Pool``: connections on demand, the one used last first."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], max_size: int) -> None:
        self._connect = connect
        self._max_size = max_size
        self._idle: list[Connection] = []
        self._in_use: dict[int, Connection] = {}
        self._opening = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_closing = False

    def acquire(self, *, timeout: float | None = None) -> _Loan:
        """On loan, as the program's own pool lends: only the pool beneath is simulated."""
        return _Loan(self, _Lending(self, timeout))  # type: ignore[arg-type]

    def distrust_idle(self) -> None:
        for connection in self._idle:
            connection.terminate()

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]:
        async with self.acquire() as connection:
            return await connection.fetch(query, *args, timeout=timeout)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Row | None:
        async with self.acquire() as connection:
            return await connection.fetchrow(query, *args, timeout=timeout)

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(query, *args, column=column, timeout=timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        async with self.acquire() as connection:
            return await connection.execute(query, *args, timeout=timeout)

    def get_size(self) -> int:
        return len(self._in_use) + sum(not one.is_closed() for one in self._idle)

    def get_idle_size(self) -> int:
        return sum(not one.is_closed() for one in self._idle)

    def get_max_size(self) -> int:
        return self._max_size

    def get_min_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    async def expire_connections(self) -> None:
        for connection in self._idle:
            connection.terminate()

    async def close(self) -> None:
        self._is_closing = True
        while self._in_use:
            await self._in_line()
        for connection in self._idle:
            if not connection.is_closed():
                await connection.close()
        self._idle.clear()

    def terminate(self) -> None:
        self._is_closing = True
        for connection in [*self._in_use.values(), *self._idle]:
            connection.terminate()
        self._in_use.clear()
        self._idle.clear()
        self._next_in_line()

    async def _acquire(self, timeout: float | None) -> Connection:
        if self._is_closing:
            raise asyncpg.InterfaceError("pool is closing")
        if timeout is None:
            return await self._take()
        async with asyncio.timeout(timeout):
            return await self._take()

    async def _take(self) -> Connection:
        while len(self._in_use) + self._opening >= self._max_size:
            await self._in_line()
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._in_use[id(connection)] = connection
                return connection
        self._opening += 1
        try:
            connection = await self._connect()
        except BaseException:
            self._opening -= 1
            self._next_in_line()
            raise
        self._opening -= 1
        self._in_use[id(connection)] = connection
        return connection

    async def _in_line(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._line:
                self._line.remove(turn)
            elif not turn.cancelled():
                self._next_in_line()
            raise

    def _next_in_line(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def release(self, connection: Connection, *, timeout: float | None = None) -> None:
        if self._in_use.get(id(connection)) is not connection:
            return
        try:
            if not connection.is_closed():
                await connection.reset(timeout=timeout)
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._in_use.pop(id(connection), None)
            if not connection.is_closed() and not self._is_closing:
                self._idle.append(connection)
            elif not connection.is_closed():
                connection.terminate()
            self._next_in_line()


class _Lending:
    """A connection of a pool, when its turn has come."""

    __slots__ = ("_pool", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> Connection:
        return await self._pool._acquire(self._timeout)


async def open_connection(server: Server, statements: dict[str, Statement], node: str, wire: Wire) -> Connection:
    """A new connection, as the wire and the server let it come about."""
    async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
        await wire.request("connect")
        session = server.open(node)
        try:
            await wire.reply("connect")
        except BaseException:
            server.end(session, tells_client=False)
            raise
        return Connection(server, statements, session, wire)


__all__: Sequence[str] = ("Connection", "Pool", "PromptWire", "UnknownStatement", "Wire", "open_connection")
