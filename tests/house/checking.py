"""The promises, checked from outside: reads the database and the bucket, and knows nothing of the program's rules.

Nothing of the product is imported here. The order of the statuses is written out once more, so that an error in the
product's own table cannot hide itself.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import asyncpg

# The place of each status on its way; the two in the middle may alternate, so they share one.
ORDER = {
    "uploading": 0,
    "queued": 1,
    "processing": 2,
    "stream_ready": 3,
    "waitformp4": 4,
    "mp4_processing": 4,
    "mp4downloading": 5,
    "r2_uploading": 6,
    "complete": 7,
    "error": 8,
}
_ALTERNATING = {"waitformp4", "mp4_processing"}
_FIRST = "uploading"

Row = Any
# What lies at an address: its SHA-256 and its length.
Digest = Callable[[str], Awaitable[tuple[str, int]]]


@dataclass
class Findings:
    """What was checked, and what was found to be wrong, as sentences."""

    clips: int = 0
    moves: int = 0
    writes: int = 0
    objects: int = 0
    violations: list[str] = field(default_factory=list)

    def claim(self, holds: bool, sentence: str) -> None:
        """Note *sentence* as a violation unless it *holds*."""
        if not holds:
            self.violations.append(sentence)


def is_forward(before: tuple[int, str], after: tuple[int, str]) -> bool:
    """Whether a committed change from one (attempt, status) to another is one that was promised."""
    (attempt, status), (next_attempt, next_status) = before, after
    if next_attempt != attempt:
        return next_attempt == attempt + 1 and status == "error" and next_status not in ("complete", "error")
    if status == next_status or status == "error":
        return False
    if next_status == "error":
        return True  # from anywhere, also from complete when a person insists
    if {status, next_status} == _ALTERNATING:
        return True
    return ORDER[next_status] > ORDER[status]


async def check_database(rows: asyncpg.Connection, findings: Findings, workers: Sequence[str] = ()) -> None:
    """I1, I3, I4, I5 and I10 for every clip, and that nothing waits to be judged; *workers* are logins that report."""
    clips = await rows.fetch("SELECT id, status, attempt, progress::float8, pending, r2_url, mp4_url FROM clips")
    events = await rows.fetch(
        "SELECT clip_id, kind, attempt, from_status, to_status, progress::float8, source, details"
        "  FROM clip_events ORDER BY clip_id, id"
    )
    writes = await rows.fetch("SELECT * FROM observer.writes ORDER BY clip_id, version, id")
    moves = [event for event in events if event["kind"] == "moved"]
    changes = [row for row in writes if _place(row, "from_") != _place(row, "")]
    findings.clips, findings.moves, findings.writes = len(clips), len(moves), len(writes)
    moves_of, writes_of, changes_of = by_clip(moves), by_clip(writes), by_clip(changes)
    for clip in clips:
        own = moves_of[clip["id"]]
        _check_history(clip, own, findings)
        _check_writes(clip, writes_of[clip["id"]], findings)
        recorded = [(move["attempt"], move["to_status"]) for move in own]
        changed = [(change["attempt"], change["to_status"]) for change in changes_of[clip["id"]]]
        findings.claim(recorded == changed, f"I10: {clip['id']} changed {changed}, its history says {recorded}")
        findings.claim(clip["pending"] == 0, f"{clip['id']} has {clip['pending']} unjudged signals")
    left = await rows.fetchval("SELECT count(*) FROM clip_signals")
    findings.claim(left == 0, f"{left} signals were never judged")
    await check_epochs(rows, findings, workers)


async def check_epochs(rows: asyncpg.Connection, findings: Findings, workers: Sequence[str] = ()) -> None:
    """I3: nobody but the holder of the newest term has written, and no written epoch is older than one before."""
    stale = await rows.fetch(
        "SELECT * FROM observer.writes WHERE epoch < lease_epoch AND (epoch <> former_epoch OR login IN"
        " (SELECT login FROM observer.terms))"
    )
    for row in stale:
        findings.violations.append(
            f"I3: {row['clip_id']} was written in epoch {row['epoch']} while {row['lease_epoch']} led ({row['login']})"
        )
    foreign = await rows.fetch(
        "SELECT * FROM observer.reports WHERE login IS DISTINCT FROM lease_login AND login <> ALL($1::text[])",
        list(workers),
    )
    moved = await rows.fetchval("SELECT count(*) FROM observer.writes WHERE login = ANY($1::text[])", list(workers))
    findings.claim(moved == 0, f"I2: workers have written {moved} times to clips")
    for row in foreign:
        findings.violations.append(
            f"I8: {row['login']} said {row['requested_status']} of {row['clip_id']} while {row['lease_login']} led"
        )


def _check_history(clip: Row, moves: Sequence[Row], findings: Findings) -> None:
    place = (1, _FIRST)
    for move in moves:
        after = (move["attempt"], move["to_status"])
        findings.claim(move["from_status"] == place[1], f"I10: {clip['id']} has a gap before {after}, it was {place}")
        findings.claim(is_forward(place, after), f"I1: {clip['id']} moved from {place} to {after}")
        if place[1] == "complete":
            findings.claim(_is_asked_for(move), f"I5: {clip['id']} left complete for {after} by {move['source']}")
        place = after
    findings.claim(place == (clip["attempt"], clip["status"]), f"I10: {clip['id']} is not where its history ends")
    for before, after in pairwise(moves):
        if before["attempt"] == after["attempt"]:
            findings.claim(before["progress"] <= after["progress"], f"I4: progress of {clip['id']} fell at {after}")


def _is_asked_for(move: Row) -> bool:
    return move["to_status"] == "error" and move["source"] in ("api", "dashboard", "monitor")


def _check_writes(clip: Row, writes: Sequence[Row], findings: Findings) -> None:
    for before, after in pairwise(writes):
        findings.claim(before["epoch"] <= after["epoch"], f"I3: {clip['id']} went back to epoch {after['epoch']}")
        findings.claim(before["version"] < after["version"], f"I4: {clip['id']} repeats version {after['version']}")
    for write in writes:
        before, after = _place(write, "from_"), _place(write, "")
        if before != after:
            findings.claim(is_forward(before, after), f"I1: the row of {clip['id']} went from {before} to {after}")
            findings.claim(write["epoch"] == write["lease_epoch"], f"I3: {clip['id']} moved in {write['epoch']}")
        if before[0] == after[0]:
            findings.claim(write["from_progress"] <= write["progress"], f"I4: progress of {clip['id']} fell at {after}")


def _place(row: Row, prefix: str) -> tuple[int, str]:
    return row[f"{prefix}attempt"], row["from_status" if prefix else "to_status"]


def by_clip(rows: Sequence[Row]) -> defaultdict[str, list[Row]]:
    """*rows* by their clip, in the order in which they came."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["clip_id"]].append(row)
    return found


async def check_objects(rows: asyncpg.Connection, sha256_of: Digest, findings: Findings) -> None:
    """I7: behind every complete clip's address lie exactly the bytes that the provider delivers."""
    clips = await rows.fetch("SELECT id, status, mp4_url, r2_url, file_size, processing_details FROM clips")
    for clip in clips:
        if clip["status"] != "complete":
            continue
        delivered, size_bytes = await sha256_of(clip["mp4_url"])
        stored, stored_bytes = await sha256_of(clip["r2_url"])
        findings.objects += 1
        findings.claim(stored == delivered, f"I7: the object of {clip['id']} is not what was delivered")
        findings.claim(
            clip["file_size"] == size_bytes == stored_bytes,
            f"I7: {clip['id']} is said to have {clip['file_size']} bytes",
        )
        told = json.loads(clip["processing_details"]).get("sha256")
        findings.claim(told in (None, stored), f"I7: the recorded SHA-256 of {clip['id']} is another one")


async def check_acknowledged(
    rows: asyncpg.Connection, acknowledged: Sequence[tuple[str, str]], findings: Findings
) -> None:
    """I11: each signal that was answered with 2xx, by clip and mark, stands in the history."""
    found = await rows.fetch("SELECT clip_id, details ->> 'mark' AS mark FROM clip_events WHERE details ? 'mark'")
    marks = {(row["clip_id"], row["mark"]) for row in found}
    for clip_id, mark in acknowledged:
        findings.claim((clip_id, mark) in marks, f"I11: the acknowledged signal {mark} of {clip_id} is in no history")


class Ratchet:
    """I4 as a client sees it: what it is told of a clip never goes back."""

    def __init__(self, name: str, findings: Findings) -> None:
        self._name = name
        self._findings = findings
        self._seen: dict[str, tuple[int, int, float, int]] = {}
        self.answers = 0

    def see(self, clip_id: str, told: Row) -> None:
        """Take in one answer or event with `attempt`, `status`, `progress` and `version`."""
        now = (told["attempt"], ORDER[told["status"]], float(told["progress"]), told["version"])
        before = self._seen.get(clip_id, now)
        self._findings.claim(
            before[:3] <= now[:3] and before[3] <= now[3], f"I4: {self._name} saw {clip_id} go from {before} to {now}"
        )
        self._seen[clip_id] = now
        self.answers += 1
