"""`clips retry` and `clips signal`: requests, written as everybody's are; the monitor judges them."""

from __future__ import annotations

import argparse
from typing import Any

import asyncpg

from orchestrator.commands.clips.reading import known_clip
from orchestrator.commands.database import asking
from orchestrator.commands.failures import NOT_DONE, WRONG_USAGE, CommandFailed
from orchestrator.commands.parsing import wrong
from orchestrator.commands.printing import complain, say, say_json
from orchestrator.explaining import read_leadership
from orchestrator.pipelines import pipeline_for
from orchestrator.settings import DatabaseSettings
from orchestrator.storage.clips import Clip
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.asking import asked_document
from signals import DetailsNotAccepted, SignalError, signal_retry, signal_status_update, wake
from statusutils import ERROR, UnknownPipeline

SOURCE = "command line"


async def retry_clip(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Ask for a new attempt at a failed clip."""
    async with asking(settings) as connection:
        async with connection.transaction():
            clip = await known_clip(connection, options.id)
            resume_at = _resume_status(clip)
            attempt = await _asked(signal_retry(connection, clip.id, resume_at, SOURCE))
        is_led = await _hint(connection)
    _tell(clip, resume_at, attempt + 1, options, is_led=is_led)
    return 0


async def send_signal(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Ask that a clip move to a status. An error insists: a person has decided."""
    status = options.status
    details = {**(options.details or {}), **_message(status, options.message)}
    async with asking(settings) as connection:
        async with connection.transaction():
            clip = await known_clip(connection, options.id)
            _check_status(clip, status)
            asked = signal_status_update(connection, clip.id, status, details, SOURCE, insists=status == ERROR)
            attempt = await _asked(asked)
        is_led = await _hint(connection)
    _tell(clip, status, attempt, options, is_led=is_led)
    return 0


def _resume_status(clip: Clip) -> str:
    if clip.status != ERROR:
        raise CommandFailed(f"clip {clip.id} is at {clip.status}; only a failed one can be tried again")
    try:
        resume_at = pipeline_for(clip.pipeline).resume_status(clip)
    except UnknownPipeline as problem:
        raise CommandFailed(f"clip {clip.id}: {problem}") from None
    if resume_at is None:
        raise CommandFailed(f"nothing of clip {clip.id} is left to start from; upload it again as a new clip")
    return resume_at


def _check_status(clip: Clip, status: str) -> None:
    try:
        table = pipeline_for(clip.pipeline).table
    except UnknownPipeline as problem:
        raise CommandFailed(f"clip {clip.id}: {problem}") from None
    if status not in table:
        raise wrong(f"the {clip.pipeline} pipeline has no status {status[:70]!r}; it has {', '.join(table.by_name)}")


def _message(status: str, message: str | None) -> dict[str, str]:
    """The reason under the name where it is looked for: an error's is shown with the clip."""
    return {} if message is None else {"error_message" if status == ERROR else "message": message}


async def _asked(asking: Any) -> int:
    """The attempt the request was written in."""
    try:
        return int(await asking)
    except DetailsNotAccepted as problem:
        raise CommandFailed(f"--details: {problem}", WRONG_USAGE) from None
    except SignalError as problem:
        raise CommandFailed(str(problem), NOT_DONE) from None


async def _hint(connection: asyncpg.Connection) -> bool:
    """Wake the monitor; whether there is one. The request is written, so nothing that fails here is worth a word."""
    try:
        await wake(connection)
        return (await read_leadership(connection)).leads
    except DATABASE_AWAY:
        return True


def _tell(clip: Clip, status: str, attempt: int, options: argparse.Namespace, *, is_led: bool) -> None:
    if options.json:
        say_json(asked_document(clip, status, attempt))
    else:
        say(f"Recorded: clip {clip.id} is asked to move to {status} in attempt {attempt}; the monitor judges it.")
    if not is_led:
        complain("no monitor leads now, so it waits until one runs: `orchestrator monitor`")
