"""What crashes and time leave in the three directories, found and removed."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from orchestrator.pipelines.cut.workshop import Workshop

# Longer than any upload that is still alive has been silent, and than any job has not touched its directory's time.
OLD_SECONDS = 24 * 3600.0
# Directories looked at in one sweep: the rest is left for the next hour.
MOST = 10_000


def forget_files(workshop: Workshop, upload_ids: Collection[str]) -> int:
    """Remove the bytes of uploads whose rows are gone; how many files that were."""
    wanted = set(upload_ids)
    files = [path for path in _entries(workshop.uploads) if path.name.partition(".")[0] in wanted]
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def abandoned_jobs(workshop: Workshop) -> list[str]:
    """The jobs that have a work directory nobody has touched for a day; whether they are over, the database knows."""
    return [path.name for path in _entries(workshop.work) if path.is_dir() and _is_old(path)]


def remove_work(workshop: Workshop, job_ids: Collection[str]) -> None:
    """Remove the work directories of jobs that are over."""
    for job_id in job_ids:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(workshop.work / job_id)


def remove_parts(workshop: Workshop) -> int:
    """Remove uploads that stopped half-way a day ago; how many files that were."""
    stale = [path for path in _entries(workshop.uploads) if _is_unfinished(path) and _is_old(path)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _is_unfinished(path: Path) -> bool:
    return path.name.endswith((".part", ".tus", ".tus.json", ".tus.new"))


def _is_old(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > OLD_SECONDS
    return False


def _entries(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [path for path, _ in zip(directory.iterdir(), range(MOST), strict=False)]
    return []
