"""Asking: request that a clip move, add details to it, read what is pending, wake the monitor.

Small enough for another service to import alone: it needs a plain asyncpg connection and nothing else.
"""

from signals.asking import Retry, signal_retries, signal_retry, signal_status_update, update_processing_details
from signals.errors import (
    ClipHeld,
    DetailsNotAccepted,
    SignalError,
    StatusNotInPipeline,
    TooManySignals,
    UnknownClip,
)
from signals.pending import PendingSignal, read_pending
from signals.together import Asked, Signal, signal_status_updates
from signals.wakeups import CHANGED_CHANNEL, WAKE_CHANNEL, WakeUps, wake

__all__ = [
    "CHANGED_CHANNEL",
    "WAKE_CHANNEL",
    "Asked",
    "ClipHeld",
    "DetailsNotAccepted",
    "PendingSignal",
    "Retry",
    "Signal",
    "SignalError",
    "StatusNotInPipeline",
    "TooManySignals",
    "UnknownClip",
    "WakeUps",
    "read_pending",
    "signal_retries",
    "signal_retry",
    "signal_status_update",
    "signal_status_updates",
    "update_processing_details",
    "wake",
]
