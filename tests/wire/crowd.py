"""A crowd of event streams in a process of its own: some read, some are slow, some come back all at once.

    python -m wire.crowd HOST PORT TOKEN

Commands come as JSON lines on stdin and are answered by one JSON line each:

    {"do": "open", "group": "a", "count": 100, "clips": ["x"]}   open streams (no clips: follow all); how long it took
    {"do": "stop", "group": "a"}                                 read no more, as a browser that hangs
    {"do": "storm", "group": "a"}                                drop every stream, come back with its last event id
    {"do": "close", "group": "a"}                                hang up
    {"do": "report"}                                             what was received since the last report
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wire.load import percentile

# A browser's; the stream is one of many things it receives.
_SLOW_RECEIVE_BYTES = 16 * 1024
_OPEN_AT_ONCE = 100
_EVENT = re.compile(rb"id: (\d+)\nevent: clip\ndata: (.*)")


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was received."""

    event_id: int
    clip_id: str
    version: int
    updated_at: float


@dataclass
class Seen:
    """What the whole crowd has received since it was last asked."""

    events: int = 0
    backward: int = 0
    cut: int = 0
    milliseconds: list[float] = field(default_factory=list)
    # The same bytes go to many streams: read once, known to all.
    parsed: dict[bytes, Event] = field(default_factory=dict)

    def read(self, block: bytes) -> Event | None:
        """The event in *block*; None for heartbeats and settings."""
        known = self.parsed.get(block)
        if known is None and (match := _EVENT.fullmatch(block)):
            data = json.loads(match[2])
            at = datetime.fromisoformat(data["updated_at"]).timestamp()
            known = self.parsed[block] = Event(int(match[1]), data["clip_id"], data["version"], at)
            if len(self.parsed) > 10_000:
                self.parsed.clear()
        return known


class Stream(asyncio.Protocol):
    """One open stream: takes the chunks apart and keeps the newest version of each clip."""

    def __init__(self, seen: Seen, request: bytes, versions: dict[str, int], last_id: int) -> None:
        self._seen, self._request = seen, request
        self.versions, self.last_id = versions, last_id
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.is_leaving = False
        self._live_from = float("inf")
        self._raw, self._text = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        resumed = f"Last-Event-ID: {self.last_id}\r\n".encode() if self.last_id else b""
        transport.write(self._request + resumed + b"\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._seen.cut += not self.is_leaving
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("cut before it was open"))

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self.opened.done():
            head, end, self._raw = self._raw.partition(b"\r\n\r\n")
            if not end:
                self._raw = head
                return
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                self.opened.set_exception(ConnectionRefusedError(head.decode("latin-1")))
                return
            self.opened.set_result(None)
            # What it is sent first has been so for a while: no measure of how soon changes come.
            self._live_from = time.time()
        while (end := self._raw.find(b"\r\n")) >= 0:
            start, size = end + 2, int(self._raw[:end], 16)
            if len(self._raw) < start + size + 2:
                return
            self._text += self._raw[start : start + size]
            self._raw = self._raw[start + size + 2 :]
            *blocks, self._text = self._text.split(b"\n\n")
            for block in blocks:
                self._take(block)

    def _take(self, block: bytes) -> None:
        event = self._seen.read(block)
        if event is None:
            return
        self._seen.events += 1
        self.last_id = max(self.last_id, event.event_id)
        before = self.versions.get(event.clip_id, 0)
        self._seen.backward += event.version < before
        self.versions[event.clip_id] = max(before, event.version)
        if event.version > before and event.updated_at > self._live_from:
            self._seen.milliseconds.append((time.time() - event.updated_at) * 1000)


class Crowd:
    """The streams by group, and the commands."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host, self._port, self._token = host, port, token
        self._groups: defaultdict[str, list[Stream]] = defaultdict(list)
        self._requests: dict[str, bytes] = {}
        self._seen = Seen()

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        group = command.get("group", "")
        match command["do"]:
            case "open":
                query = "&".join(f"clip={clip_id}" for clip_id in command.get("clips", ()))
                bearer = f"Authorization: Bearer {self._token}\r\n" if self._token else ""
                head = f"GET /api/events?{query} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n{bearer}"
                self._requests[group] = head.encode()
                return await self._open(group, [({}, 0)] * command["count"])
            case "stop":
                for stream in self._groups[group]:
                    if stream.transport is not None:
                        stream.transport.pause_reading()
                return {}
            case "storm":
                state = [(stream.versions, stream.last_id) for stream in self._groups[group]]
                self._leave(group)
                return await self._open(group, state)
            case "close":
                self._leave(group)
                return {}
            case "report":
                return self._report()
        raise ValueError(command)

    def _leave(self, group: str) -> None:
        for stream in self._groups.pop(group, []):
            stream.is_leaving = True
            if stream.transport is not None:
                stream.transport.abort()

    async def _open(self, group: str, states: list[tuple[dict[str, int], int]]) -> dict[str, Any]:
        started, gate = time.monotonic(), asyncio.Semaphore(_OPEN_AT_ONCE)
        slow = group.startswith("slow")

        async def open_one(versions: dict[str, int], last_id: int) -> Stream:
            async with gate:
                stream = Stream(self._seen, self._requests[group], dict(versions), last_id)
                with_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                with_socket.setblocking(False)
                if slow:
                    with_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_RECEIVE_BYTES)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(with_socket, (self._host, self._port))
                await loop.create_connection(lambda: stream, sock=with_socket)
                await stream.opened
                return stream

        self._groups[group] = list(await asyncio.gather(*(open_one(*state) for state in states)))
        return {"seconds": time.monotonic() - started}

    def _report(self) -> dict[str, Any]:
        seen = self._seen
        ordered = sorted(seen.milliseconds)
        # Every stream of a group follows the same clips: one that is behind the best of them has missed something.
        lowest: dict[str, dict[str, int]] = {}
        for group, streams in self._groups.items():
            clip_ids = {clip_id for stream in streams for clip_id in stream.versions}
            lowest[group] = {
                clip_id: min(stream.versions.get(clip_id, 0) for stream in streams) for clip_id in sorted(clip_ids)
            }
        said = {
            "open": {name: sum(s.transport is not None for s in group) for name, group in self._groups.items()},
            "lowest": lowest,
            "events": seen.events,
            "backward": seen.backward,
            "cut": seen.cut,
            "p50_ms": percentile(ordered, 50),
            "p99_ms": percentile(ordered, 99),
            "measured": len(ordered),
        }
        seen.events = seen.backward = seen.cut = 0
        seen.milliseconds = []
        return said


async def main() -> None:
    """Obey until stdin ends."""
    host, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    crowd = Crowd(host, port, token)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await crowd.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
