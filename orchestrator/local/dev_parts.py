"""The parts of `orchestrator dev`, brought up in order and kept running.

database ─► migrations ─► Stream stand-in, bucket ─► web, monitor
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from orchestrator.drivers.ffmpeg import FfmpegMissing, find_ffmpeg
from orchestrator.storage.migrations import MigrationError, migrate

from .bucket import BucketOptions, EmbeddedBucket
from .dev_environment import (
    BUCKET_NAME,
    DATABASE_VARIABLES,
    PROVIDER_VARIABLES,
    STORE_VARIABLES,
    bucket_environment,
    cut_environment,
    names_one_of,
    page_environment,
    page_url,
    stand_in_environment,
)
from .dev_state import DevState
from .errors import DatabaseUnusable, NotInstalled
from .postgres import EmbeddedPostgres, PostgresOptions
from .postgres_binaries import find_binaries
from .programs import Program, ProgramPlan
from .rclone import find_rclone
from .services import Service, keep_running

LOOPBACK = "127.0.0.1"

_DATABASE = "orchestrator"
# What is stopped together is stopped side by side: 4.5 + 2.5 + 2 leaves a second of the ten that a stop may take.
_PROGRAM_STOP_SECONDS = 4.5
_STAND_IN_STOP_SECONDS = 2.5
_DATABASE_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DevPlan:
    """What is to run: where it is kept and served, with which secrets, and what is used instead of our own parts."""

    directory: Path
    host: str
    port: int
    state: DevState
    environment: Mapping[str, str]
    """Ours and that of `.env`; what it names is not brought up."""

    postgres_binaries: Path | None
    stream_arguments: Sequence[str]


class DevParts:
    """Everything that runs. *say* gets the name of a part and a line."""

    def __init__(self, plan: DevPlan, say: Callable[[str, str], None]) -> None:
        self._plan = plan
        self._say = say
        # As brought up; stopped from the end.
        self._steps: list[list[Service]] = []
        self._told: dict[str, str] = {}
        self._lines: list[tuple[str, str]] = [("page", page_url(plan.host, plan.port))]

    def missing(self) -> list[str]:
        """What has to be installed before any of this can run, one sentence each."""
        environment = self._plan.environment
        checks: list[tuple[tuple[str, ...], Callable[[], object]]] = [
            (DATABASE_VARIABLES, lambda: find_binaries(self._plan.postgres_binaries)),
            (STORE_VARIABLES, find_rclone),
            (PROVIDER_VARIABLES, lambda: find_ffmpeg(None)),
        ]
        found = []
        for variables, check in checks:
            try:
                if not names_one_of(environment, variables):
                    check()
            except (NotInstalled, FfmpegMissing) as exc:
                found.append(str(exc))
        return found

    async def live(self) -> None:
        """Bring everything up and keep it running, until cancelled.

        Raises:
            ExceptionGroup: of LocalErrors, which say what cannot run.
        """
        async with asyncio.TaskGroup() as group:
            await self._bring_up_database(group)
            await self._bring_up_stand_ins(group)
            await self._bring_up_programs(group)
            self._announce()

    async def stop(self) -> None:
        """Stop everything, the last brought up first. Safe to repeat."""
        for step in reversed(self._steps):
            await asyncio.gather(*(service.stop() for service in step))

    def kill(self) -> None:
        """Kill everything at once."""
        for step in reversed(self._steps):
            for service in step:
                service.kill()

    async def _up(self, group: asyncio.TaskGroup, *services: Service) -> None:
        """Start *services* side by side and return when each has been ready; from now on they are kept running."""
        if not services:
            return
        self._say("dev", f"starting {' and '.join(service.name for service in services)}")
        self._steps.append(list(services))
        ready = [asyncio.Event() for _ in services]
        for service, event in zip(services, ready, strict=True):
            group.create_task(keep_running(service, event, lambda line: self._say("dev", line)))
        # A service that never gets ready ends its task with an error, and that ends this wait: the group sees to it.
        await asyncio.gather(*(event.wait() for event in ready))

    async def _bring_up_database(self, group: asyncio.TaskGroup) -> None:
        """Ours is migrated as well; somebody else's is not, unless they say so with `orchestrator migrate`."""
        plan = self._plan
        given = names_one_of(plan.environment, DATABASE_VARIABLES)
        if given:
            self._say(
                "dev", f"{given} is set: using that database as it is; `orchestrator migrate` brings it up to date"
            )
            self._told[given] = plan.environment[given]
            return
        options = PostgresOptions(binaries=plan.postgres_binaries, stop_limit_seconds=_DATABASE_STOP_SECONDS)
        server = EmbeddedPostgres(plan.directory / "postgres", options)
        await self._up(group, server)
        dsn = server.dsn(_DATABASE)
        try:
            await _ensure_database(server.dsn(), _DATABASE)
            self._say("dev", "bringing the database to the newest version")
            await migrate(dsn)
        except (MigrationError, asyncpg.PostgresError, OSError) as exc:
            raise DatabaseUnusable(f"the database was not brought to the newest version: {exc}") from exc
        self._told["DATABASE_URL"] = dsn
        self._lines.append(("database", dsn))

    async def _bring_up_stand_ins(self, group: asyncio.TaskGroup) -> None:
        plan = self._plan
        services: list[Service] = []
        given = names_one_of(plan.environment, PROVIDER_VARIABLES)
        if given:
            self._say("dev", f"{given} is set: using that Cloudflare account, and no stand-in")
        else:
            services.append(self._stand_in())
        given = names_one_of(plan.environment, STORE_VARIABLES)
        if given:
            self._say("dev", f"{given} is set: using that bucket, and none of ours")
        else:
            services.append(self._bucket())
        await self._up(group, *services)

    def _stand_in(self) -> Program:
        plan, state = self._plan, self._plan.state
        url = f"http://{LOOPBACK}:{state.ports['stream']}"
        self._told |= stand_in_environment(state, url)
        self._lines.append(("stream", f"{url}/client/v4 (account {state.account_id})"))
        arguments = ["-m", "orchestrator.local.stream", "--host", LOOPBACK, "--port", str(state.ports["stream"])]
        arguments += ["--data-dir", str(plan.directory / "stream")]
        arguments += ["--account", state.account_id, "--token", state.api_token]
        arguments += ["--webhook-url", f"{page_url(plan.host, plan.port)}/webhooks/cloudflare"]
        arguments += ["--webhook-secret", state.webhook_secret, *plan.stream_arguments]
        return self._program("stream", arguments, {}, _STAND_IN_STOP_SECONDS, url)

    def _bucket(self) -> EmbeddedBucket:
        state = self._plan.state
        endpoint, files = (f"http://{LOOPBACK}:{state.ports[name]}" for name in ("bucket", "files"))
        public_url = f"{files}/{BUCKET_NAME}"
        self._told |= bucket_environment(state, endpoint, public_url)
        directory = self._plan.directory / "bucket"
        self._lines.append(("bucket", f"{public_url} ({directory / 'objects' / BUCKET_NAME})"))
        options = BucketOptions(
            access_key_id=state.access_key_id,
            secret_access_key=state.secret_access_key,
            name=BUCKET_NAME,
            host=LOOPBACK,
            port=state.ports["bucket"],
            public_port=state.ports["files"],
        )
        return EmbeddedBucket(directory, options)

    async def _bring_up_programs(self, group: asyncio.TaskGroup) -> None:
        plan = self._plan
        told = cut_environment(plan.directory, plan.environment) | self._told | page_environment(plan.host, plan.port)
        ready_url = f"{page_url(plan.host, plan.port)}/readyz"
        web = self._program("web", ["-m", "orchestrator", "serve"], told, _PROGRAM_STOP_SECONDS, ready_url)
        monitor = self._program("monitor", ["-m", "orchestrator", "monitor"], told, _PROGRAM_STOP_SECONDS, None)
        await self._up(group, web, monitor)

    def _program(
        self, name: str, arguments: list[str], told: Mapping[str, str], stop_limit_seconds: float, ready_url: str | None
    ) -> Program:
        # They read .env themselves, from the same place; what we tell them counts more.
        environment = {**os.environ, **told, "PYTHONUNBUFFERED": "1"}
        plan = ProgramPlan(name, arguments, environment, Path.cwd(), stop_limit_seconds, ready_url)
        return Program(plan, self._say)

    def _announce(self) -> None:
        width = max(len(name) for name, _ in self._lines)
        box = [f"{name:<{width}}  {value}" for name, value in self._lines]
        ending = f"Everything is kept in {self._plan.directory}. Ctrl-C stops it."
        for line in ("", *(f"  {line}" for line in box), "", f"  {ending}", ""):
            self._say("", line)


async def _ensure_database(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
