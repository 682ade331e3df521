"""`prune`: history older than the policy goes, in small steps beside everything that runs."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

from orchestrator.commands.database import translated
from orchestrator.commands.parsing import add_command, add_json, add_settings, load_settings
from orchestrator.commands.printing import moment, say, say_json
from orchestrator.settings import RetentionSettings
from orchestrator.storage.pruning import Pruned, count_window, prune_window, walk_history

ROLE = "orchestrator_monitor"
# A sign of life now and then; the whole may take hours.
_TELL_SECONDS = 5.0


def add_prune(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "prune",
        _prune,
        "delete the history of ended clips that is older than history_keep_days",
        "How each attempt ended stays for ever, and so does everything of a clip on its way. The monitor does the same"
        " by itself, a while every hour. Safe to interrupt, to repeat, and to run beside everything and twice at once.",
    )
    parser.add_argument("--dry-run", action="store_true", help="count what would go, and delete nothing")
    add_json(parser)
    add_settings(parser, RetentionSettings)


def _prune(options: argparse.Namespace) -> int:
    settings: RetentionSettings = load_settings(options, quiet=True)
    keep = settings.history_keep
    if keep is None:
        _tell_kept_for_ever(options)
        return 0
    progress = _Progress(is_silent=options.json, is_dry=options.dry_run)
    with translated(settings.database_url.get_secret_value()):
        done = asyncio.run(_walk(settings, keep, progress, is_dry=options.dry_run))
    if options.json:
        # Brings the shapes of the API with it, which no other start of the program needs.
        from orchestrator.web.views import timestamp_or_none

        say_json(
            {
                "dry_run": options.dry_run,
                "history_keep_days": settings.history_keep_days,
                "lines": done.lines,
                "transfers": done.transfers,
                "through": done.through,
                "through_at": timestamp_or_none(done.at),
            }
        )
    elif options.dry_run:
        say(f"{done.lines:,} lines of history are older than {settings.history_keep_days} days and would go.")
    else:
        say(f"Pruned {done.lines:,} lines of history and {done.transfers:,} records of finished transfers.")
    return 0


def _tell_kept_for_ever(options: argparse.Namespace) -> None:
    if options.json:
        say_json({"dry_run": options.dry_run, "history_keep_days": 0, "lines": 0, "transfers": 0})
    else:
        say("History is kept for ever (HISTORY_KEEP_DAYS is 0); give --history-keep-days to prune it.")


async def _walk(settings: RetentionSettings, keep: timedelta, progress: _Progress, *, is_dry: bool) -> Pruned:
    from orchestrator.assembly import open_pool

    async with open_pool(settings, ROLE, "clip-orchestrator prune") as (pool, _):
        return await walk_history(pool, keep, count_window if is_dry else prune_window, told=progress.tell)


class _Progress:
    """Says on stderr how far the walk has come, every few seconds."""

    def __init__(self, *, is_silent: bool, is_dry: bool) -> None:
        self._is_silent = is_silent
        self._word = "counted" if is_dry else "pruned"
        self._told_at = time.monotonic()

    def tell(self, so_far: Pruned) -> None:
        """Take in one window."""
        if self._is_silent or so_far.at is None or time.monotonic() - self._told_at < _TELL_SECONDS:
            return
        self._told_at = time.monotonic()
        print(f"{self._word} {so_far.lines:,} lines, up to {moment(so_far.at)} UTC", file=sys.stderr, flush=True)
