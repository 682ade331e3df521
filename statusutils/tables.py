"""The status tables: every status a clip can have, in order, as data.

A pipeline is one table. Whatever depends on statuses (the transition rules, progress,
the database trigger, pages, the API schema, the chart in the docs) reads a table or is
tested against it; no rule is written a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from statusutils.errors import UnknownPipeline, UnknownStatus

COMPLETE = "complete"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Status:
    """One row of a status table.

    *order* decides, *min_progress* (0-100) is for people. ``fact`` marks a status that states
    something about the outside world: it is entered on evidence, never on somebody's word.
    *max_progress* is the most a step shows here; None: as far as the next status's minimum.
    """

    name: str
    order: int
    min_progress: float
    message: str
    fact: bool = True
    max_progress: float | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether no driver leaves this status; only a retry leaves ``error``."""
        return self.name in (COMPLETE, ERROR)


@dataclass(frozen=True, eq=False)
class StatusTable:
    """The ordered statuses of one pipeline, ending in ``complete`` and ``error``.

    *alternating* holds the pairs that may move both ways. A table is equal to itself alone, so that what follows from
    one is looked up in no time.
    """

    pipeline: str
    statuses: tuple[Status, ...]
    alternating: frozenset[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        orders = [status.order for status in self.statuses]
        floors = [status.min_progress for status in self.statuses if status.name != ERROR]
        if orders != sorted(set(orders)) or floors != sorted(floors):
            raise ValueError(f"the {self.pipeline} table does not ascend in order and minimum progress")
        if [status.name for status in self.statuses[-2:]] != [COMPLETE, ERROR] or floors[-1] != 100:
            raise ValueError(f"the {self.pipeline} table does not end in complete (100) and error")

    @cached_property
    def by_name(self) -> dict[str, Status]:
        """The rows by status name."""
        return {status.name: status for status in self.statuses}

    @property
    def first(self) -> Status:
        """The status a new clip starts at."""
        return self.statuses[0]

    def __getitem__(self, name: str) -> Status:
        try:
            return self.by_name[name]
        except KeyError:
            raise UnknownStatus(self.pipeline, name, tuple(self.by_name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def may_alternate(self, one: str, other: str) -> bool:
        """Whether the two statuses form a pair that moves both ways."""
        return frozenset((one, other)) in self.alternating


# Minimum progress as the system before this one showed it, so that nobody's bar jumps.
STREAM = StatusTable(
    pipeline="stream",
    statuses=(
        Status("uploading", 1, 15, "Uploading to Cloudflare"),
        Status("queued", 2, 30, "Queued at Cloudflare"),
        Status("processing", 3, 50, "Cloudflare is encoding"),
        Status("stream_ready", 4, 60, "Ready to stream, preparing the MP4"),
        Status("waitformp4", 5, 70, "MP4 requested"),
        Status("mp4_processing", 6, 75, "Cloudflare is making the MP4"),
        Status("mp4downloading", 7, 85, "Fetching the MP4"),
        Status("r2_uploading", 8, 95, "Writing the file to your bucket"),
        Status(COMPLETE, 9, 100, "Complete"),
        Status(ERROR, 10, 0, "Failed", fact=False),
    ),
    alternating=frozenset({frozenset({"waitformp4", "mp4_processing"})}),
)

# Marks and words as the clients of the systems before this one know them.
CUT = StatusTable(
    pipeline="cut",
    statuses=(
        Status("pending", 1, 0, "Waiting to start", fact=False),
        Status("prepared", 2, 10, "File prepared"),
        Status("analyzing", 3, 30, "Analyzing video..."),
        Status("clipping", 4, 50, "Cutting clips...", max_progress=80),
        Status("exporting", 5, 90, "Exporting clips..."),
        Status("finalizing", 6, 95, "Checking the finished clips"),
        Status(COMPLETE, 7, 100, "Job completed"),
        Status(ERROR, 8, 0, "Failed", fact=False),
    ),
)

TABLES: dict[str, StatusTable] = {table.pipeline: table for table in (STREAM, CUT)}


def table_for(pipeline: str) -> StatusTable:
    """The status table of *pipeline*.

    Raises:
        UnknownPipeline: there is no such pipeline.
    """
    try:
        return TABLES[pipeline]
    except KeyError:
        raise UnknownPipeline(pipeline, tuple(TABLES)) from None
