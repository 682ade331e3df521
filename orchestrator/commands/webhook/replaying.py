"""`webhook replay`: what came for a clip, and acting on one of them again, through the door it came by."""

from __future__ import annotations

import argparse

from orchestrator.commands.clips.reading import known_clip
from orchestrator.commands.database import asking
from orchestrator.commands.failures import CommandFailed
from orchestrator.commands.printing import moment, say, say_json, table
from orchestrator.settings import DatabaseSettings
from orchestrator.storage.deliveries import read_deliveries
from orchestrator.web.asking import asked_document
from orchestrator.web.deliveries import REPLAY_SOURCE, delivery_as_json, replay
from orchestrator.web.problems import Problem
from signals import SignalError, wake


async def list_deliveries(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Print the notifications that came for a clip, newest first."""
    async with asking(settings) as connection:
        clip = await known_clip(connection, options.id)
        found = await read_deliveries(connection, clip.id)
    if options.json:
        say_json({"deliveries": [delivery_as_json(each) for each in found]})
        return 0
    rows = [
        (str(each.id), moment(each.received_at), str(each.times), each.signature, each.state or "-", each.outcome)
        for each in found
    ]
    for line in table(("NUMBER", "CAME (UTC)", "TIMES", "SIGNATURE", "STATE", "OUTCOME"), rows):
        say(line)
    return 0


async def replay_delivery(settings: DatabaseSettings, options: argparse.Namespace) -> int:
    """Leave the signal of a kept notification once more."""
    async with asking(settings) as connection:
        async with connection.transaction():
            clip = await known_clip(connection, options.id)
            try:
                status, attempt = await replay(connection, clip, options.delivery, REPLAY_SOURCE)
            except Problem as problem:
                raise CommandFailed(problem.detail) from None
            except SignalError as problem:
                raise CommandFailed(str(problem)) from None
        await wake(connection)
    if options.json:
        say_json(asked_document(clip, status, attempt))
    else:
        say(f"Recorded: clip {clip.id} is asked to move to {status}, as the notification did; the monitor judges it.")
    return 0
