"""What must be so at every commit, written out here a second time and in no word taken from the program.

The checker sees each transaction as a whole, at the moment of its commit: which rows it changed, and which process
sent it. The names in the complaints are those of the list of invariants in the tests' own words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from simulation.truths import Truths

ORDER = {
    "stream": (
        "uploading",
        "queued",
        "processing",
        "stream_ready",
        "waitformp4",
        "mp4_processing",
        "mp4downloading",
        "r2_uploading",
        "complete",
        "error",
    ),
    "cut": ("pending", "prepared", "analyzing", "clipping", "exporting", "finalizing", "complete", "error"),
}
LEAST_PROGRESS = {
    "stream": (15, 30, 50, 60, 70, 75, 85, 95, 100),
    "cut": (0, 10, 30, 50, 90, 95, 100),
}
ALTERNATING = {("waitformp4", "mp4_processing"), ("mp4_processing", "waitformp4")}
# What the processes that only ask may change of a clip; the rest follows from the trigger.
ASKED = {"processing_details", "pending", "look_at", "version", "updated_at"}
# What a monitor may change without its epoch: details beside the status.
UNGUARDED = {"processing_details", "pending", "look_at", "version", "updated_at"}

Row = dict[str, Any]


@dataclass(slots=True)
class Transaction:
    """The rows of one commit, in the order in which they were written."""

    node: str
    rows: list[tuple[str, Row | None, Row | None]] = field(default_factory=list)

    def changed(self, table: str) -> list[tuple[Row | None, Row | None]]:
        """The rows of *table*, before and after."""
        return [(before, after) for name, before, after in self.rows if name == table]


class Checker:
    """Watches the commits of one run; *violations* has a line for everything that must not have happened."""

    def __init__(self, clock: Callable[[], datetime], truths: Truths, is_monitor: Callable[[str], bool]) -> None:
        self.violations: list[str] = []
        self.moves: Counter[str] = Counter()
        self._clock = clock
        self._truths = truths
        self._is_monitor = is_monitor
        self._epoch = 0
        self._leader: dict[int, str] = {}
        #: When whom another one succeeded.
        self.succeeded: list[tuple[datetime, str]] = []
        self._accepted_epoch: dict[str, int] = defaultdict(int)
        self._lines: Counter[str] = Counter()
        self.signals_taken = 0
        self.signals_judged = 0

    def complain(self, name: str, text: str) -> None:
        """Note a broken promise."""
        self.violations.append(f"{name} at {self._clock():%H:%M:%S.%f}: {text}")

    def leader(self) -> str | None:
        """The node that took the lease last."""
        return self._leader.get(self._epoch)

    def committed(self, done: Transaction) -> None:
        """Look at one transaction."""
        for before, after in done.changed("monitor_lease"):
            self._lease(done, before or {}, after or {})
        for before, after in done.changed("call_budget"):
            self._budget(before, after or {})
        for before, after in done.changed("clips"):
            if after is None:
                self.complain("rows stay", f"a clip was deleted by {done.node}")
            elif before is not None:
                self._clip(done, before, after)
        self._signals(done)
        for before, _ in done.changed("clip_events"):
            if before is not None:
                self.complain("history is append-only", f"a line was changed by {done.node}")

    # --- Leadership ----------------------------------------------------------------------------------

    def _lease(self, done: Transaction, before: Row, after: Row) -> None:
        if after["epoch"] < self._epoch or after["epoch"] > self._epoch + 1:
            self.complain("I3 epochs rise one by one", f"{self._epoch} -> {after['epoch']}")
        if after["epoch"] != before.get("epoch"):
            expires_at = before.get("expires_at")
            taken_over = after["holder"] != before["holder"]
            if taken_over and expires_at is not None and _is_later(expires_at, self._clock()):
                self.complain("I3 a lease is taken only when it has run out", f"{done.node} took {after['epoch']}")
            former = self.leader()
            if former not in (None, done.node):
                self.succeeded.append((self._clock(), former))
            self._leader[after["epoch"]] = done.node
        elif after["holder"] != before.get("holder"):
            self.complain("I3 a holder comes with an epoch", f"{done.node} in epoch {after['epoch']}")
        self._epoch = after["epoch"]

    def _budget(self, before: Row | None, after: Row) -> None:
        """Nothing is spent while the provider refuses all calls."""
        if before is None or not _is_later(before["blocked_until"], self._clock()):
            return
        if after["tokens"] < before["tokens"]:
            self.complain("no call in a block", f"a call was granted until {before['blocked_until']}")

    # --- Clips ---------------------------------------------------------------------------------------

    def _clip(self, done: Transaction, before: Row, after: Row) -> None:
        changed = {name for name in after if after[name] != before[name]}
        about = f"{after['id']} by {done.node}"
        if after["version"] <= before["version"]:
            self.complain("the version rises", f"{about}: {before['version']} -> {after['version']}")
        if not self._is_monitor(done.node):
            if changed - ASKED:
                self.complain("I2 only the monitor moves a clip", f"{about} changed {sorted(changed - ASKED)}")
            return
        if changed - UNGUARDED:
            self._guard(done, before, after, about)
        self._progress(before, after, about)
        if (before["status"], before["attempt"]) != (after["status"], after["attempt"]):
            self._move(done, before, after, about)
        elif any(line["kind"] == "moved" for line in self._lines_of(done, after["id"])):
            self.complain("I10 one line for each move", f"{about}: a line tells of a move that was none")

    def _guard(self, done: Transaction, before: Row, after: Row, about: str) -> None:
        epoch = after["epoch"]
        if epoch < before["epoch"] or epoch < self._accepted_epoch[after["id"]]:
            self.complain("I3 accepted epochs never fall", f"{about}: {before['epoch']} -> {epoch}")
        self._accepted_epoch[after["id"]] = epoch
        if epoch != self._epoch:
            self.complain("I3 no stale epoch is accepted", f"{about}: {epoch} while {self._epoch} leads")
        if self._leader.get(epoch) != done.node:
            self.complain("I3 who writes leads", f"{about}: epoch {epoch} belongs to {self._leader.get(epoch)}")

    def _progress(self, before: Row, after: Row, about: str) -> None:
        if after["attempt"] == before["attempt"] and after["progress"] < before["progress"]:
            self.complain("I4 progress never falls", f"{about}: {before['progress']} -> {after['progress']}")
        if (after["progress"] == 100) != (after["status"] == "complete") and after["status"] != "error":
            self.complain("progress is 100 at complete alone", f"{about}: {after['progress']} at {after['status']}")
        if after["status"] != "error" and after["progress"] < _least_progress(after):
            self.complain("progress fits its status", f"{about}: {after['progress']} at {after['status']}")
        if after["status"] not in ("complete", "error") and after["look_at"] is None:
            self.complain("an unfinished clip is looked at", about)

    def _move(self, done: Transaction, before: Row, after: Row, about: str) -> None:
        was, now = before["status"], after["status"]
        way = f"{about}: {was} ({before['attempt']}) -> {now} ({after['attempt']})"
        self.moves[f"{was}>{now}"] += 1
        if after["attempt"] != before["attempt"]:
            if after["attempt"] != before["attempt"] + 1 or was != "error" or now in ("complete", "error"):
                self.complain("I5 error is left by a retry alone", way)
        elif _order(after, now) <= _order(after, was) and (was, now) not in ALTERNATING:
            self.complain("I1 status never goes back", way)
        if was == "complete" and after["attempt"] == before["attempt"] and not self._insisted(done, after["id"]):
            self.complain("I5 complete yields only to somebody who insists", way)
        lines = [line for line in self._lines_of(done, after["id"]) if line["kind"] == "moved"]
        told = [(line["from_status"], line["to_status"], line["attempt"]) for line in lines]
        if told != [(was, now, after["attempt"])]:
            self.complain("I10 one line for each move", f"{way}: told {told}")
        for name, text in self._truths.of_move(before, after):
            self.complain(name, f"{way}: {text}")

    def _lines_of(self, done: Transaction, clip_id: str) -> list[Row]:
        return [after for _, after in done.changed("clip_events") if after and after["clip_id"] == clip_id]

    def _insisted(self, done: Transaction, clip_id: str) -> bool:
        return any(
            before["clip_id"] == clip_id and before["requested_status"] == "error" and before["insists"]
            for before, after in done.changed("clip_signals")
            if before is not None and after is None
        )

    # --- Signals -------------------------------------------------------------------------------------

    def _signals(self, done: Transaction) -> None:
        """Each signal is taken once and judged once: it goes in the transaction that writes its line."""
        judged: defaultdict[str, list[str]] = defaultdict(list)
        for before, after in done.changed("clip_signals"):
            if before is None and after is not None:
                self.signals_taken += 1
            elif before is not None and after is None:
                judged[before["clip_id"]].append(before["source"])
                self.signals_judged += 1
            else:
                self.complain("a signal is final", f"changed by {done.node}")
        for clip_id, sources in judged.items():
            told = Counter(line["source"] for line in self._lines_of(done, clip_id))
            if told != Counter(sources):
                self.complain("promise 3: each signal has its line", f"{clip_id}: {sources}, told of {dict(told)}")
            if not self._is_monitor(done.node):
                self.complain("I2 only the monitor judges", f"{done.node} took signals of {clip_id}")


def _order(row: Row, status: str) -> int:
    return ORDER[row["pipeline"]].index(status)


def _least_progress(row: Row) -> int:
    return LEAST_PROGRESS[row["pipeline"]][_order(row, row["status"])]


def _is_later(moment: Any, now: datetime) -> bool:
    """Whether *moment*, which may be an infinity, lies after *now*."""
    if isinstance(moment, datetime):
        return moment > now
    return "inf" in str(moment) and not str(moment).startswith("-")
