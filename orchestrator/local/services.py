"""What keeps running: services that are started again when they end, with a growing pause, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from .errors import KeepsEnding, LocalError, NotInstalled

_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
# Whoever ran this long was healthy; the next end is a new story.
_HEALTHY_SECONDS = 60.0
# 0.5 + 1 + 2 + 4 + 8 = 15 s of pauses: longer than what a killed run needs to let go of its directories.
_ENDS_IN_A_ROW = 6
_WRONG_SETTINGS = 2  # the exit code of our commands for settings that cannot be used


class Service(Protocol):
    """Something that runs beside us. Started, stopped and killed on the main thread."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def is_running(self) -> bool:
        """False before the start and once it has ended."""

    @property
    def exit_code(self) -> int | None:
        """How its program ended, where that means something."""

    async def start(self) -> None:
        """Return once it does its work; raises a LocalError when it cannot."""

    async def stop(self) -> None:
        """Return once it has ended, by force if it must be. Safe to repeat."""

    def kill(self) -> None:
        """End it at once and wait for nothing."""

    def last_words(self) -> str:
        """Why it ended, as far as it said."""


async def keep_running(service: Service, ready: asyncio.Event, say: Callable[[str], None]) -> NoReturn:
    """Start *service*, set *ready* once it works, and start it again whenever it ends.

    Raises:
        KeepsEnding: it ended too often in a row, or said that its settings are wrong.
        NotInstalled: its program is not here.
    """
    ends_in_a_row = 0
    while True:
        started_at = time.monotonic()
        try:
            await service.start()
            ready.set()
            while service.is_running:  # noqa: ASYNC110 - the end of a process sets no event
                await asyncio.sleep(_POLL_SECONDS)
            # It may have let go of some of what it held, but not of all; and its last lines are still to be read.
            await service.stop()
            reason = service.last_words()
        except NotInstalled:
            raise
        except LocalError as exc:
            await service.stop()
            reason = str(exc)
        if service.exit_code == _WRONG_SETTINGS:
            raise KeepsEnding(f"{service.name} cannot use its settings: {reason}", wrong_settings=True)
        ends_in_a_row = 1 if time.monotonic() - started_at >= _HEALTHY_SECONDS else ends_in_a_row + 1
        if ends_in_a_row >= _ENDS_IN_A_ROW:
            raise KeepsEnding(f"{service.name} ended {ends_in_a_row} times in a row: {reason}")
        pause_seconds = pause_before_restart(ends_in_a_row)
        say(f"{service.name} ended and is started again in {pause_seconds:g} s: {reason}")
        await asyncio.sleep(pause_seconds)


def pause_before_restart(ends_in_a_row: int) -> float:
    """Half a second after the first end, doubling, half a minute at most."""
    return float(min(_FIRST_PAUSE_SECONDS * 2 ** (ends_in_a_row - 1), _LONGEST_PAUSE_SECONDS))
