"""The fixtures that open a house; a conftest imports those it offers."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import imageio_ffmpeg
import pytest

from house import LIMIT_SECONDS, WEBHOOK_SECRET, House, free_port
from orchestrator.local.bucket import BucketOptions, EmbeddedBucket
from orchestrator.local.stream import StandInOptions, StreamStandIn


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of real video with sound, H.264 and AAC."""
    path = tmp_path_factory.mktemp("sample") / "sample.mp4"
    arguments = "-loglevel error -f lavfi -i testsrc=size=320x180:rate=25:duration=5 -f lavfi -i sine=duration=5"
    encoding = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -movflags +faststart"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *arguments.split(), *encoding.split(), str(path)], check=True)
    return path


@pytest.fixture
def stream_options() -> dict[str, Any]:
    """What a story changes about the provider; override it beside the story."""
    return {}


@pytest.fixture
def house_directory(tmp_path: Path) -> Path:
    """Where the house keeps its files and its processes write their logs."""
    return tmp_path


@pytest.fixture
async def house(database: str, house_directory: Path, stream_options: dict[str, Any]) -> AsyncIterator[House]:
    """Database, provider and bucket running; no process of the program yet."""
    port = free_port()
    options: dict[str, Any] = {
        "data_dir": house_directory / "stream",
        "webhook_url": f"http://127.0.0.1:{port}/webhooks/cloudflare",
        "webhook_secret": WEBHOOK_SECRET,
        **stream_options,
    }
    bucket_options = BucketOptions("stories", "stories-secret-key", "clips")
    rows = await asyncpg.connect(database)
    async with (
        EmbeddedBucket(house_directory / "bucket", bucket_options) as bucket,
        StreamStandIn(StandInOptions(**options)) as stream,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS)) as http,
    ):
        made = House(house_directory, database, bucket, stream, http, rows, port)
        try:
            yield made
        finally:
            await made.close()
    await rows.close()
