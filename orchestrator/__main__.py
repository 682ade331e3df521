"""The command `orchestrator`: exit codes are 0 done, 1 the clip or check failed, 2 wrong usage or settings."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.observability import configure_logging
from orchestrator.settings import DatabaseSettings, Settings, SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as problem:
        print("The settings cannot be used:", file=sys.stderr)
        for fault in problem.faults:
            print(f"  {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchestrator", description="Takes video clips from upload to a finished file in your bucket."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_dev(commands)
    _add(commands, "serve", _serve, "the web process: API, webhooks, pages; any number may run")
    _add(commands, "monitor", _monitor, "the loop that moves clips; extra ones stand by and take over")
    summary = "bring the database to the newest version; safe to repeat and to race"
    _add(commands, "migrate", _migrate, summary, DatabaseSettings)
    return parser


def _add(
    commands: Any, name: str, run: Any, summary: str, settings: type[DatabaseSettings] = Settings
) -> argparse.ArgumentParser:
    """A command whose flags are its settings, one each."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    for field, about in settings.model_fields.items():
        flag = "--" + field.replace("_", "-")
        parser.add_argument(flag, dest=field, metavar=field.upper(), help=f"{about.description} [env {field.upper()}]")
    parser.set_defaults(run=run, settings=settings)
    return parser


def _add_dev(commands: Any) -> None:
    summary = "everything on this machine: database, stand-ins for Cloudflare Stream and R2, web, monitor"
    parser = commands.add_parser("dev", help=summary, description=summary)
    parser.add_argument("--host", default="127.0.0.1", help="where the web process listens (default %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port of the page (default %(default)s)")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".orchestrator"), help="where everything is kept (default %(default)s)"
    )
    parser.set_defaults(run=_dev)


def _settings(options: argparse.Namespace) -> Any:
    """The settings, secrets preferably from the environment: arguments are visible to other users of a machine."""
    settings = options.settings.load(**{name: getattr(options, name) for name in options.settings.model_fields})
    configure_logging(settings.log_json)
    return settings


def _dev(options: argparse.Namespace) -> int:
    from orchestrator.local.dev import DevOptions, run_dev

    configure_logging(as_json=False)
    return asyncio.run(run_dev(DevOptions(host=options.host, port=options.port, data_dir=options.data_dir)))


def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from orchestrator.assembly import run_serve, stop_on_signals

    async def run() -> None:
        await run_serve(settings, stop_on_signals())

    asyncio.run(run())
    return 0


def _monitor(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from orchestrator.assembly import run_monitor, stop_on_signals

    async def run() -> None:
        await run_monitor(settings, stop_on_signals())

    asyncio.run(run())
    return 0


def _migrate(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from orchestrator.storage.migrations import MigrationError, migrate

    try:
        applied = asyncio.run(migrate(settings.database_url.get_secret_value()))
    except MigrationError as problem:
        print(f"The database was not migrated: {problem}", file=sys.stderr)
        return 1
    print(f"Applied {', '.join(applied)}." if applied else "The database is at the newest version.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
