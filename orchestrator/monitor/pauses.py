"""Leaving single clips alone for a while, each time for longer; known to this process alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    seconds: float


class Pauses:
    """Clips that are left alone, by the seconds of *monotonic*."""

    def __init__(self, monotonic: Callable[[], float], first_seconds: float, longest_seconds: float) -> None:
        self._monotonic = monotonic
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._by_clip: dict[str, _Pause] = {}

    def put(self, clip_id: str) -> None:
        """Leave the clip alone: twice as long as the last time."""
        before = self._by_clip.get(clip_id)
        seconds = min(2 * before.seconds, self._longest_seconds) if before else self._first_seconds
        self._by_clip[clip_id] = _Pause(self._monotonic() + seconds, seconds)

    def lift(self, clip_id: str) -> None:
        """Forget the clip: all is well with it."""
        self._by_clip.pop(clip_id, None)

    def now(self) -> list[str]:
        """The clips to be left alone now. What is long over is dropped: a clip may never come up again."""
        now = self._monotonic()
        oldest = now - self._longest_seconds
        self._by_clip = {clip_id: pause for clip_id, pause in self._by_clip.items() if pause.until >= oldest}
        return [clip_id for clip_id, pause in self._by_clip.items() if pause.until > now]
