"""`dev`, `serve`, `monitor`, `worker` and `migrate`: what runs, and the ground it runs on."""

from __future__ import annotations

import argparse
import asyncio
import errno
import importlib.util
from pathlib import Path
from typing import Any

from orchestrator.commands.database import translated
from orchestrator.commands.failures import CommandFailed
from orchestrator.commands.parsing import add_command, add_settings, load_settings, wrong
from orchestrator.commands.printing import say
from orchestrator.observability import configure_logging
from orchestrator.settings import DatabaseSettings, Settings

# What the system says when an address cannot be listened on.
_NOT_LISTENING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


def add_processes(commands: Any) -> None:
    """Declare the commands."""
    _add_dev(commands)
    summary = "the web process: API, webhooks, pages; any number may run"
    add_settings(add_command(commands, "serve", _serve, summary), Settings)
    summary = "the loop that moves clips; extra ones stand by and take over"
    add_settings(add_command(commands, "monitor", _monitor, summary), Settings)
    summary = "transfers on further hosts; without one, the monitor does them itself"
    add_settings(add_command(commands, "worker", _worker, summary), Settings)
    summary = "bring the database to the newest version; safe to repeat and to race"
    add_settings(add_command(commands, "migrate", _migrate, summary), DatabaseSettings)


def _add_dev(commands: Any) -> None:
    summary = "everything on this machine: database, stand-ins for Cloudflare Stream and R2, web, monitor"
    parser = add_command(commands, "dev", _dev, summary)
    parser.add_argument("--host", default="127.0.0.1", help="where the web process listens (default %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port of the page (default %(default)s)")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".orchestrator"), help="where everything is kept (default %(default)s)"
    )


def _dev(options: argparse.Namespace) -> int:
    from orchestrator.local.dev import DevOptions, run_dev

    configure_logging(as_json=False)
    return asyncio.run(run_dev(DevOptions(host=options.host, port=options.port, data_dir=options.data_dir)))


def _serve(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    from orchestrator.assembly import run_serve, stop_on_signals

    async def run() -> None:
        await _refuse_unfit(settings)
        await run_serve(settings, stop_on_signals())

    try:
        asyncio.run(run())
    except OSError as problem:
        if problem.errno not in _NOT_LISTENING:
            raise
        place = f"{settings.host}:{settings.port}"
        raise wrong(f"nothing can listen at {place} ({problem.strerror}); change HOST or PORT") from None
    return 0


def _monitor(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    from orchestrator.assembly import run_monitor, stop_on_signals

    async def run() -> None:
        await _refuse_unfit(settings)
        await run_monitor(settings, stop_on_signals())

    asyncio.run(run())
    return 0


def _worker(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    if importlib.util.find_spec("pgqueuer") is None:
        raise wrong("a worker takes its work with PgQueuer, which is not installed: install clip-orchestrator[worker]")
    from orchestrator.assembly import run_worker, stop_on_signals

    async def run() -> None:
        await _refuse_unfit(settings)
        await run_worker(settings, stop_on_signals())

    asyncio.run(run())
    return 0


async def _refuse_unfit(settings: Settings) -> None:
    """End with one line where the database is away or does not fit, before anything is started."""
    from orchestrator.assembly import refuse_unmigrated
    from orchestrator.storage.migrations import MigrationError

    try:
        with translated(settings.database_url.get_secret_value()):
            await refuse_unmigrated(settings)
    except MigrationError as problem:
        raise CommandFailed(f"nothing was started: {problem}") from None


def _migrate(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    from orchestrator.storage.migrations import MigrationError, migrate

    dsn = settings.direct_url
    try:
        with translated(dsn):
            applied = asyncio.run(migrate(dsn))
    except MigrationError as problem:
        raise CommandFailed(f"the database was not migrated: {problem}") from None
    say(f"Applied {', '.join(applied)}." if applied else "The database is at the newest version.")
    return 0
