"""The web processes that are measured: the shipped one, the bare one beside it, and what to send to them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.harness import call
from orchestrator.drivers.signatures import HEADER, sign
from orchestrator.local.processes import Command, spawn

ROOT = Path(__file__).parents[1]
TOKEN, SECRET = "a-token-for-what-is-measured", "a-secret-for-what-is-measured"
_START_SECONDS = 60.0
_STOP_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Served:
    """A process that listens on loopback."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """What it has used of the processors."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Its memory, shared libraries included."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.M)
        assert found is not None
        return int(found[1]) * 1024

    def private_bytes(self) -> int:
        """What of it nobody shares."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(int(found) for found in re.findall(r"^Private_\w+: +(\d+) kB$", text, re.M)) * 1024


@asynccontextmanager
async def product(dsn: str, directory: Path) -> AsyncIterator[Served]:
    """`orchestrator serve` on the database at *dsn*, ready to be called."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": dsn,
        "API_TOKENS": TOKEN,
        "CLOUDFLARE_WEBHOOK_SECRET": SECRET,
        "CLOUDFLARE_ACCOUNT_ID": "a" * 32,
        "CLOUDFLARE_API_TOKEN": "not-called-here",
        "CLOUDFLARE_API_URL": "http://127.0.0.1:9/client/v4",
        "R2_ENDPOINT_URL": "http://127.0.0.1:9",
        "R2_ACCESS_KEY_ID": "not-called-here",
        "R2_SECRET_ACCESS_KEY": "not-called-here",
        "R2_BUCKET_NAME": "clips",
        "R2_PUBLIC_URL": "http://127.0.0.1:9/clips",
        "PORT": str(port),
    }
    async with served(["-m", "orchestrator", "serve"], port, "/readyz", environment, directory) as process:
        yield process


@asynccontextmanager
async def bare(dsn: str, directory: Path) -> AsyncIterator[Served]:
    """The ceiling, `benchmarks.bare_web`, on the same server."""
    port = free_port()
    arguments = ["-m", "benchmarks.bare_web", dsn, str(port)]
    async with served(arguments, port, "/", {"PATH": os.environ["PATH"]}, directory) as process:
        yield process


@asynccontextmanager
async def served(
    arguments: Sequence[str], port: int, probe: str, environment: Mapping[str, str], directory: Path
) -> AsyncIterator[Served]:
    """A Python process that answers at *probe*; it ends with the block."""
    with (directory / f"process-{port}.log").open("wb") as log:
        process = spawn(
            Command([sys.executable, *arguments], ROOT, dict(environment), signal.SIGKILL), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as http:
            while not await _answers(http, f"http://127.0.0.1:{port}{probe}"):
                if process.poll() is not None:
                    raise RuntimeError(f"the process ended; see {directory}")
                await asyncio.sleep(0.05)
        yield Served(process.pid, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _answers(http: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with http.get(address) as answer:
            return answer.status < 500
    except aiohttp.ClientError:
        return False


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def send(process: Served, requests: Sequence[str], seconds: float, connections: int, first: int) -> Any:
    """What `benchmarks.http_sender`, in a process of its own, tells of *requests* sent again and again."""
    job = {
        "port": process.port, "connections": connections, "seconds": seconds,
        "requests": list(requests), "first": first,
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.http_sender"]
    return json.loads(await call(command, seconds + 60, json.dumps(job).encode(), cwd=ROOT))


def get(path: str, *headers: str) -> str:
    """A GET by an operator, as it goes over the wire."""
    return _request("GET", path, (f"Authorization: Bearer {TOKEN}", *headers))


def signal_call(clip_id: str, number: int) -> str:
    """A signal by an operator."""
    body = json.dumps({"requested_status": "processing", "details": {"number": number}})
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    return _request("POST", f"/api/clips/{clip_id}/signals", headers, body)


def notice_call(uid: str, number: int) -> str:
    """A signed notification; good for five minutes."""
    status = {"state": "inprogress", "pctComplete": "39.000000"}
    body = json.dumps({"uid": uid, "readyToStream": False, "status": status, "size": number})
    headers = (f"{HEADER}: {sign(body.encode(), SECRET, time.time())}", "Content-Type: application/json")
    return _request("POST", "/webhooks/cloudflare", headers, body)


def _request(method: str, path: str, headers: Sequence[str], body: str | None = None) -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]) + (body or "")
