"""A web process that cuts, with its directories, and real video to send."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.drivers.ffmpeg import find_ffmpeg


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds at 25 pictures a second."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=160x90:rate=25:duration=5"]
    work = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    command = [find_ffmpeg(None), "-loglevel", "error", *source, *work, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture
def directories(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("upload_tmp_dir", "process_work_dir", "output_root")}


@pytest.fixture
async def cutting(place: Any, directories: dict[str, Path]) -> Callable[..., Any]:
    """Start the process with its directories; settings may be changed."""
    await place.owner.execute("TRUNCATE uploads, artifacts")

    async def start(**changes: Any) -> Any:
        return await place.start(**directories, **changes)

    return start


@pytest.fixture
async def client(cutting: Callable[..., Any]) -> Any:
    return await cutting()
