"""What is looked at every ten seconds under a steady load, and whether it has stayed flat."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import asyncpg

_TABLES = ("clips", "clip_events", "clip_signals", "monitor_lease", "call_budget")
_SIZES = """
SELECT c.relname AS name, pg_table_size(c.oid) AS heap, pg_indexes_size(c.oid) AS indexes,
       s.n_dead_tup AS dead, s.n_tup_upd AS updated, s.n_tup_hot_upd AS hot, s.autovacuum_count AS vacuums
  FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1)
"""
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
# What was asked for and moved a clip since the line $1: how long it took from the asking to the writing.
_LATENCIES = """
SELECT coalesce(max(id), $1) AS last, count(*) AS lines,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
           ORDER BY extract(epoch FROM at - (details ->> 'asked_at')::timestamptz) * 1000)
           FILTER (WHERE kind = 'moved' AND details ? 'asked_at') AS milliseconds
  FROM clip_events WHERE id > $1
"""


@dataclass(frozen=True, slots=True)
class Flatness:
    """How much *name* grew since the warm-up, by the trend over all samples, and how much it may."""

    name: str
    middle: float
    growth: float
    allowed: float

    @property
    def is_flat(self) -> bool:
        """Whether it stayed where it was, or fell."""
        return self.growth <= self.allowed


# What has to be flat, with the growth below which nothing is said of it: some pages, some rows, some megabytes of
# what the allocator keeps, some milliseconds of noise. Of history, which grows by design, the bytes of a line.
FLAT: Mapping[str, float] = {
    "clips KiB": 1024,
    "clips indexes KiB": 1024,
    "clip_signals KiB": 1024,
    "clip_signals indexes KiB": 1024,
    "monitor_lease KiB": 64,
    "clips dead rows": 3_000,
    "clip_signals dead rows": 15_000,
    "history bytes a line": 10,
    "history index bytes a line": 10,
    "monitor MiB": 3,
    "web MiB": 3,
    "postgres MiB": 10,
    "monitor fds": 2,
    "web fds": 2,
    "connections": 2,
    "p50 ms": 2,
    "p99 ms": 10,
}
# Of the middle value: a tenth more at the end than at the beginning is no noise of a median slope.
_SHARE = 0.1


def flatness(samples: Sequence[Mapping[str, float]], warm_up_seconds: float) -> list[Flatness]:
    """Each of `FLAT` by the trend since the warm-up: the median of the slopes between any two samples."""
    warm = [sample for sample in samples if sample["seconds"] >= warm_up_seconds]
    span = warm[-1]["seconds"] - warm[0]["seconds"]
    found = []
    for name, least in FLAT.items():
        middle = statistics.median(sample[name] for sample in warm)
        slopes = [(b[name] - a[name]) / (b["seconds"] - a["seconds"]) for a, b in combinations(warm, 2)]
        found.append(Flatness(name, middle, statistics.median(slopes) * span, max(least, _SHARE * middle)))
    return found


class Sampler:
    """Looks at the database and at the processes by their ids."""

    def __init__(self, connection: asyncpg.Connection, processes: Mapping[str, int]) -> None:
        self._connection = connection
        self._processes = processes
        self._last_line = 0

    async def sample(self, seconds: float) -> dict[str, float]:
        """Everything at this moment, *seconds* after the beginning."""
        rows = {row["name"]: row for row in await self._connection.fetch(_SIZES, list(_TABLES))}
        lines = await self._connection.fetchval("SELECT coalesce(max(id), 0) FROM clip_events") or 1
        since = await self._connection.fetchrow(_LATENCIES, self._last_line)
        self._last_line = since["last"]
        p50, p99 = since["milliseconds"] or (0.0, 0.0)
        found: dict[str, float] = {"seconds": seconds, "lines": since["lines"]}
        for name, row in rows.items():
            found |= {f"{name} KiB": row["heap"] / 1024, f"{name} indexes KiB": row["indexes"] / 1024,
                      f"{name} dead rows": row["dead"], f"{name} vacuums": row["vacuums"],
                      f"{name} HOT share": row["hot"] / max(row["updated"], 1)}  # fmt: skip
        events = rows["clip_events"]
        found |= {
            "history bytes a line": events["heap"] / lines,
            "history index bytes a line": events["indexes"] / lines,
            "connections": await self._connection.fetchval(_CONNECTIONS),
            "p50 ms": p50,
            "p99 ms": p99,
        }
        for name, process in self._processes.items():
            found |= {f"{name} MiB": memory_bytes(process) / 1024**2, f"{name} fds": open_files(process)}
        return found


def memory_bytes(process: int) -> int:
    """What the process and its children hold in memory, each shared page in equal parts.

    Without PostgreSQL's own cache, which fills up to `shared_buffers`, as it should.
    """
    return sum(_own_memory(each) for each in (process, *_children(process)))


def _own_memory(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0  # it has ended meanwhile
    held = ("Pss_Anon:", "Pss_File:")
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(held))


def _children(process: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def open_files(process: int) -> int:
    """Its open descriptors."""
    try:
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return 0


def write_csv(path: Path, samples: Sequence[Mapping[str, Any]]) -> None:
    """Keep *samples*, a line each."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(samples[0]))
        writer.writeheader()
        writer.writerows({key: round(value, 3) for key, value in sample.items()} for sample in samples)


def read_csv(path: Path) -> list[dict[str, float]]:
    """The other way."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
