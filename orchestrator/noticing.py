"""Which clips are stuck and which need a person: two short tables, each row a rule for one clip.

Every rule is there twice, as a function of the row and as a condition in SQL, because a page of the board asks it of
one clip and a count asks it of all of them; a test holds the two against each other. The board shows the sentences.
What stands in a document may have been written by strangers: no condition here can fail, whatever it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from orchestrator.drivers.errors import NEEDS_A_PERSON
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.limits import LATE, RETRY_WAITS, moment, retry_time
from orchestrator.storage.clips import Clip
from statusutils import COMPLETE, ERROR

# Three times the median is beyond what happens to ordinary clips; two minutes keep short stages from being counted.
SLOW_FACTOR = 3.0
SLOW_MIN_SECONDS = 120.0
# From here on a person still has time to do something before the clip is failed.
NEAR_SHARE = 0.8
# Requests that come late or twice are refused all the time, and rightly; these were wrong when they were made.
MISTAKEN = frozenset({"unknown-status", "skipped-attempt", "not-failed", "retry-to-end"})


class Among(Enum):
    """Which clips a rule speaks of."""

    UNFINISHED = "unfinished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a stay at one status is measured by, in seconds; *slow_seconds* is None where too little is known."""

    near_seconds: float
    slow_seconds: float | None


Yardsticks = Mapping[str, Yardstick]


@dataclass(frozen=True, slots=True)
class Case:
    """One clip at one moment."""

    clip: Clip
    now: datetime
    yardsticks: Yardsticks

    @property
    def stood(self) -> timedelta:
        """How long it has been where it is."""
        return self.now - self.clip.status_since

    @property
    def yardstick(self) -> Yardstick | None:
        """What its stay is measured by."""
        return self.yardsticks.get(f"{self.clip.pipeline}/{self.clip.status}")

    @property
    def problem_code(self) -> str | None:
        """The code of what failed last at this status, unless the clip was seen since; may be empty."""
        problem = self.clip.processing_details.get("last_problem")
        at = moment(problem.get("at")) if isinstance(problem, Mapping) else None
        if not isinstance(problem, Mapping) or at is None or at < self.clip.status_since:
            return None
        seen_at = moment(self.clip.processing_details.get("last_checked"))
        code = problem.get("code")
        return None if seen_at is not None and seen_at > at else str(code or "")


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to notice a clip. *sql* is true or not true, never an error; ``{yardsticks}`` is its one parameter."""

    name: str
    among: Among
    sentence: str
    applies: Callable[[Case], bool]
    sql: str


def _is_slow(case: Case) -> bool:
    yardstick = case.yardstick
    return (
        yardstick is not None
        and yardstick.slow_seconds is not None
        and case.stood > timedelta(seconds=yardstick.slow_seconds)
    )


def _is_near_its_end(case: Case) -> bool:
    yardstick = case.yardstick
    return yardstick is not None and case.stood > timedelta(seconds=yardstick.near_seconds)


def _is_for_good(case: Case) -> bool:
    return retry_time(case.clip) is None and not case.clip.processing_details.get("delete_requested")


def _was_mistaken(case: Case) -> bool:
    refused = case.clip.processing_details.get("requested_status_error")
    return isinstance(refused, str) and refused.partition(":")[0] in MISTAKEN


# Times in a document are compared as text, which orders those of one zone and cannot fail on anything else.
_AT = "processing_details #>> '{{last_problem,at}}'"
_SINCE = "to_char(status_since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
_IS_TIME = "~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}([.][0-9]+)?[+]00:00$'"
_SEEN = "processing_details ->> 'last_checked'"
_HAS_PROBLEM = (
    f'({_AT} {_IS_TIME} AND {_AT} COLLATE "C" >= {_SINCE} COLLATE "C"'
    f' AND NOT coalesce({_SEEN} {_IS_TIME} AND {_SEEN} COLLATE "C" > {_AT} COLLATE "C", false))'
)
_STOOD = "extract(epoch FROM clock_timestamp() - status_since)::float8"
_MEASURE = "(({{yardsticks}}::jsonb -> (pipeline || '/' || status)) ->> '{name}')::float8"

# What counts as no in a document.
_NOTHING = """('null', 'false', '0', '""', '[]', '{{}}')"""


def _one_of(names: frozenset[str]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in sorted(names)) + ")"


STUCK = (
    Rule(
        "late",
        Among.UNFINISHED,
        "the monitor is more than a minute late with its next look",
        lambda case: case.clip.look_at is not None and case.now - case.clip.look_at > LATE,
        f"look_at < clock_timestamp() - interval '{LATE.total_seconds():.0f} s'",
    ),
    Rule(
        "problem",
        Among.UNFINISHED,
        "its last look or step failed, and it was not seen since",
        lambda case: case.problem_code is not None,
        _HAS_PROBLEM,
    ),
    Rule(
        "slow",
        Among.UNFINISHED,
        f"it has stood at its status for more than {SLOW_FACTOR:g} times the usual, the median of those completed last",
        _is_slow,
        f"{_STOOD} > {_MEASURE.format(name='slow')}",
    ),
    Rule(
        "deadline",
        Among.UNFINISHED,
        f"more than {NEAR_SHARE:.0%} of the time it may stand at its status is over",
        _is_near_its_end,
        f"{_STOOD} > {_MEASURE.format(name='near')}",
    ),
)
ATTENTION = (
    Rule(
        "failed",
        Among.FAILED,
        "it failed and is not tried again by itself",
        _is_for_good,
        f"NOT (attempt <= {len(RETRY_WAITS)} AND coalesce(processing_details ->> 'retry_at', '') {_IS_TIME})"
        f" AND coalesce(processing_details -> 'delete_requested', 'null') IN {_NOTHING}",
    ),
    Rule(
        "person",
        Among.UNFINISHED,
        "it waits for something that only a person can mend: a token, a key, an address, a bucket or a quota",
        lambda case: case.problem_code in NEEDS_A_PERSON,
        f"({_HAS_PROBLEM} AND processing_details #>> '{{{{last_problem,code}}}}' IN {_one_of(NEEDS_A_PERSON)})",
    ),
    Rule(
        "refused",
        Among.UNFINISHED,
        "the last request for it was refused as a mistake: a status it has not, an attempt out of turn",
        _was_mistaken,
        f"split_part(processing_details ->> 'requested_status_error', ':', 1) IN {_one_of(MISTAKEN)}",
    ),
)


@dataclass(frozen=True, slots=True)
class View:
    """One way of looking at the board: the clips to which one of *rules* applies."""

    name: str
    title: str
    rules: tuple[Rule, ...]

    def among(self, among: Among) -> tuple[Rule, ...]:
        """Those of its rules that speak of these clips."""
        return tuple(rule for rule in self.rules if rule.among is among)

    @property
    def is_measured(self) -> bool:
        """Whether its conditions take the yardsticks."""
        return any("{yardsticks}" in rule.sql for rule in self.rules)

    def sql(self, among: Among, yardsticks: str) -> str:
        """The condition for clips of that kind; *yardsticks* names the parameter."""
        parts = [f"coalesce({rule.sql.format(yardsticks=yardsticks)}, false)" for rule in self.among(among)]
        return f"({' OR '.join(parts)})" if parts else "false"


VIEWS: Mapping[str, View] = {
    view.name: view for view in (View("stuck", "Stuck", STUCK), View("attention", "Needs attention", ATTENTION))
}


def yardsticks_from(usual: Mapping[tuple[str, str], float]) -> dict[str, Yardstick]:
    """What stays are measured by; *usual* has the medians in seconds, where enough is known.

    At its first status a clip may wait for its owner's bytes: that is slow by nature, and only its deadline counts.
    """
    found = {}
    for name, pipeline in PIPELINES.items():
        for status, limit in pipeline.limits.items():
            median = None if status == pipeline.table.first.name else usual.get((name, status))
            slow = None if median is None else max(SLOW_FACTOR * median, SLOW_MIN_SECONDS)
            found[f"{name}/{status}"] = Yardstick(NEAR_SHARE * limit.stay.total_seconds(), slow)
    return found


def yardsticks_as_json(yardsticks: Yardsticks) -> dict[str, dict[str, float | None]]:
    """The same as the conditions in SQL take it."""
    return {place: {"near": each.near_seconds, "slow": each.slow_seconds} for place, each in yardsticks.items()}


def noticed(view: View, case: Case) -> list[Rule]:
    """The rules of *view* that apply to the clip."""
    if case.clip.status == COMPLETE:
        return []
    among = Among.FAILED if case.clip.status == ERROR else Among.UNFINISHED
    return [rule for rule in view.among(among) if rule.applies(case)]
