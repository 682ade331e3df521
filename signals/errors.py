"""What can go wrong while asking.

SignalError
├── UnknownClip          there is no such clip
├── DetailsNotAccepted   the details are no JSON object PostgreSQL can hold, or too large
├── TooManySignals       the clip has as many unjudged signals as are allowed; ask again later
├── StatusNotInPipeline  the clip's pipeline has no such status
└── ClipHeld             somebody else is writing the clip just now; ask again at once
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


class StatusNotInPipeline(SignalError):
    """The clip goes through a pipeline without that status."""

    def __init__(self, status: str, pipeline: str) -> None:
        super().__init__(f"the pipeline {pipeline} has no status {status[:64]!r}")
        self.pipeline = pipeline


class ClipHeld(SignalError):
    """Somebody else is writing the clip just now."""

    def __init__(self, clip_id: str) -> None:
        super().__init__(f"the clip {clip_id} is being written by somebody else")
        self.clip_id = clip_id
