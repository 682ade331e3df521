"""A TCP relay between the program and a server, which does to connections what networks and proxies do to them.

    async with Relay(Upstream("127.0.0.1", 5432)) as relay:
        relay.treat(Treatment(up=SWALLOW, down=SWALLOW))   # a black hole, for open connections and for new ones
        relay.heal()                                       # new connections pass again

What a connection has lost it never gets back: one that has swallowed a byte stays a black hole until it is closed, as
no network hands out a stream with a gap in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType

_CHUNK_BYTES = 64 * 1024
# How soon a lost end is noticed to be lost on both sides; nobody waits for it.
_LOOK_SECONDS = 0.05
# A connection that is closed by it sends RST, not FIN.
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to the bytes of one direction; as it stands here they pass."""

    delay_seconds: float = 0.0
    holds: bool = False
    """Nothing passes until the treatment changes; nothing is lost."""
    swallows: bool = False
    """Everything vanishes, the end of the stream too, and the connection stays open."""
    cut_at_byte: int | None = None
    """Counted from the beginning of this treatment: so many bytes pass, then both sides see the connection reset."""


PASS = Way()
HOLD = Way(holds=True)
SWALLOW = Way(swallows=True)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What happens to a connection: *up* to the server, *down* to the client."""

    up: Way = PASS
    down: Way = PASS
    resets: bool = False
    """A new connection is reset as soon as it is there; an open one at once."""


UNTOUCHED = Treatment()
BLACK_HOLE = Treatment(up=SWALLOW, down=SWALLOW)
RESET = Treatment(resets=True)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the server is: a host and port, or the path of a Unix socket as *host* with port 0."""

    host: str
    port: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to it."""
        if self.port:
            return await asyncio.open_connection(self.host, self.port)
        return await asyncio.open_unix_connection(self.host)


@dataclass(eq=False)
class _Pair:
    """One relayed connection."""

    treatment: Treatment
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    # Bytes that came since the treatment began, and whether any was lost, by direction.
    came: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    lost: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def treat(self, treatment: Treatment) -> None:
        self.treatment = treatment
        self.came = {"up": 0, "down": 0}
        self.changed.set()
        self.changed = asyncio.Event()
        if treatment.resets:
            self.reset()

    def way(self, direction: str) -> Way:
        return self.treatment.up if direction == "up" else self.treatment.down

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is None:
                continue
            with contextlib.suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()


class Relay:
    """One listening port, whose connections are relayed to *upstream* as they are treated."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        """Where new connections are relayed to; change it when the server has moved."""
        self.port = 0
        self.accepted = 0
        self.swallowed_bytes = 0
        self._for_new = UNTOUCHED
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], _Pair] = {}

    async def __aenter__(self) -> Relay:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in list(self._pairs):
            task.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    @property
    def open_count(self) -> int:
        """Connections that are open now."""
        return len(self._pairs)

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_CHUNK_BYTES)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections until `listen`; the open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def treat(self, treatment: Treatment, *, existing: bool = True, new: bool = True) -> None:
        """Do that to the open connections, to those that will come, or to both."""
        if new:
            self._for_new = treatment
        if existing:
            for pair in list(self._pairs.values()):
                pair.treat(treatment)

    def heal(self) -> None:
        """Let everything pass that can: what lost a byte stays a black hole."""
        self.treat(UNTOUCHED)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        pair = self._pairs[task] = _Pair(self._for_new, writer)
        try:
            if not pair.treatment.resets:
                await self._relay(pair, reader)
        except OSError:
            pass  # there is no server, or one side has gone: the other one is told below
        except asyncio.CancelledError:
            pass  # the relay is closed, and asyncio would report every connection
        finally:
            pair.reset()
            del self._pairs[task]

    async def _relay(self, pair: _Pair, from_client: asyncio.StreamReader) -> None:
        from_server, pair.server = await self.upstream.connect()
        both = [
            asyncio.create_task(self._pump(pair, "up", from_client, pair.server)),
            asyncio.create_task(self._pump(pair, "down", from_server, pair.client)),
        ]
        try:
            await asyncio.gather(*both)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _pump(
        self, pair: _Pair, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one direction until its end, which is handed on, or until a cut."""
        while chunk := await self._read(pair, direction, reader):
            way = await self._passable(pair, direction)
            if way.delay_seconds:
                await asyncio.sleep(way.delay_seconds)
            before = pair.came[direction]
            pair.came[direction] = before + len(chunk)
            if way.swallows or direction in pair.lost:
                pair.lost.add(direction)
                self.swallowed_bytes += len(chunk)
                continue
            if way.cut_at_byte is not None and pair.came[direction] >= way.cut_at_byte:
                writer.write(chunk[: max(way.cut_at_byte - before, 0)])
                await writer.drain()
                pair.reset()
                return
            writer.write(chunk)
            await writer.drain()
        way = await self._passable(pair, direction)
        pair.ended.add(direction)
        if way.swallows or direction in pair.lost:
            # The end is lost, too: who waits behind it learns nothing until it ends this by itself.
            pair.lost.add(direction)
            while len(pair.ended) < 2:
                await asyncio.sleep(_LOOK_SECONDS)
            return
        writer.write_eof()

    async def _read(self, pair: _Pair, direction: str, reader: asyncio.StreamReader) -> bytes:
        """The next bytes; none at the end of the stream, and where a black hole hides that it was reset."""
        try:
            return await reader.read(_CHUNK_BYTES)
        except ConnectionError:
            if pair.way(direction).swallows or direction in pair.lost:
                return b""
            raise

    async def _passable(self, pair: _Pair, direction: str) -> Way:
        """The way, once it no longer holds."""
        while (way := pair.way(direction)).holds:
            await pair.changed.wait()
        return way
