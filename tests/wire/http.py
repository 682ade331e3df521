"""HTTP as raw bytes: one connection that is spoken to by hand, and sees exactly what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; header names in lower case, repeated ones repeated."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name.lower()), None)


def request_bytes(method: str, target: str, host: str, headers: Headers = (), body: bytes | None = None) -> bytes:
    """A request as it goes over the wire; nothing is checked, corrected or added but Host and Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")


class Connection(asyncio.Protocol):
    """A kept-alive connection that asks one thing at a time, as cheaply as Python can."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._waiting: asyncio.Future[Reply] | None = None
        self.has_body = True

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    @property
    def is_closed(self) -> bool:
        """Whether the other side has gone."""
        return self._transport is None or self._transport.is_closing()

    async def ask(self, raw: bytes) -> Reply:
        """Send a whole request and return its answer.

        Raises:
            ConnectionError: the connection ended before the answer did.
        """
        self._waiting = asyncio.get_running_loop().create_future()
        self.has_body = not raw.startswith(b"HEAD ")
        self.send(raw)
        return await self._waiting

    def send(self, raw: bytes) -> None:
        """Send bytes that are not (yet) a whole request."""
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._transport.write(raw)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end or self._waiting is None or self._waiting.done():
            return
        status, headers, length = _read_head(head)
        length = length if self.has_body and status not in (204, 304) else 0
        if len(rest) >= length:
            self._received = rest[length:]
            self._waiting.set_result(Reply(status, headers, rest[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError("closed before the answer"))


def _read_head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...], int]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    return int(first.split(" ", 2)[1]), headers, length


async def once(host: str, port: int, raw: bytes, seconds: float = 20.0) -> Reply:
    """The answer to *raw* over a connection of its own."""
    async with asyncio.timeout(seconds):
        connection = await Connection.open(host, port)
        try:
            return await connection.ask(raw)
        finally:
            connection.close()
