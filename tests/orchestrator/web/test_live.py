"""The live feed where nothing can be heard: behind a pooler, with no address of the server's own."""

from __future__ import annotations

import asyncio
import json

import asyncpg

from orchestrator.storage.pool import CannotListen
from orchestrator.web.live import LiveFeed


async def test_streams_live_on_looking_where_nothing_can_be_heard(place, monkeypatch) -> None:
    async def refuse() -> asyncpg.Connection:
        raise CannotListen("a pooler stands there")

    monkeypatch.setattr("orchestrator.web.live._PAUSES_SECONDS", (0.05,))
    await place.clip("one")
    feed = LiveFeed(place.services.pool, refuse)
    feed.start()
    try:
        async with feed.subscribed(frozenset({"one"}), 0, lambda: None) as client, asyncio.timeout(10):
            assert await _next_status(client.queue) == "uploading"
            await place.monitor.execute("UPDATE clips SET status = 'queued', progress = 30 WHERE id = 'one'")
            assert await _next_status(client.queue) == "queued"
            await asyncio.sleep(0.3)
            assert not len(client.queue), "what has been told is not told again"
    finally:
        await feed.close()


async def _next_status(queue) -> str:
    chunk = await queue.get()
    return str(json.loads(chunk.decode().partition("data: ")[2].partition("\n")[0])["status"])
