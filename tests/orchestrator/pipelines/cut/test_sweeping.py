"""What is left behind goes after its time, and what is still wanted stays."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator.drivers.errors import TransientError
from orchestrator.pipelines.cut import hands as hands_module
from orchestrator.pipelines.cut.hands import CutHands
from orchestrator.pipelines.cut.sweeping import OLD_SECONDS
from orchestrator.pipelines.cut.workshop import Workshop


def _make(path: Path, *, old: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    if old:
        then = time.time() - OLD_SECONDS - 60
        os.utime(path, (then, then))
        os.utime(path.parent, (then, then))


async def test_uploads_nobody_wants_go_and_those_of_running_jobs_stay(
    hands: CutHands, workshop: Workshop, stored: Any, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"bytes")
    for upload_id in ("unused", "running", "fresh", "ended"):
        await stored(file, upload_id)
    await owner.execute("UPDATE uploads SET used_at = used_at - interval '30 hours' WHERE id <> 'fresh'")
    for job_id, upload_id in (("job1", "running"), ("job2", "ended")):
        await owner.execute(
            "INSERT INTO clips (id, pipeline, processing_details)"
            " VALUES ($1, 'cut', jsonb_build_object('upload_id', $2::text))",
            job_id,
            upload_id,
        )
    await owner.execute("UPDATE clips SET status = 'error', look_at = NULL WHERE id = 'job2'")
    swept = await hands.tidy()
    assert swept["uploads"] == 2
    assert sorted(path.name.partition(".")[0] for path in workshop.uploads.iterdir()) == ["fresh", "running"]
    assert sorted(row["id"] for row in await owner.fetch("SELECT id FROM uploads")) == ["fresh", "running"]


async def test_what_crashes_have_left_goes_after_a_day(
    hands: CutHands, workshop: Workshop, owner: asyncpg.Connection
) -> None:
    for name in ("a.123.part", "b.tus", "b.tus.json"):
        _make(workshop.uploads / name, old=True)
    _make(workshop.uploads / "c.tus", old=False)
    await owner.execute("INSERT INTO clips (id, pipeline) VALUES ('running', 'cut')")
    for job_id in ("running", "gone"):
        _make(workshop.work / job_id / "source", old=True)
    _make(workshop.work / "young" / "source", old=False)
    swept = await hands.tidy()
    assert (swept["unfinished_uploads"], swept["work_directories"]) == (3, 1)
    assert sorted(path.name for path in workshop.work.iterdir()) == ["running", "young"]
    assert [path.name for path in workshop.uploads.iterdir()] == ["c.tus"]


async def test_a_disk_that_fails_is_not_taken_for_the_database(
    hands: CutHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Workshop) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hands_module, "abandoned_jobs", fails)
    with pytest.raises(TransientError) as problem:
        await hands.tidy()
    assert problem.value.code == "disk"
