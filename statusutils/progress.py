"""Progress, 0-100, for people; it never decides anything."""

from __future__ import annotations

from functools import lru_cache

from statusutils.tables import COMPLETE, ERROR, STREAM, StatusTable

# Progress is kept with two decimals; the span's upper end belongs to the next status.
_STEP = 0.01


def get_status_message(status: str, table: StatusTable = STREAM) -> str:
    """The sentence people see for *status*, the same everywhere.

    Raises:
        UnknownStatus: the table has no such status.
    """
    return table[status].message


def get_min_progress_for_status(status: str, table: StatusTable = STREAM) -> float:
    """The least progress (0-100) a clip at *status* has; 0 for ``error``, which keeps what was reached.

    Raises:
        UnknownStatus: the table has no such status.
    """
    return table[status].min_progress


@lru_cache(maxsize=1024)  # a few tables of ten statuses
def span(status: str, table: StatusTable = STREAM) -> tuple[float, float]:
    """The lowest and highest progress shown at *status*: up to, not including, the next status's minimum.

    An alternating pair shares the span from the lower one's minimum to the end of the higher one's, so
    that alternating never moves the bar back. At an end both bounds are the same.
    """
    row = table[status]
    if row.is_terminal:
        return row.min_progress, row.min_progress
    partners = {name for pair in table.alternating if status in pair for name in pair} | {status}
    last = max(table[name].order for name in partners)
    following = next(other for other in table.statuses if other.order > last and other.name != ERROR)
    most = following.min_progress - _STEP if row.max_progress is None else row.max_progress
    return row.min_progress, max(row.min_progress, most)


def scale_progress(status: str, step_percent: float | None, table: StatusTable = STREAM) -> float:
    """A step's own percentage (0-100, None when unknown) placed inside the span of *status*."""
    low, high = span(status, table)
    if step_percent is None or step_percent != step_percent:
        return low
    return round(low + (high - low) * min(max(step_percent, 0.0), 100.0) / 100.0, 2)


def advance_progress(current: float, status: str, step_percent: float | None, table: StatusTable = STREAM) -> float:
    """The progress to show now: never below *current*, never below the status's minimum, 100 at ``complete`` alone.

    At ``error`` it stays where it stood.
    """
    if status == ERROR:
        return current
    if status == COMPLETE:
        return 100.0
    return max(current, scale_progress(status, step_percent, table))
