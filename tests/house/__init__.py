"""A whole house for one story: database, provider and bucket on this machine, and the program's real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from lanes.canaries import CANARIES

from orchestrator.local.bucket import EmbeddedBucket
from orchestrator.local.processes import Command, spawn
from orchestrator.local.stream import StreamStandIn
from orchestrator.storage.clips import Clip, Event, read_clip, read_events

# A story takes seconds; on a busy machine a few times that. Only a hang meets this.
LIMIT_SECONDS = 120.0
# Wherever one of these turns up that is not the program's own memory, it has leaked; the secrets lane looks for them.
WEBHOOK_SECRET = CANARIES["webhook secret"]
BUCKET_SECRET = CANARIES["bucket secret"]
SOURCE_TOKEN = CANARIES["source address"]
# A stop takes a tenth of a second, and ten seconds are what the program gives itself.
STOP_SECONDS = 10.0


@dataclass
class House:
    """One story's services, and the processes it has started."""

    directory: Path
    # What holds secrets prints nowhere: a failing test shows its house.
    database: str = field(repr=False)
    bucket: EmbeddedBucket = field(repr=False)
    stream: StreamStandIn = field(repr=False)
    http: aiohttp.ClientSession = field(repr=False)
    rows: asyncpg.Connection = field(repr=False)
    port: int
    webhook_secret: str = field(default=WEBHOOK_SECRET, repr=False)
    bucket_secret: str = field(default=BUCKET_SECRET, repr=False)
    extra: dict[str, str] = field(default_factory=dict, repr=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    served: web.AppRunner | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """The address of the web process."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the program is told: the documented variables and nothing else."""
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.database,
            "CLOUDFLARE_ACCOUNT_ID": self.stream.account_id,
            "CLOUDFLARE_API_TOKEN": self.stream.api_token,
            "CLOUDFLARE_API_URL": self.stream.url,
            "CLOUDFLARE_WEBHOOK_SECRET": self.webhook_secret,
            "CLOUDFLARE_DELIVERY_HOSTS": self.stream.url.partition("/client")[0],
            "R2_ENDPOINT_URL": self.bucket.endpoint_url,
            "R2_ACCESS_KEY_ID": "stories",
            "R2_SECRET_ACCESS_KEY": self.bucket_secret,
            "R2_BUCKET_NAME": "clips",
            "R2_PUBLIC_URL": self.bucket.public_url,
            "LOOK_INTERVAL_SECONDS": "0.3",
            "PORT": str(self.port),
            **self.extra,
        }

    def start(
        self,
        command: str,
        *,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start `orchestrator COMMAND` as a process of its own, which the kernel kills should this one die.

        *name* is that of its log, to which a restart under the same name adds; *environment* goes over the usual one;
        *inside* stands before the command.
        """
        arguments = [*inside, sys.executable, "-m", "orchestrator", command]
        told = {"PYTHONFAULTHANDLER": "1", **self.environment, **(environment or {})}
        whole = Command(arguments, self.directory, told, signal.SIGKILL)
        with self.log_of(name or f"{command}-{len(self.processes)}").open("ab") as log:
            process = spawn(whole, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log_of(self, name: str) -> Path:
        """Where the process of that name writes."""
        return self.directory / f"{name}.log"

    async def start_web(self) -> subprocess.Popen[bytes]:
        """Start the web process and wait until it is ready."""
        process = self.start("serve")
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                assert process.poll() is None, self.logs()
                try:
                    async with self.http.get(f"{self.address}/readyz") as answer:
                        if answer.status == 200:
                            return process
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    def logs(self) -> str:
        """What the processes have said so far."""
        return "\n".join(path.read_text("utf-8", "replace")[-4000:] for path in sorted(self.directory.glob("*.log")))

    async def api(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """One call of the API: its status and the decoded answer."""
        async with self.http.request(method, self.address + path, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def serve_file(self, file: Path) -> str:
        """An address at which *file* can be fetched, with a secret in its query; served until the story ends."""
        app = web.Application()

        async def send(request: web.Request) -> web.FileResponse:
            assert request.query["token"] == SOURCE_TOKEN
            return web.FileResponse(file)

        app.router.add_get("/source.mp4", send)
        self.served = web.AppRunner(app)
        await self.served.setup()
        port = free_port()
        await web.TCPSite(self.served, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{port}/source.mp4?token={SOURCE_TOKEN}"

    async def create_upload(self, title: str, **body: Any) -> dict[str, Any]:
        """Make a clip by the API; the answer."""
        status, clip = await self.api(
            "POST", "/api/clips", json={"source": "upload", "title": title, "size_bytes": 200_000, **body}
        )
        assert status == 201, clip
        return dict(clip)

    async def upload_form(self, upload_url: str, file: Path) -> None:
        """Send *file* to a one-time form address."""
        with file.open("rb") as opened:
            async with self.http.post(upload_url, data={"file": opened}) as answer:
                assert answer.status == 200, await answer.text()

    async def upload_tus(self, upload_url: str, file: Path, chunk_bytes: int = 50 * 1024 * 1024) -> None:
        """Send *file* to a one-time tus address, chunk by chunk."""
        offset = 0
        with file.open("rb") as opened:
            while chunk := opened.read(chunk_bytes):
                headers = {
                    "Tus-Resumable": "1.0.0",
                    "Upload-Offset": str(offset),
                    "Content-Type": "application/offset+octet-stream",
                }
                async with self.http.patch(upload_url, data=chunk, headers=headers) as answer:
                    assert answer.status == 204, await answer.text()
                offset += len(chunk)

    async def until(self, clip_id: str, holds: Callable[[Clip], bool], seconds: float = LIMIT_SECONDS) -> Clip:
        """Wait until *holds* is true of the clip."""
        clip = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    clip = await read_clip(self.rows, clip_id)
                    if clip is not None and holds(clip):
                        return clip
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"still waiting; the clip is {clip}\n{self.logs()}")

    async def until_complete(self, clip_id: str, seconds: float = LIMIT_SECONDS) -> Clip:
        """Wait for the end, which must be a good one."""
        clip = await self.until(clip_id, lambda clip: clip.status in ("complete", "error"), seconds)
        assert clip.status == "complete", f"{clip}\n{self.logs()}"
        return clip

    async def history(self, clip_id: str) -> list[Event]:
        """All lines of the clip's history."""
        return await read_events(self.rows, clip_id, limit=10_000)

    async def read(self, url: str | None) -> bytes:
        """The bytes behind an address."""
        assert url is not None
        async with self.http.get(url) as answer:
            assert answer.status == 200, url
            return await answer.read()

    async def close(self) -> None:
        """End every process, gently first; one that was stopped goes on, or it could not hear."""
        if self.served is not None:
            await self.served.cleanup()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)
        late = 0
        for process in self.processes:
            try:
                await asyncio.to_thread(process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                late += 1
                (self.directory / f"stuck-{process.pid}.log").write_text(_kernel_view(process.pid))
                # It says in its log where it stands, and dies of it.
                process.send_signal(signal.SIGABRT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(process.wait, 2)
                process.kill()
                process.wait()
        if late:
            pytest.fail(f"{late} processes did not stop within {STOP_SECONDS:.0f} seconds\n{self.logs()}")


def _kernel_view(pid: int) -> str:
    """What the kernel says a process is at, thread by thread."""
    seen = []
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*")):
        for name in ("comm", "wchan", "syscall", "stat"):
            with contextlib.suppress(OSError):
                seen.append(f"{thread.name} {name}: {(thread / name).read_text().strip()}")
    return "\n".join(seen)


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
