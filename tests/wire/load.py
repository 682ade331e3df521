"""Calls in bulk from a process of its own: as many as it can, or so many a second; says how long each took.

    python -m wire.load <<< '{"kind": "junk", "port": 8080, "seconds": 5, "connections": 8}'

Kinds: `junk` (notifications that nobody signed), `notices` (signed ones), `signals` (the API's, by bearer token).
Signals and notices go to the clips in turn. The answer is one JSON object; `acknowledged` lists the numbers of the
signals that were answered 202.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.drivers.signatures import HEADER, sign
from wire.http import Connection, request_bytes


@dataclass
class Job:
    """What to send, to whom, for how long; *rate* is calls a second over all connections, 0 as many as possible."""

    kind: str
    port: int
    seconds: float
    connections: int
    rate: float = 0.0
    host: str = "127.0.0.1"
    token: str = ""
    secret: str = ""
    clips: list[str] = field(default_factory=list)
    uids: list[str] = field(default_factory=list)
    first_number: int = 0


@dataclass
class Tally:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    broken: int = 0

    def as_json(self, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.milliseconds)
        return {
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "broken": self.broken,
            "per_second": len(ordered) / seconds,
            "p50_ms": percentile(ordered, 50),
            "p99_ms": percentile(ordered, 99),
            "max_ms": ordered[-1] if ordered else 0.0,
            "acknowledged": self.acknowledged,
        }


def percentile(ordered: list[float], percent: float) -> float:
    """That percentile of values in order; 0 when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


async def run(job: Job) -> dict[str, Any]:
    """Send until the time is over; the figures."""
    tally, numbers = Tally(), itertools.count(job.first_number)
    make = _MAKERS[job.kind](job)
    started = time.monotonic()
    turns = _turns(job, started)
    await asyncio.gather(*(_send(job, make, numbers, turns, tally) for _ in range(job.connections)))
    return tally.as_json(time.monotonic() - started)


def _turns(job: Job, started: float) -> Iterator[float]:
    """When each call is due; ends with the job's time, however many were made by then."""
    for number in itertools.count():
        now = time.monotonic()
        due = started + number / job.rate if job.rate else now
        if max(due, now) >= started + job.seconds:
            return
        yield due


async def _send(
    job: Job, make: Callable[[int], bytes], numbers: Iterator[int], turns: Iterator[float], tally: Tally
) -> None:
    connection = await Connection.open(job.host, job.port)
    for due in turns:
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        number = next(numbers)
        raw = make(number)
        sent = time.perf_counter()
        try:
            reply = await connection.ask(raw)
        except OSError:
            tally.broken += 1
            connection = await Connection.open(job.host, job.port)
            continue
        tally.milliseconds.append((time.perf_counter() - sent) * 1000)
        tally.statuses[reply.status] += 1
        if reply.status in (200, 202):
            tally.acknowledged.append(number)
    connection.close()


def _junk(job: Job) -> Callable[[int], bytes]:
    """Every kind that costs the receiver something else: no header, a wrong one, a stale one, a good form, no JSON."""
    rng = random.Random(job.first_number)  # noqa: S311  (no secret is made of it)
    now, host = int(time.time()), f"{job.host}:{job.port}"
    body = json.dumps({"uid": (job.uids or ["f" * 32])[0], "status": {"state": "ready"}}).encode()
    headers = [
        [],
        [(HEADER, "")],
        [(HEADER, sign(body, "somebody-elses-secret", now))],
        [(HEADER, sign(body, "somebody-elses-secret", now - 4000))],
        [(HEADER, f"time={now},sig1={'0' * 64}"), (HEADER, f"time={now},sig1={'0' * 64}")],
        [(HEADER, f"time={now},sig1={'A' * 64}")],
    ]
    kinds = [request_bytes("POST", "/webhooks/cloudflare", host, kind, body) for kind in headers]
    kinds.append(request_bytes("POST", "/webhooks/cloudflare", host, headers[2], b"\xff" * 2000))
    return lambda number: rng.choice(kinds)


def _notices(job: Job) -> Callable[[int], bytes]:
    host = f"{job.host}:{job.port}"

    def make(number: int) -> bytes:
        uid = job.uids[number % len(job.uids)]
        status = {"state": "inprogress", "pctComplete": "39.000000"}
        body = json.dumps({"uid": uid, "readyToStream": False, "status": status, "size": number}).encode()
        return request_bytes(
            "POST", "/webhooks/cloudflare", host, [(HEADER, sign(body, job.secret, time.time()))], body
        )

    return make


def _signals(job: Job) -> Callable[[int], bytes]:
    host = f"{job.host}:{job.port}"
    headers = [("Authorization", f"Bearer {job.token}"), ("Content-Type", "application/json")]

    def make(number: int) -> bytes:
        clip_id = job.clips[number % len(job.clips)]
        body = json.dumps({"requested_status": "processing", "details": {"number": number}}).encode()
        return request_bytes("POST", f"/api/clips/{clip_id}/signals", host, headers, body)

    return make


_MAKERS = {"junk": _junk, "notices": _notices, "signals": _signals}


def main() -> None:
    """Do the job on stdin."""
    print(json.dumps(asyncio.run(run(Job(**json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
