"""The limits of the cut pipeline. It all happens on one machine: what fails thrice in a minute waits for a retry."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.pipelines.limits import Limit, Limits

# Ten, twenty and forty seconds apart: a disk that is being cleared, a child that was killed.
_TRIES = 3

LIMITS: Limits = {
    # Behind as many other jobs as a day's queue holds.
    "pending": Limit(timedelta(hours=24), _TRIES),
    "prepared": Limit(timedelta(minutes=10), _TRIES),
    "analyzing": Limit(timedelta(minutes=10), _TRIES),
    # Hours of video on a slow machine; one clip that hangs is ended much sooner.
    "clipping": Limit(timedelta(hours=24), _TRIES),
    "exporting": Limit(timedelta(hours=2), _TRIES),
    # Finished files are probed in milliseconds: five minutes without an end are a stall.
    "finalizing": Limit(timedelta(minutes=5), _TRIES, says="Stalled at 95%"),
}
