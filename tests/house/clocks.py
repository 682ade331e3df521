"""Clocks that are wrong: a process that believes in another time than the machine, from its start or suddenly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)
MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def library() -> Path | None:
    """Where libfaketime is; None when it is not installed."""
    return next((path for path in map(Path, _LIBRARIES) if path.exists()), None)


class WrongClock:
    """A clock for some process, wrong as *said*: `+3600` and `-86400` shift it, `+0 x2` makes it run twice as fast,
    `@2040-01-01 00:00:00` begins it there.

    Only with *rate* is the monotonic clock wrong too: shifting the wall clock does not touch it on a real machine.
    """

    def __init__(self, file: Path, said: str = "+0", *, rate: bool = False) -> None:
        self._file = file
        self._rate = rate
        file.parent.mkdir(parents=True, exist_ok=True)
        self.say(said)

    def say(self, said: str) -> None:
        """From now on (within a second) it is wrong in this way."""
        # In place: a process that reads it now must find a whole line.
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(f"{said}\n")
        unfinished.chmod(0o644)
        unfinished.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is told to live by this clock."""
        found = library()
        assert found is not None, "libfaketime is not installed"
        monotonic = {} if self._rate else {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            **monotonic,
        }
