"""Logs: one plain sentence per line with its facts beside it; for people as text, for machines as JSON."""

from __future__ import annotations

import logging
import sys

import structlog


def _text_renderer() -> structlog.typing.Processor:
    # Plain tracebacks: the richer ones print local variables, and so secrets.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def configure_logging(as_json: bool) -> None:
    """Set up structlog, and send what libraries log through the same end. Call once at start."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if as_json else _text_renderer()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer] if as_json else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak up only when something is wrong. Their debug lines may hold signed addresses.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
