"""The command line as a function, with nothing of the environment, and clips to point it at."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.__main__ import main
from orchestrator.local.stream import StandInOptions, StreamStandIn
from orchestrator.settings import Settings
from signals import CHANGED_CHANNEL

# Far above what any of these takes; only a hang meets it.
LIMIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def all(self) -> str:
        return self.out + self.err


class CommandLine:
    """`orchestrator …`, in this process and as one of its own."""

    def __init__(self, database: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.environment = {"DATABASE_URL": database}

    async def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()  # what the test's own parts said
        code = await asyncio.wait_for(asyncio.to_thread(_exit_code, list(arguments)), LIMIT_SECONDS)
        said = self._capsys.readouterr()
        return Ran(code, said.out, said.err)

    async def process(self, *arguments: str, **environment: str) -> Ran:
        """The same with all that an installed program has around it."""

        def run() -> Ran:
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator", *arguments],
                env={"PATH": os.environ["PATH"], **self.environment, **environment},
                capture_output=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
            return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

        return await asyncio.to_thread(run)


def _exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting but those a test makes, no `.env`, and no logger that outlives the test's captured output."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    for module in ("parsing", "processes", "doctor.examining"):
        monkeypatch.setattr(f"orchestrator.commands.{module}.configure_logging", lambda as_json: None)
    yield
    structlog.reset_defaults()


@pytest.fixture
def cli(database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line, told of a database of its own."""
    monkeypatch.setenv("DATABASE_URL", database)
    return CommandLine(database, capsys)


class Ground:
    """The database as its owner sees it: clips are made and moved as the monitor would."""

    def __init__(self, owner: asyncpg.Connection) -> None:
        self.owner = owner

    async def insert(self, clip_id: str, title: str | None = None, **details: Any) -> None:
        await self.owner.execute(
            "INSERT INTO clips (id, title, cloudflare_uid, processing_details) VALUES ($1, $2, $3, $4)",
            clip_id,
            title,
            f"uid{clip_id}",
            json.dumps(details),
        )

    async def move(self, clip_id: str, status: str, progress: float, *, notify: bool = True, **columns: Any) -> None:
        """One move with its line of history, and the notification that goes with it."""
        async with self.owner.transaction():
            was = await self.owner.fetchval("SELECT status FROM clips WHERE id = $1", clip_id)
            names = "".join(f", {name} = ${n}" for n, name in enumerate(columns, 4))
            await self.owner.execute(
                f"UPDATE clips SET status = $2, progress = $3, status_since = clock_timestamp() {names} WHERE id = $1",
                clip_id,
                status,
                progress,
                *columns.values(),
            )
            await self.record(clip_id, "moved", was, status, progress, reason="it was seen so")
            if notify:
                await self.owner.execute("SELECT pg_notify($1, $2)", CHANGED_CHANNEL, f"other,{clip_id}")

    async def record(
        self, clip_id: str, kind: str, was: str | None, to: str, progress: float | None, **details: Any
    ) -> None:
        await self.owner.execute(
            "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, progress, source, details)"
            " VALUES ($1, $2, 1, $3, $4, $5, 'monitor', $6)",
            clip_id,
            kind,
            was,
            to,
            progress,
            json.dumps(details),
        )

    async def lead(self) -> None:
        """Have a monitor lead, as far as anybody can tell."""
        await self.owner.execute(
            "UPDATE monitor_lease SET holder = 'test', epoch = epoch + 1, taken_at = clock_timestamp(),"
            " round_at = clock_timestamp(), expires_at = clock_timestamp() + interval '1 hour'"
        )

    async def signals(self) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self.owner.fetch(
            "SELECT clip_id, attempt, requested_status, source, details::text, insists FROM clip_signals ORDER BY id"
        )
        return rows


@pytest.fixture
async def ground(database: str) -> AsyncIterator[Ground]:
    """The owner's hands in the test's database."""
    owner = await asyncpg.connect(database)
    yield Ground(owner)
    await owner.close()


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StreamStandIn]:
    """The provider's stand-in."""
    async with StreamStandIn(StandInOptions(data_dir=tmp_path / "stream")) as stream:
        yield stream


@pytest.fixture
def provider_environment(stand_in: StreamStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that lead to the stand-in."""
    monkeypatch.setenv("CLOUDFLARE_API_URL", stand_in.url)
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", stand_in.account_id)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", stand_in.api_token)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Serves one handler at every path of an address of its own."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", handler)
            server = await stack.enter_async_context(TestServer(application))
            return str(server.make_url("")).rstrip("/")

        yield start
