"""A fault that never fired proves nothing: each kind was really met in this run, in the places where it can bite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulation.expected import EXPECTED

from statusutils import STREAM

if TYPE_CHECKING:
    from lanes.conftest import Figures

STATUSES = tuple(name for name in STREAM.by_name if name not in ("complete", "error"))
_EXCEPTIONS = (
    "AssertionError", "InterfaceError", "InternalClientError", "KeyError", "MemoryError", "OSError", "PermanentError",
    "PostgresError", "RecursionError", "TimeoutError", "TransientError",
)  # fmt: skip
_CALLS = ("list", "get", "get_downloads", "enable_download", "copy", "direct_upload", "tus_upload", "delete")
_ANSWERS = (
    "401", "403", "404", "429", "429-date", "429-two-hours", "500", "500-after", "502-page", "503-wait", "504", "page",
    "silent", "silent-after", "drip", "empty", "cut", "null", "huge", "deep", "redirect", "no-envelope", "not-utf8",
)  # fmt: skip

# By lane what it must have met, as patterns of "fault @ where"; of several in one row any will do.
REQUIRED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "simulation": tuple((fault,) for fault in sorted(EXPECTED)),
    # Only an MP4 that is late, or a private one, is seen being made.
    "crashes": tuple((f"killed at a step @ {status}",) for status in STATUSES if status != "mp4_processing"),
    "kills": (
        ("SIGKILL @ leader",), ("SIGKILL @ monitor",), ("SIGKILL @ serve",), ("SIGSTOP @ *",), ("SIGTERM @ *",),
        # Which of ten statuses a clip is at when the leader is hit is chance; both halves of the way are met.
        tuple(f"SIG* of the leader @ {status}" for status in STATUSES[:4]),
        tuple(f"SIG* of the leader @ {status}" for status in STATUSES[4:]),
    ),
    "splitbrain": (
        ("SIGSTOP in the midst of a download @ *",), ("SIGSTOP in the midst of a write @ *",),
        ("SIGKILL of the leader",), ("lease forced away",), ("half-open connection @ leader",),
    ),
    "outages": (
        ("restart: restart @ *",), ("restart: restart_in_take_over @ *",),
        ("restart: restart_as_a_leader_is_killed @ *",), ("terminate: end_leader @ *",),
        ("terminate: end_listener @ *",), ("freeze: *",), ("failover*",), ("black hole: *",), ("reset: *",),
        # Faults wait for clips that are there (AIMED_AT); which other statuses they meet is chance.
        ("* @ processing",), ("* @ mp4downloading",), ("* @ r2_uploading",),
    ),
    "clocks": (("clock of the monitor @ *",), ("clock of the database @ *",)),
    "poison": tuple((f"{name} @ {place}",) for name in _EXCEPTIONS for place in ("plan", "effect", "judging")),
    "provider": (
        *((f"{answer} @ {call}",) for answer in _ANSWERS for call in _CALLS),
        ("another host @ *",), ("breaks later @ video",), ("ready-at-39 @ video",), ("* @ outage",),
    ),
    "bodies": (("cut of a large file @ ranges",), ("an hour of silence @ *",), ("another file @ *",), ("503 @ *",)),
    "sql": (("a hostile session @ holds rows",),),
    "webhooks": (
        ("webhook reordered @ before judged",), ("webhook reordered @ while judged",), ("webhook duplicated @ *",),
        ("webhook late @ complete",), ("webhook before the clip",),
    ),
    "streams": (("client slow @ events",), ("client vanished @ events",), ("reconnect storm @ events",)),
}  # fmt: skip


def missing(required: tuple[tuple[str, ...], ...], met: Mapping[str, int]) -> list[str]:
    """The rows of *required* that nothing in *met* fits."""
    seen = [fault for fault, times in met.items() if times > 0]
    return [
        " or ".join(row)
        for row in required
        if not any(fnmatchcase(fault, pattern) for fault in seen for pattern in row)
    ]


def test_each_fault_was_met_where_it_can_bite(lane_directory: Path, figures: Figures) -> None:
    root = lane_directory.parent
    told = root / "invocation.json"
    ran = set(json.loads(told.read_text())) if told.exists() else set()
    judged = [name for name in REQUIRED if name in ran and (root / name / "sometimes.json").exists()]
    silent = [name for name in REQUIRED if name in ran and name not in judged]
    left_out = [name for name in REQUIRED if name not in ran]
    never: dict[str, list[str]] = {}
    for name in judged:
        absent = missing(REQUIRED[name], json.loads((root / name / "sometimes.json").read_text()))
        if absent:
            never[name] = absent
    wanted = sum(len(REQUIRED[name]) for name in judged)
    figures.tell(
        faults_met=f"{wanted - sum(map(len, never.values()))} of {wanted}",
        lanes_not_judged=", ".join(left_out) or "none",
    )
    assert not silent, f"lanes that ran and told nothing of their faults: {silent}"
    assert not never, "faults that were never met, so nothing is proved about them:\n" + json.dumps(never, indent=1)


@pytest.mark.parametrize(
    ("met", "absent"),
    [
        ({"a @ x": 1, "b": 2}, []),
        ({"a @ x": 1}, ["b or c*"]),
        ({"a @ y": 1, "cc": 1}, ["a @ x"]),
        ({"a @ x": 0, "b": 1}, ["a @ x"]),
    ],
)
def test_what_was_not_met_is_named(met: dict[str, int], absent: list[str]) -> None:
    assert missing((("a @ x",), ("b", "c*")), met) == absent
