"""How a command ends other than well.

CommandFailed        said in one line on stderr, with the exit code
└── DatabaseAway     the database does not answer now; whoever can wait may come again
OutputClosed         whoever read our output has left
"""

from __future__ import annotations

# 1: the clip or the check failed, or what was asked for cannot be done now. 2: wrong usage or settings.
NOT_DONE = 1
WRONG_USAGE = 2


class CommandFailed(Exception):
    """Ends the command; the text names what is wrong and what mends it, and holds no secret."""

    def __init__(self, text: str, exit_code: int = NOT_DONE) -> None:
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code


class DatabaseAway(CommandFailed):
    """The database does not answer."""


class OutputClosed(Exception):
    """Nobody reads what is printed any more."""
