"""A workshop, real video, and hands on a real database."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator.pipelines.cut.hands import CutHands, CutTools
from orchestrator.pipelines.cut.workshop import Workshop
from orchestrator.pipelines.terms import Step


class Told:
    """What an effect has told of itself."""

    def __init__(self) -> None:
        self.percents: list[tuple[str, float | None]] = []

    def progress(self, status: str, percent: float | None) -> None:
        self.percents.append((status, percent))

    async def step(self, step: Step) -> None:
        raise AssertionError("the cut pipeline asks for its moves at the end of an effect")


@pytest.fixture(scope="session")
def make_video(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A real video of so many seconds, H.264 at 25 pictures a second; with sound or without."""

    def make(seconds: float, *, sound: bool = True, picture: bool = True) -> Path:
        path = tmp_path_factory.mktemp("video") / "video.mp4"
        inputs = ["-f", "lavfi", "-i", f"testsrc=size=160x90:rate=25:duration={seconds}"] if picture else []
        inputs += ["-f", "lavfi", "-i", f"sine=duration={seconds}"] if sound else []
        work = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac"]
        command = [ffmpeg, "-loglevel", "error", "-y", *inputs, *work, "-movflags", "+faststart", str(path)]
        subprocess.run(command, check=True, timeout=60)
        return path

    return make


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    for name in ("uploads", "work", "outputs"):
        (tmp_path / name).mkdir()
    return Workshop(tmp_path / "uploads", tmp_path / "work", tmp_path / "outputs")


@pytest.fixture
async def hands(workshop: Workshop, ffmpeg: str, pool: asyncpg.Pool) -> CutHands:
    return CutHands(CutTools(workshop, ffmpeg, max_cuts=1), pool)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def stored(database: str, workshop: Workshop) -> Any:
    """Store a file as the upload `up`, as the web process does."""
    connection = await asyncpg.connect(database)

    async def store(file: Path, upload_id: str = "up") -> int:
        data = file.read_bytes()
        workshop.upload(upload_id, "0" * 64).write_bytes(data)
        await connection.execute(
            "INSERT INTO uploads (id, filename, size_bytes, sha256) VALUES ($1, 'a.mp4', $2, $3)",
            upload_id,
            len(data),
            "0" * 64,
        )
        return len(data)

    yield store
    await connection.close()
