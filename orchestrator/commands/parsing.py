"""How commands are declared: flags that are settings, arguments that are checked, faults in one line."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any, NoReturn

import structlog

from orchestrator.commands.failures import WRONG_USAGE, CommandFailed
from orchestrator.commands.printing import plain
from orchestrator.observability import configure_logging, hide_secrets_of
from orchestrator.settings import DatabaseSettings
from statusutils import TABLES

# What an id can be at all, of a clip and of a video.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# As long as the API lets a search be.
_SEARCH_MAX_CHARACTERS = 200
# Errors alone: a command that looks and acts says what went wrong itself, in one line.
_QUIET = structlog.make_filtering_bound_logger(40)


class Parser(argparse.ArgumentParser):
    """Says a fault of usage in one line, and takes no abbreviations: they break when a flag is added."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(WRONG_USAGE, f"{self.prog}: {plain(message)}; see `{self.prog} --help`\n")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, about: str | None = None
) -> argparse.ArgumentParser:
    """A command called *name*; *about* goes on where its one-line *summary* ends."""
    description = f"{summary[0].upper()}{summary[1:]}." + (f" {about}" if about else "")
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Any, name: str, summary: str) -> Any:
    """A command that only has commands of its own; what they are added to."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that programs read."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_settings(
    parser: argparse.ArgumentParser, settings: type[DatabaseSettings], names: Collection[str] | None = None
) -> None:
    """A flag for each setting the command needs: all of them, or *names*."""
    group = parser.add_argument_group("settings", "each is read from the environment and .env, too; a flag goes first")
    for field, about in settings.model_fields.items():
        if names is None or field in names:
            flag, variable = "--" + field.replace("_", "-"), field.upper()
            group.add_argument(flag, dest=field, metavar="VALUE", help=f"{about.description} [env {variable}]")
    parser.set_defaults(settings=settings)


def load_settings(options: argparse.Namespace, *, quiet: bool = False) -> Any:
    """The settings, secrets preferably from the environment: arguments are visible to other users of a machine.

    Raises:
        SettingsError: with every fault.
    """
    named = {name: getattr(options, name, None) for name in options.settings.model_fields}
    settings = options.settings.load(**named)
    hide_secrets_of(settings)
    configure_logging(settings.log_json)
    if quiet:
        structlog.configure(wrapper_class=_QUIET)
    return settings


def an_id(text: str) -> str:
    """An argument that can be an id."""
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:70]!r} cannot be an id: 1 to 64 letters, digits, - and _")
    return text


def statuses(text: str) -> tuple[str, ...]:
    """One status of any pipeline, or several with commas between them."""
    known = list(dict.fromkeys(name for each in TABLES.values() for name in each.by_name))
    asked = tuple(part for part in text.split(",") if part)
    unknown = next((part for part in asked if part not in known), None)
    if unknown is not None or not asked:
        raise argparse.ArgumentTypeError(f"there is no status {(unknown or '')[:70]!r}; there are {', '.join(known)}")
    return asked


def a_search(text: str) -> str:
    """A text to look for."""
    if len(text) > _SEARCH_MAX_CHARACTERS:
        raise argparse.ArgumentTypeError(
            f"it has {len(text)} characters; at most {_SEARCH_MAX_CHARACTERS} are looked for"
        )
    return storable(text)


def storable(text: str) -> str:
    """A text PostgreSQL can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    return text


def whole(low: int, high: int) -> Callable[[str], int]:
    """A check for whole numbers from *low* to *high*."""

    def check(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number from {low} to {high}")
        return int(text)

    return check


def seconds(high: float) -> Callable[[str], float]:
    """A check for a time in seconds, above 0 and up to *high*."""

    def check(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= high:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of seconds above 0 and up to {high:g}")
        return value

    return check


def json_object(text: str) -> dict[str, Any]:
    """An argument that is a JSON object."""
    try:
        value = json.loads(storable(text), parse_constant=_no_constant)
    except RecursionError:
        raise argparse.ArgumentTypeError("it is nested too deeply") from None
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"it is no JSON: {problem}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('it is not a JSON object, like {"key": "value"}')
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def wrong(text: str) -> CommandFailed:
    """A fault of usage that shows only when the command runs."""
    return CommandFailed(text, WRONG_USAGE)
