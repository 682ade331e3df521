"""What a driver's failure means to a clip, for looks and effects alike."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from orchestrator.drivers.errors import DriverError, TransientError

# No service sends a clip to sleep for longer, whatever it names: the call budget keeps its bans by itself.
LONGEST_ASKED_WAIT = timedelta(hours=1)
# The codes of what is no driver's: the row refuses what was decided; the program itself broke on the clip.
DATABASE_REFUSED = "database_refused"
INTERNAL = "internal"


def asked_wait(retry_after: float | None) -> timedelta:
    """The wait that a service asked for, within bounds; none when it named none that makes sense."""
    if retry_after is None or not retry_after > 0:
        return timedelta()
    return timedelta(seconds=min(retry_after, LONGEST_ASKED_WAIT.total_seconds()))


def last_problem(problem: DriverError, now: datetime) -> dict[str, Any]:
    """The failure as it stands in the clip's document."""
    return {"code": problem.code, "text": problem.text[:500], "at": now.isoformat()}


def broken(what: str) -> TransientError:
    """A fault of ours as a failure of *what*: it counts as a failed try, so that it ends. The log has the rest."""
    return TransientError(INTERNAL, f"{what} broke; the log says where")
