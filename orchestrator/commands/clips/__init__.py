"""`orchestrator clips`: look at clips and ask for moves, straight at the database, in the role that may only ask."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from orchestrator.commands.parsing import (
    a_search,
    add_command,
    add_group,
    add_json,
    add_settings,
    an_id,
    json_object,
    load_settings,
    seconds,
    statuses,
    storable,
    whole,
)
from orchestrator.settings import DatabaseSettings
from statusutils import TABLES

# A page of the API has at most 200; this is for a person's terminal, or one file.
LIST_MAX = 10_000
# A clip that is still under way after a week has passed every deadline there is.
WATCH_MAX_SECONDS = 7 * 86_400.0
# As `orchestrator.noticing` has them; reading them there would make every start of the program slower.
VIEW_NAMES = ("stuck", "attention")


def add_clips(commands: Any) -> None:
    """Declare the group."""
    group = add_group(commands, "clips", "look at clips, ask for moves")
    _add_ls(group)
    _add_one(group, "show", _show, "one clip in words: where it stands, its history, what waits to be judged")
    _add_watch(group)
    _add_one(group, "explain", _explain, "one sentence: why it is where it is, and what happens next")
    _add_one(group, "retry", _retry, "ask for a new attempt at a failed clip, from its last safe place")
    _add_signal(group)


def _add_ls(group: Any) -> None:
    parser = add_command(group, "ls", _ls, "clips, newest first")
    parser.add_argument(
        "--status", type=statuses, action="extend", metavar="S", help="only these; several with commas, or repeated"
    )
    parser.add_argument("--pipeline", choices=list(TABLES), metavar="P", help=f"only this one: {', '.join(TABLES)}")
    parser.add_argument("--search", type=a_search, metavar="T", help="part of the title, start of the id, or the video")
    parser.add_argument("--view", choices=VIEW_NAMES, metavar="V", help=f"only this view: {', '.join(VIEW_NAMES)}")
    parser.add_argument("--error-code", type=a_search, metavar="C", help="only clips that failed with this code")
    parser.add_argument(
        "--limit", type=whole(1, LIST_MAX), default=50, metavar="N", help="how many at most (default %(default)s)"
    )
    _finish(parser)


def _add_one(group: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser = add_command(group, name, run, summary)
    parser.add_argument("id", type=an_id, metavar="ID", help="the clip's id")
    _finish(parser)
    return parser


def _add_watch(group: Any) -> None:
    about = "Ends with exit code 0 when the clip is complete, and 1 when it failed or the time is over."
    parser = add_command(group, "watch", _watch, "print each change of a clip until it ends", about)
    parser.add_argument("id", type=an_id, metavar="ID", help="the clip's id")
    parser.add_argument(
        "--timeout",
        type=seconds(WATCH_MAX_SECONDS),
        metavar="S",
        help="give up after so many seconds (default: a week)",
    )
    _finish(parser)


def _add_signal(group: Any) -> None:
    about = (
        "The monitor judges it: a status that states an outside fact makes it look for itself first;"
        " an error ends even a complete clip."
    )
    parser = add_command(group, "signal", _signal, "ask that a clip move to a status", about)
    parser.add_argument("id", type=an_id, metavar="ID", help="the clip's id")
    parser.add_argument("status", metavar="STATUS", help="where to")
    parser.add_argument(
        "--details", type=json_object, metavar="JSON", help="an object for the history and the clip's details"
    )
    parser.add_argument("--message", type=storable, metavar="TEXT", help="the reason in a sentence, for the history")
    _finish(parser)


def _finish(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    add_settings(parser, DatabaseSettings)


def _ls(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.clips.reading import list_clips

    return asyncio.run(list_clips(settings, options))


def _show(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.clips.reading import show_clip

    return asyncio.run(show_clip(settings, options))


def _explain(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.clips.reading import explain_clip

    return asyncio.run(explain_clip(settings, options))


def _watch(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.clips.watching import watch_clip

    return asyncio.run(watch_clip(settings, options.id, options.timeout or WATCH_MAX_SECONDS, as_json=options.json))


def _retry(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.clips.asking import retry_clip

    return asyncio.run(retry_clip(settings, options))


def _signal(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.clips.asking import send_signal

    return asyncio.run(send_signal(settings, options))
