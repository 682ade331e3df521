"""What can go wrong while asking.

SignalError
├── UnknownClip          there is no such clip
├── DetailsNotAccepted   the details are no JSON object PostgreSQL can hold, or too large
└── TooManySignals       the clip has as many unjudged signals as are allowed; ask again later
"""

from __future__ import annotations


class SignalError(Exception):
    """Root of everything this package raises; nothing was written."""


class UnknownClip(SignalError):
    """There is no clip with that id."""

    def __init__(self, clip_id: str) -> None:
        super().__init__(f"unknown clip {clip_id[:64]!r}")
        self.clip_id = clip_id


class DetailsNotAccepted(SignalError):
    """The details cannot be stored; the text says why."""


class TooManySignals(SignalError):
    """The clip already has as many signals waiting as are allowed."""
