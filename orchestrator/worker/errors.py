"""What ends a worker's hold.

WorkerError
└── HoldLost    the job is another's by now, or may be; nothing of it may be told or changed any more
"""

from __future__ import annotations


class WorkerError(Exception):
    """Root of the worker's own errors."""


class HoldLost(WorkerError):
    """The job is not held any more."""
