"""`orchestrator doctor`: looks at every setting and everything the program depends on, and says what to mend."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from orchestrator.commands.parsing import add_command, add_json, add_settings
from orchestrator.settings import Settings


def add_doctor(commands: Any) -> None:
    """Declare the command."""
    about = "Ends with exit code 1 if anything has to be mended. Nothing is changed unless --write is given."
    parser = add_command(commands, "doctor", _doctor, "check every setting and dependency, say what to mend", about)
    parser.add_argument("--write", action="store_true", help="also write a tiny object into the bucket, and delete it")
    add_json(parser)
    add_settings(parser, Settings)


def _doctor(options: argparse.Namespace) -> int:
    from orchestrator.commands.doctor.examining import examine

    flags = {name: getattr(options, name) for name in Settings.model_fields}
    return asyncio.run(examine(flags, as_json=options.json, write=options.write))
