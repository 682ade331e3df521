"""What was given up is aborted; what somebody still works on is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.drivers.errors import DriverError
from orchestrator.drivers.stored_objects import ObjectLabels
from orchestrator.transfer import Checkpoint, sweep_orphans
from orchestrator.transfer.clearing import give_up
from tests.orchestrator.transfer.conftest import PART, Refuse

NOW = timedelta(0)


def live(key: str, upload_id: str) -> Checkpoint:
    return Checkpoint("clip", 1, key, upload_id, PART, None, None, None)


async def test_only_what_nobody_knows_is_aborted(store, bucket, checkpoints, job):
    orphan = await store.create_multipart(job.key, ObjectLabels())
    known = await store.create_multipart(job.key, ObjectLabels())
    await checkpoints.begin(live(job.key, known))

    assert await sweep_orphans(store, checkpoints, NOW) >= 1

    assert bucket.uploads(job.key) == [known]
    assert orphan not in bucket.uploads(job.key)


async def test_what_is_young_is_left_alone(store, bucket, checkpoints, job, monkeypatch):
    upload_id = await store.create_multipart(job.key, ObjectLabels())
    listed = await store.list_uploads(job.key)

    # moto gives every upload one old date
    async def dated(_prefix):
        return [replace(one, started_at=datetime.now(UTC) - timedelta(hours=23)) for one in listed]

    monkeypatch.setattr(store, "list_uploads", dated)

    assert await sweep_orphans(store, checkpoints) == 0
    assert bucket.uploads(job.key) == [upload_id]
    assert await sweep_orphans(store, checkpoints, timedelta(hours=22)) == 1


async def test_an_upload_that_cannot_be_aborted_is_not_forgotten(store, r2, bucket, checkpoints, job):
    """Else nobody would know of it any more, and it would cost storage until the store forgets it."""
    known = live(job.key, await store.create_multipart(job.key, ObjectLabels()))
    await checkpoints.begin(known)
    r2.faults["abort"] = [Refuse(403, "AccessDenied")] * 9

    with pytest.raises(DriverError):
        await give_up(store, checkpoints, known)

    assert await checkpoints.load("clip", 1) is not None
    r2.faults.clear()
    await give_up(store, checkpoints, known)
    assert (await checkpoints.load("clip", 1), bucket.uploads(job.key)) == (None, [])


async def test_what_is_not_ours_is_left_alone(store, bucket, checkpoints):
    upload_id = await store.create_multipart("elsewhere/x.mp4", ObjectLabels())

    await sweep_orphans(store, checkpoints, NOW)

    assert upload_id in bucket.uploads("elsewhere/x.mp4")  # a lost answer may have begun a second one
    await store.abort("elsewhere/x.mp4", upload_id)


async def test_a_sweep_outlives_a_passing_fault(store, r2, bucket, checkpoints, job):
    await store.create_multipart(job.key, ObjectLabels())
    r2.faults["list"] = [Refuse(503)]
    r2.faults["abort"] = [Refuse(500, "InternalError")]

    await sweep_orphans(store, checkpoints, NOW)

    assert bucket.uploads(job.key) == []
