"""What a check finds: a line each, with what mends it; and the limit that no check exceeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

log = structlog.get_logger(__name__)

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; *remedy* where something is to be mended. Neither holds a secret."""

    verdict: Verdict
    what: str
    text: str
    remedy: str | None = None


def ok(what: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding("ok", what, text)


def warn(what: str, text: str, remedy: str) -> Finding:
    """It works, or was not looked at, and somebody should know."""
    return Finding("warn", what, text, remedy)


def fail(what: str, text: str, remedy: str) -> Finding:
    """It has to be mended."""
    return Finding("fail", what, text, remedy)


async def within(what: str, limit_seconds: float, check: Callable[[], Awaitable[Sequence[Finding]]]) -> list[Finding]:
    """What *check* finds; one that takes too long, or breaks, is a finding as well."""
    try:
        async with asyncio.timeout(limit_seconds):
            return list(await check())
    except TimeoutError:
        text = f"no answer within {limit_seconds:g} s"
        return [fail(what, text, "look at the network between here and there, and try again")]
    except Exception as problem:
        # The edge for one check: the others are worth doing. The text may quote anything, so only its kind is said.
        log.error("a check broke", check=what, problem=type(problem).__name__)
        return [fail(what, f"the check itself broke ({type(problem).__name__})", "report this, with your version")]
