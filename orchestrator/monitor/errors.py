"""What ends a monitor's turn.

MonitorError
├── LeadershipLost   another monitor leads, or may; this one stands by again
├── Stalled          the loop has not come round; the process ends so that it is started afresh
└── TaskEnded        one of its tasks has ended by itself; the same follows
"""

from __future__ import annotations


class MonitorError(Exception):
    """Root of the monitor's own errors."""


class LeadershipLost(MonitorError):
    """Nothing may be written in this epoch any more."""


class Stalled(MonitorError):
    """No round was completed for too long."""


class TaskEnded(MonitorError):
    """A task that never ends did."""
