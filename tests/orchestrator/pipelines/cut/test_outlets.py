"""Clips served from a real bucket: whole, once, and gone when they are withdrawn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from orchestrator.drivers.errors import TransientError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.local.bucket import BucketOptions, EmbeddedBucket
from orchestrator.pipelines.cut import outlets
from orchestrator.pipelines.cut.outlets import BucketOutlet
from orchestrator.pipelines.cut.workshop import Workshop

DATA = bytes(range(256)) * 60_000  # three parts of the size below, the last one smaller


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with EmbeddedBucket(tmp_path / "bucket", BucketOptions("cut", "cut-secret-key", "clips")) as bucket:
        store = ObjectStore(
            ObjectStoreSettings(bucket.endpoint_url, "cut", "cut-secret-key", "clips", bucket.public_url)
        )
        yield store
        await store.close()


@pytest.fixture
def made(workshop: Workshop) -> Path:
    path = workshop.made("job", 1)
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


async def _get(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.read()


async def test_a_clip_arrives_whole_and_is_sent_once(
    workshop: Workshop, store: ObjectStore, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_PART_FLOOR_BYTES", 6 * 1024**2)
    outlet = BucketOutlet(workshop, store)
    await outlet.export("job", 1)
    assert await _get(store.public_url("outputs/job/clip_001.mp4")) == (200, DATA)
    assert await outlet.whole("job", 1) == made

    async def never(*_: object) -> str:
        raise AssertionError("it was sent again")

    monkeypatch.setattr(store, "create_multipart", never)
    await outlet.export("job", 1)


async def test_a_missing_object_is_noticed_and_a_withdrawn_one_is_gone(
    workshop: Workshop, store: ObjectStore, made: Path
) -> None:
    outlet = BucketOutlet(workshop, store)
    with pytest.raises(TransientError, match="not in the bucket"):
        await outlet.whole("job", 1)
    await outlet.export("job", 1)
    for _ in range(2):
        await outlet.withdraw("job", 1)
    assert (await _get(store.public_url("outputs/job/clip_001.mp4")))[0] == 404
    assert await outlet.tidy() == 0
