"""The law: which statuses exist, in what order, which moves are allowed, what progress people see.

Pure: no clock, no I/O, no settings, nothing imported but the standard library.
"""

from statusutils.errors import LawError, UnknownPipeline, UnknownStatus
from statusutils.merging import Judgement, Moved, Noted, Outranked, Refused, Verdict, judge, merge_requested
from statusutils.progress import (
    advance_progress,
    get_min_progress_for_status,
    get_status_message,
    scale_progress,
    span,
)
from statusutils.tables import COMPLETE, CUT, ERROR, STREAM, TABLES, Status, StatusTable, table_for
from statusutils.transitions import Position, Request, Rule, is_valid_status_transition, refusal

__all__ = [
    "COMPLETE",
    "CUT",
    "ERROR",
    "STREAM",
    "TABLES",
    "Judgement",
    "LawError",
    "Moved",
    "Noted",
    "Outranked",
    "Position",
    "Refused",
    "Request",
    "Rule",
    "Status",
    "StatusTable",
    "UnknownPipeline",
    "UnknownStatus",
    "Verdict",
    "advance_progress",
    "get_min_progress_for_status",
    "get_status_message",
    "is_valid_status_transition",
    "judge",
    "merge_requested",
    "refusal",
    "scale_progress",
    "span",
    "table_for",
]
