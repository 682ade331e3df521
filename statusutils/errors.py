"""What the law says when it is asked about something it does not know.

LawError
├── UnknownPipeline
└── UnknownStatus
"""

from __future__ import annotations


class LawError(ValueError):
    """Root of everything this package raises."""


class UnknownPipeline(LawError):
    """No status table carries that name."""

    def __init__(self, pipeline: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown pipeline {pipeline!r}; known are {', '.join(known)}")


class UnknownStatus(LawError):
    """The pipeline's table has no such status."""

    def __init__(self, pipeline: str, status: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown status {status!r} in pipeline {pipeline!r}; known are {', '.join(known)}")
