"""The figures of our calls to the provider, made when first used and only once per process.

Their library is loaded then as well: a monitor that makes no call does without it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge


@cache
def calls_made() -> Counter:
    """Calls sent, by operation, by who waits for them, and by the HTTP status (`none`: no answer)."""
    from prometheus_client import Counter

    return Counter(
        "orchestrator_provider_calls",
        "Calls sent to the video provider.",
        ["operation", "call_class", "status"],
    )


@cache
def calls_left() -> Gauge:
    """Calls that may be made at once, as this process saw the shared budget last."""
    from prometheus_client import Gauge

    return Gauge(
        "orchestrator_call_budget_calls_left", "Calls to the video provider that the shared budget would grant now."
    )
