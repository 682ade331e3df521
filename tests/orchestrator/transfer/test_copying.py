"""The copy as a whole: bytes in, bytes out, resumed after every kind of end."""

from __future__ import annotations

import hashlib

from orchestrator.transfer import copy_to_bucket

MIB = 1024 * 1024
PART = 5 * MIB


async def test_copies_every_byte_and_says_so(origin, source, store, bucket, checkpoints, job, limits):
    reports = []

    result = await copy_to_bucket(job, source, store, checkpoints, reports.append, limits)

    assert bucket.get(job.key) == origin.body
    assert result.key == f"videos/{job.uid}.mp4"
    assert result.public_url == f"https://media.example.com/videos/{job.uid}.mp4"
    assert result.size_bytes == len(origin.body)
    assert result.sha256 == hashlib.sha256(origin.body).hexdigest()
    assert result.etag.endswith("-3")
    assert origin.sent_bytes == len(origin.body) + 16
    assert [one.bytes_done for one in reports] == sorted(one.bytes_done for one in reports)
    assert reports[-1].bytes_done == reports[-1].bytes_total == len(origin.body)
    assert sum(one.is_first_part_durable for one in reports) == 1
