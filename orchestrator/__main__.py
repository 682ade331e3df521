"""The command `orchestrator`: exit codes are 0 done, 1 the clip or check failed, 2 wrong usage or settings."""

from __future__ import annotations

import os
import sys

from orchestrator import __version__
from orchestrator.commands.clips import add_clips
from orchestrator.commands.doctor import add_doctor
from orchestrator.commands.failures import WRONG_USAGE, CommandFailed, OutputClosed
from orchestrator.commands.parsing import Parser
from orchestrator.commands.printing import complain
from orchestrator.commands.processes import add_processes
from orchestrator.commands.pruning import add_prune
from orchestrator.commands.webhook import add_webhook
from orchestrator.settings import SettingsError

# As a shell reports a program that was ended by SIGINT, and one that wrote into a closed pipe.
_INTERRUPTED = 130
_READER_GONE = 141


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except CommandFailed as problem:
        complain(problem.text)
        return problem.exit_code
    except SettingsError as problem:
        complain("The settings cannot be used:")
        for fault in problem.faults:
            print(f"  {fault}", file=sys.stderr)
        return WRONG_USAGE
    except OutputClosed:
        # Python would try to write the rest at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> Parser:
    parser = Parser(prog="orchestrator", description="Takes video clips from upload to a finished file in your bucket.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_processes(commands)
    add_prune(commands)
    add_clips(commands)
    add_webhook(commands)
    add_doctor(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
