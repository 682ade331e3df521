"""Logs: one plain sentence per line with its facts beside it; for people as text, for machines as JSON.

Secrets are kept out where they are handled. What still comes this way in somebody else's words (an exception that
quotes a row, a library that quotes an address) is taken out of the line before it is written.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterable
from typing import TextIO
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import BaseModel, SecretStr

_HIDDEN = "(hidden)"
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
# Shorter ones would blank out ordinary words; whoever has such a password has no secret.
_SHORTEST_CHARACTERS = 8
# What an address may carry beside its place: user and password, and the query of a signed one.
_USER = re.compile(r"(?<=://)[^/\s@'\"<>]+@")
_QUERY = re.compile(r"(?<=[\w/%~.-])\?[^\s'\"<>=]*=[^\s'\"<>)\]]*")
# Three parts of base64, of which the first two begin like a JSON object.
_SIGNED_TOKEN = re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*")

_secrets: set[str] = set()


def hide_secrets_of(settings: BaseModel) -> None:
    """From now on no line of the log shows any secret of *settings*."""
    for value in vars(settings).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, SecretStr):
                _secrets.update(
                    found for found in _forms(each.get_secret_value()) if len(found) >= _SHORTEST_CHARACTERS
                )


def _forms(secret: str) -> Iterable[str]:
    """The secret; of an address only its password, as it stands there and as it is meant."""
    if "://" not in secret:
        return (secret,)
    try:
        password = urlsplit(secret).password or ""
    except ValueError:
        return (secret,)
    return (password, unquote(password))


def without_secrets(text: str) -> str:
    """*text* without what nobody may read in a log."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _SIGNED_TOKEN.sub(_HIDDEN, _QUERY.sub(f"?{_HIDDEN}", _USER.sub("", text)))


class _Written:
    """The stream that logs go to, as far as loggers use it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write *text* without secrets."""
        return self._stream.write(without_secrets(text))

    def flush(self) -> None:
        """Hand on what was written."""
        self._stream.flush()


def printable(text: str) -> str:
    """*text* without what a terminal would obey; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else _UNPRINTABLE for letter in text)


def _printable_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What others said, as letters: a reason may come from a provider, a name from anybody."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    # Plain: the richer ones print local variables, and so secrets.
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    out.write(printable(written.getvalue()))


class _OfLibraries(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _text_renderer() -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)


def configure_logging(as_json: bool) -> None:
    """Set up structlog, and send what libraries log through the same end. Call once at start."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if as_json else _text_renderer()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written: TextIO = _Written(sys.stderr)  # type: ignore[assignment]  # all that loggers need of one
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer]
        if as_json
        else [*shared, _printable_values, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(written),
        cache_logger_on_first_use=True,
    )
    # Libraries speak up only when something is wrong. Their debug lines may hold signed addresses.
    handler = logging.StreamHandler(written)
    handler.setFormatter(_OfLibraries("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
