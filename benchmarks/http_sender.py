"""A lean sender of HTTP requests in a process of its own: prepared bytes over kept-alive connections, nothing parsed
but the length of an answer. It takes some 15 µs a request, so that what it measures is the server.

    python -m benchmarks.http_sender <<< '{"port": 8080, "connections": 32, "seconds": 5, "requests": ["…"]}'

The requests go out in turn, each connection one at a time. The answer is one JSON object.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from typing import Any

# The answers read here are small; one that does not come is a broken server, and ends the measurement.
_READ_BYTES = 256 * 1024
_SILENCE_SECONDS = 20.0


@dataclass(slots=True)
class _Line:
    """One connection and the answer it waits for."""

    socket: socket.socket
    sent_at: float = 0.0
    received: bytes = b""


def percentile(ordered: list[float], percent: float) -> float:
    """That percentile of values in order; 0 when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def send(port: int, connections: int, seconds: float, requests: list[bytes], first: int = 0) -> dict[str, Any]:
    """Keep *connections* requests on their way for *seconds*, beginning with the request numbered *first*."""
    lines = {line.socket.fileno(): line for line in (_open(port) for _ in range(connections))}
    poll = select.epoll()
    for number in lines:
        poll.register(number, select.EPOLLIN)
    turns = cycle(requests[first:] + requests[:first])
    statuses: Counter[bytes] = Counter()
    milliseconds: list[float] = []
    clock = time.perf_counter
    started = clock()
    ends = started + seconds
    for line in lines.values():
        _ask(line, next(turns), clock())
    waiting = len(lines)
    while waiting:
        ready = poll.poll(_SILENCE_SECONDS)
        if not ready:
            raise TimeoutError(f"{waiting} requests were not answered")
        for number, _ in ready:
            line = lines[number]
            if not _is_answered(line):
                continue
            now = clock()
            milliseconds.append((now - line.sent_at) * 1000)
            statuses[line.received[9:12]] += 1
            if now < ends:
                _ask(line, next(turns), now)
            else:
                waiting -= 1
    took = clock() - started
    for line in lines.values():
        line.socket.close()
    milliseconds.sort()
    return {
        "per_second": len(milliseconds) / took,
        "p50_ms": percentile(milliseconds, 50),
        "p99_ms": percentile(milliseconds, 99),
        "statuses": {status.decode(): count for status, count in statuses.items()},
        "count": len(milliseconds),
    }


def _open(port: int) -> _Line:
    connection = socket.create_connection(("127.0.0.1", port), timeout=_SILENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _Line(connection)


def _ask(line: _Line, request: bytes, now: float) -> None:
    line.received = b""
    line.sent_at = now
    line.socket.sendall(request)


def _is_answered(line: _Line) -> bool:
    """Read what is there; whether the answer is whole."""
    data = line.socket.recv(_READ_BYTES)
    if not data:
        raise ConnectionResetError("the server hung up")
    line.received = line.received + data if line.received else data
    head = line.received.find(b"\r\n\r\n")
    if head < 0:
        return False
    start = line.received.find(b"Content-Length: ", 0, head)
    length = int(line.received[start + 16 : line.received.index(b"\r\n", start)]) if start >= 0 else 0
    return len(line.received) >= head + 4 + length


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    requests = [request.encode("latin-1") for request in job.pop("requests")]
    print(json.dumps(send(requests=requests, **job)))


if __name__ == "__main__":
    main()
