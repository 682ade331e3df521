"""The queue of one reader, and events that are written out once for all of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.web import streaming
from orchestrator.web.streaming import Batch, ChunkQueue


async def test_chunks_come_in_order_and_a_reader_too_far_behind_gets_no_more():
    queue = ChunkQueue(2)
    assert [queue.put(chunk) for chunk in (b"a", b"b", b"c")] == [True, True, False]
    assert [await queue.get(), await queue.get()] == [b"a", b"b"]
    assert len(queue) == 0


async def test_a_waiting_reader_is_woken_and_one_that_gives_up_loses_nothing():
    queue = ChunkQueue(2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.get()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put(b"a")
    queue.put(None)
    assert [await waiting, await queue.get()] == [b"a", None]


def test_an_event_is_written_out_once_for_all_who_get_it(monkeypatch):
    written: list[str] = []
    whole = streaming.event_text

    def counted(row: Any, event_id: int) -> bytes:
        written.append(row["id"])
        return whole(row, event_id)

    monkeypatch.setattr(streaming, "event_text", counted)
    at = datetime(2026, 5, 4, tzinfo=UTC)
    rows = [
        {"id": name, "pipeline": "stream", "status": "queued", "progress": 30.0, "error_message": None,
         "updated_at": at, "attempt": 1, "version": 2}
        for name in ("a", "b")
    ]  # fmt: skip
    batch = Batch(7)
    both, again, one = batch.chunk(rows), batch.chunk(rows), batch.chunk(rows[1:])
    assert both is again
    assert both.endswith(one)
    assert written == ["a", "b"]
