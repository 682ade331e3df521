"""An in-memory network: aiohttp's own client and server talk over it unmodified, byte by byte.

A connection has two ends, each a transport of its node. Bytes arrive in order, after a latency drawn from the seed.
What befalls a connection is its `Fate`, asked for when it is opened; a killed node's connections are reset, or stay
half open when its whole machine has vanished.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from typing import Any

from simulation.loop import SimulatedLoop, context_of
from simulation.nodes import NODE, Node

# From a machine in the same room to one across a continent.
LATENCY_SECONDS = (0.0005, 0.03)
# What the kernel's buffers would hold before a writer has to wait.
HIGH_WATER_BYTES = 256 * 1024
# The address of the first host; the others follow. Public, for the egress guard refuses any other.
_FIRST_ADDRESS = "104.16.0."


class Cut(Enum):
    """How a connection ends in the middle of an answer."""

    RESET = "reset"
    EOF = "eof"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls one connection: how opening it goes, and after how many bytes of answers it ends, and how."""

    refused: bool = False
    black_hole: bool = False
    delay_seconds: float = 0.0
    cut_after_bytes: int | None = None
    cut: Cut = Cut.RESET


GOOD = Fate()


class Network:
    """All hosts, listeners and connections of one run."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._draw = loop.draw("network")
        self._addresses: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._listeners: dict[tuple[str, int], _Listener] = {}
        self._ends: dict[int, _End] = {}
        self._opened = 0
        #: Asked for each new connection: who opens it, to which host and port.
        self.fate: Callable[[Node | None, str, int], Fate] = lambda *_: GOOD

    def address_of(self, host: str) -> str:
        """The address of *host*, which gets one when it is first spoken of."""
        if host not in self._addresses:
            address = f"{_FIRST_ADDRESS}{len(self._addresses) + 1}"
            self._addresses[host], self._hosts[address] = address, host
        return self._addresses[host]

    def latency(self) -> float:
        """How long the next bytes travel."""
        return self._draw.uniform(*LATENCY_SECONDS)

    def listen(self, node: Node, port: int, factory: Callable[[], asyncio.BaseProtocol]) -> _Listener:
        """Take connections to *port* of the node's host, in place of a dead process that did so before."""
        before = self._listeners.get((node.host, port))
        if before is not None and not before.node.is_dead:
            raise OSError(errno.EADDRINUSE, f"{node.host}:{port} is listened on already")
        listener = _Listener(self, node, port, factory)
        self._listeners[node.host, port] = listener
        return listener

    def forget(self, listener: _Listener) -> None:
        """Take no more connections."""
        if self._listeners.get((listener.node.host, listener.port)) is listener:
            del self._listeners[listener.node.host, listener.port]

    async def connect(self, address: str, port: int) -> _Socket:
        """The beginning of a connection, once the other side has answered."""
        host = self._hosts.get(address, address)
        fate = self.fate(NODE.get(), host, port)
        answered = self._loop.create_future()
        if not fate.black_hole:
            seconds = fate.delay_seconds + 2 * self.latency()
            self._loop.after(seconds, _answer, answered, node=NODE.get())
        await answered
        listener = self._listeners.get((host, port))
        if fate.refused or listener is None or listener.node.is_dead:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{host}:{port} refuses")
        return _Socket(listener, fate)

    def join(self, socket_: _Socket, protocol: asyncio.BaseProtocol) -> _End:
        """The near end of a connection whose far end the listener's node gets."""
        listener, fate = socket_.listener, socket_.fate
        near_node, far_node = NODE.get(), listener.node
        self._opened += 1
        near_name = (self.address_of(near_node.host if near_node else "outside"), 32768 + self._opened % 28000)
        far_name = (self.address_of(far_node.host), listener.port)
        near = _End(self, self._loop, near_node, (far_name, near_name), fate.delay_seconds)
        far = _End(self, self._loop, far_node, (near_name, far_name), fate.delay_seconds)
        near.peer, far.peer = far, near
        far.cut_after_bytes, far.cut = fate.cut_after_bytes, fate.cut
        for number, end in enumerate((near, far)):
            end.number = 2 * self._opened + number
            self._ends[end.number] = end
        far.in_context(far.take, listener.factory)
        near.begin(protocol)
        return near

    def lost(self, end: _End) -> None:
        """An end is no more."""
        self._ends.pop(end.number, None)

    def crashed(self, node: Node, *, vanished: bool = False) -> None:
        """Reset the connections of a killed node; leave them half open when its machine has *vanished*."""
        for end in [end for end in self._ends.values() if end.node is node]:
            end.is_lost = True
            self.lost(end)
            if not vanished:
                end.peer.reset_after(self.latency())
        for listener in [one for one in self._listeners.values() if one.node is node]:
            self.forget(listener)

    def connections(self, host: str) -> list[_End]:
        """The ends of nodes at *host*, oldest first."""
        return [end for end in self._ends.values() if end.node is not None and end.node.host == host]

    def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """As `getaddrinfo` has it."""
        address = host if host in self._hosts else self.address_of(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]


class NetworkedLoop(SimulatedLoop):
    """The simulated loop, with the calls by which asyncio opens connections led to the network in memory."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.network = Network(self)

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return self.network.resolve(str(host), int(port))

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        protocol = protocol_factory()
        return self.network.join(sock, protocol), protocol

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        node = NODE.get()
        if node is None:
            raise RuntimeError("only a node can listen")
        return self.network.listen(node, int(port), protocol_factory)


async def start_connection(addr_infos: Iterable[Any], *, loop: NetworkedLoop, **_: Any) -> _Socket:
    """What takes the place of `aiohappyeyeballs.start_connection` in aiohttp's connector."""
    address, port = next(iter(addr_infos))[4][:2]
    return await loop.network.connect(address, port)


@dataclass(frozen=True, slots=True)
class _Socket:
    """A connection that the other side has taken, without ends yet."""

    listener: _Listener
    fate: Fate


class _Listener:
    """What `create_server` returns."""

    def __init__(self, network: Network, node: Node, port: int, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._network = network
        self.node = node
        self.port = port
        self.factory = factory

    @property
    def sockets(self) -> list[_Listener]:
        return [self]

    def getsockname(self) -> tuple[str, int]:
        return self._network.address_of(self.node.host), self.port

    def close(self) -> None:
        self._network.forget(self)

    def is_serving(self) -> bool:
        return True

    async def wait_closed(self) -> None:
        """Nothing to wait for."""


class _End(asyncio.Transport):
    """One end of a connection, the transport of one node's protocol."""

    peer: _End

    def __init__(
        self,
        network: Network,
        loop: SimulatedLoop,
        node: Node | None,
        names: tuple[tuple[str, int], tuple[str, int]],
        delay_seconds: float,
    ) -> None:
        super().__init__()
        self._network = network
        self._loop = loop
        self.node = node
        self.number = 0
        self.is_lost = False
        self.cut_after_bytes: int | None = None
        self.cut = Cut.RESET
        self._names = names
        self._delay_seconds = delay_seconds
        # One context for all steps of this end, as a selector's reader has.
        self._context: Context = context_of(node)
        self._protocol: Any = None
        self._outbox: list[bytes] = []
        self._waiting_bytes = 0
        self._sent_bytes = 0
        self._is_travelling = False
        self._is_closing = False
        self._ends_after_outbox = False
        self._is_reading = True
        self._is_writer_held = False
        self._has_news = False

    # --- What the network does to it ---------------------------------------------------------------------

    def in_context(self, callback: Callable[..., object], *args: Any, seconds: float = 0.0) -> None:
        """Have *callback* called as a step of this end's node."""
        self._loop._at(self._loop.now + seconds, callback, args, self._context)

    def take(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Begin as the far end: a listener's protocol takes the connection."""
        if not self.is_lost:
            self.begin(factory())

    def begin(self, protocol: Any) -> None:
        """Hand the connection to its protocol."""
        self._protocol = protocol
        self._tell()
        protocol.connection_made(self)

    def _tell(self) -> None:
        """Keep further news of this end for the next turn of the loop, after what follows from the present one.

        A real loop asks the kernel for news once in a turn. Here all that came during a pause would come at once.
        """
        self._has_news = True
        self.in_context(self._have_told)

    def _have_told(self) -> None:
        self._has_news = False

    def reset_after(self, seconds: float) -> None:
        """Let this end find, after a while, that the connection is reset."""
        self.in_context(self._lose, ConnectionResetError(errno.ECONNRESET, "reset by peer"), seconds=seconds)

    def break_off(self, how: Cut) -> None:
        """Break the connection from outside: both ends are told as *how* has it, or neither."""
        if how is Cut.SILENCE:
            self.cut_after_bytes = self.peer.cut_after_bytes = 0
            self.cut = self.peer.cut = how
            return
        for end in (self, self.peer):
            if how is Cut.RESET:
                end.reset_after(self._network.latency())
            else:
                end.in_context(end._end_of_stream, seconds=self._network.latency())

    # --- What its protocol does with it ------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self.is_lost or self._is_closing or not data:
            return
        chunk = bytes(data)
        if self.cut_after_bytes is not None and self._sent_bytes + len(chunk) > self.cut_after_bytes:
            self._write_until_cut(chunk[: max(0, self.cut_after_bytes - self._sent_bytes)])
            return
        self._send(chunk)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if self._is_closing or self.is_lost:
            return
        self._is_closing = self._ends_after_outbox = True
        self._travel()
        self.in_context(self._lose, None)

    def abort(self) -> None:
        if self.is_lost or (self._is_closing and not self._ends_after_outbox):
            return
        self._is_closing, self._ends_after_outbox = True, False
        self._outbox.clear()
        self.peer.reset_after(self._network.latency())
        self.in_context(self._lose, None)

    def is_closing(self) -> bool:
        return self._is_closing or self.is_lost

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self.peer._travel()

    def is_reading(self) -> bool:
        return self._is_reading

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing: the kernel's buffers are the only ones here."""

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._names[0], "sockname": self._names[1]}.get(name, default)

    # --- On the way --------------------------------------------------------------------------------------

    def _send(self, chunk: bytes) -> None:
        self._sent_bytes += len(chunk)
        self._outbox.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._is_writer_held:
            self._is_writer_held = True
            self._protocol.pause_writing()
        self._travel()

    def _write_until_cut(self, chunk: bytes) -> None:
        """The last bytes that pass, and what comes behind them."""
        if chunk:
            self._send(chunk)
        if self.cut is Cut.SILENCE:
            return
        self.cut_after_bytes = None
        self._is_closing, self._ends_after_outbox = True, self.cut is Cut.EOF
        self._travel()
        if self.cut is Cut.RESET:
            self.peer.reset_after(2 * self._network.latency() + self._delay_seconds + 0.05)
        self.in_context(self._lose, ConnectionResetError(errno.ECONNRESET, "reset by peer"), seconds=0.05)

    def _travel(self) -> None:
        """Let what waits arrive, when nothing of this end is on its way already and the peer reads."""
        if self._is_travelling or not (self._outbox or self._ends_after_outbox) or not self.peer._is_reading:
            return
        self._is_travelling = True
        self.peer.in_context(self._arrive, seconds=self._network.latency() + self._delay_seconds)

    def _arrive(self) -> None:
        """A step of the peer: everything that was sent by now is there."""
        peer = self.peer
        if peer._has_news and not peer.is_lost:
            peer.in_context(self._arrive)
            return
        self._is_travelling = False
        if peer.is_lost:
            if self._outbox and not self.is_lost:
                self.reset_after(self._network.latency())
            return
        if not peer._is_reading:
            return
        data, self._outbox = b"".join(self._outbox), []
        self._waiting_bytes = 0
        if self._is_writer_held:
            self.in_context(self._let_write)
        if data:
            peer._tell()
            peer._protocol.data_received(data)
        if self._ends_after_outbox and not self._outbox:
            peer._end_of_stream()

    def _let_write(self) -> None:
        if self._is_writer_held:
            self._is_writer_held = False
            if not self.is_lost:
                self._protocol.resume_writing()

    def _end_of_stream(self) -> None:
        if self.is_lost or self._protocol is None:
            return
        if self._has_news:
            self.in_context(self._end_of_stream)
            return
        if not self._protocol.eof_received():
            self.close()

    def _lose(self, problem: Exception | None) -> None:
        if self.is_lost:
            return
        if self._has_news:
            self.in_context(self._lose, problem)
            return
        self.is_lost = self._is_closing = True
        self._network.lost(self)
        if self._protocol is not None:
            self._protocol.connection_lost(problem)


def _answer(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
