"""The fixtures that open a house; a conftest imports those it offers."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import imageio_ffmpeg
import pytest
from lanes.canaries import CANARIES

from house import BUCKET_SECRET, LIMIT_SECONDS, WEBHOOK_SECRET, House, free_port
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
    async with open_house(house_directory, database, stream_options) as opened:
        yield opened


@asynccontextmanager
async def open_house(
    directory: Path, database: str, stream_options: Mapping[str, Any], bucket_secret: str = BUCKET_SECRET
) -> AsyncIterator[House]:
    """A house in *directory* over a migrated *database*; a test that needs several opens each by this."""
    port = free_port()
    options: dict[str, Any] = {
        "data_dir": directory / "stream",
        "webhook_url": f"http://127.0.0.1:{port}/webhooks/cloudflare",
        "webhook_secret": WEBHOOK_SECRET,
        "api_token": CANARIES["api token"],
        **stream_options,
    }
    bucket_options = BucketOptions("stories", bucket_secret, "clips")
    rows = await asyncpg.connect(database)
    try:
        async with (
            EmbeddedBucket(directory / "bucket", bucket_options) as bucket,
            StreamStandIn(StandInOptions(**options)) as stream,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS)) as http,
        ):
            secret = str(options["webhook_secret"])
            made = House(directory, database, bucket, stream, http, rows, port, secret, bucket_secret)
            try:
                yield made
            finally:
                await made.close()
    finally:
        await rows.close()
