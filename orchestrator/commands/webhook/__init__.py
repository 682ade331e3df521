"""`orchestrator webhook`: where the provider's notifications go, a signed one to try it with, and those that came."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from orchestrator.commands.needs import NOTIFICATION_NAMES, PROVIDER_NAMES, NotificationSettings, ProviderSettings
from orchestrator.commands.parsing import (
    add_command,
    add_group,
    add_json,
    add_settings,
    an_id,
    load_settings,
    whole,
)
from orchestrator.settings import DatabaseSettings

RECEIVER_URL = "http://127.0.0.1:8080/webhooks/cloudflare"


def add_webhook(commands: Any) -> None:
    """Declare the group."""
    group = add_group(commands, "webhook", "the provider's notifications")
    _add_register(group)
    _add_trigger(group)
    _add_replay(group)


def _add_register(group: Any) -> None:
    about = (
        "An account has one such address: whoever had the notifications loses them, and the signing secret"
        " changes with it. An address that is registered already is left as it is."
    )
    parser = add_command(group, "register", _register, "have the provider send its notifications to an address", about)
    parser.add_argument("url", metavar="URL", help="public address of the web process, ending in /webhooks/cloudflare")
    parser.add_argument("--yes", action="store_true", help="take the notifications from whoever has them now")
    parser.add_argument(
        "--show-secret", action="store_true", help="print the line for the environment, with the secret"
    )
    add_settings(parser, ProviderSettings, PROVIDER_NAMES)


def _add_trigger(group: Any) -> None:
    about = "The monitor looks at the provider before it believes a good notification; one of an error fails the clip."
    parser = add_command(group, "trigger", _trigger, "send a signed notification to the web process", about)
    parser.add_argument("uid", type=an_id, metavar="UID", help="the provider's id of the video")
    parser.add_argument(
        "--state", choices=("ready", "error"), default="ready", help="what became of it (default %(default)s)"
    )
    parser.add_argument("--url", default=RECEIVER_URL, metavar="URL", help="where to (default %(default)s)")
    add_settings(parser, NotificationSettings, NOTIFICATION_NAMES)


def _add_replay(group: Any) -> None:
    about = (
        "What came, genuinely signed, is kept with its clip for a month. A replay only asks, as the notification did:"
        " the monitor looks at the provider before it believes it."
    )
    parser = add_command(group, "replay", _replay, "act again on a notification that came for a clip", about)
    parser.add_argument("id", type=an_id, metavar="ID", help="the clip's id")
    parser.add_argument(
        "--delivery", type=whole(1, 2**63 - 1), metavar="N", help="number of the notification (default: the last one)"
    )
    parser.add_argument("--list", action="store_true", help="list what came, and ask for nothing")
    add_json(parser)
    add_settings(parser, DatabaseSettings)


def _register(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.webhook.registering import register

    return asyncio.run(register(settings, options.url, yes=options.yes, show_secret=options.show_secret))


def _trigger(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.webhook.triggering import trigger

    return asyncio.run(trigger(settings, options.uid, options.state, options.url))


def _replay(options: argparse.Namespace) -> int:
    settings = load_settings(options, quiet=True)
    from orchestrator.commands.webhook.replaying import list_deliveries, replay_delivery

    return asyncio.run((list_deliveries if options.list else replay_delivery)(settings, options))
