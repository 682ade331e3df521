"""The event stream: the present state first, then every change, in order, for as long as both sides are there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from aiohttp.test_utils import TestClient

from orchestrator.web import live
from orchestrator.web.events import CLIPS_MAX, FEED
from orchestrator.web.live import QUEUE_MAX, LiveFeed
from signals import CHANGED_CHANNEL


@dataclass
class Reader:
    """What a browser's EventSource would see of a stream."""

    answer: Any
    last_id: str = ""

    async def block(self) -> str:
        async with asyncio.timeout(10):
            return (await self.answer.content.readuntil(b"\n\n")).decode()

    async def event(self) -> dict[str, Any]:
        """The next event's data, comments and settings passed over."""
        while True:
            block = await self.block()
            fields = dict(re.findall(r"^(\w+): (.*)$", block, re.M))
            if "data" in fields:
                assert fields["event"] == "clip"
                self.last_id = fields["id"]
                return dict(json.loads(fields["data"]))


@asynccontextmanager
async def stream(client: TestClient[Any, Any], query: str = "", last_id: str = "") -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.get(f"/api/events{query}", headers=headers) as answer:
        assert answer.status == 200
        yield Reader(answer)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_followed_clip_is_sent_as_it_is_and_then_at_every_change(client, place):
    await place.clip("one")
    await place.clip("other")
    async with stream(client, "?clip=one") as reader:
        assert reader.answer.content_type == "text/event-stream"
        assert reader.answer.headers["Cache-Control"] == "no-store, no-transform"
        assert await reader.block() == "retry: 3000\n\n"
        first = await reader.event()
        assert set(first) >= {"clip_id", "status", "state", "progress", "message", "terminal", "updated_at"}
        assert (first["clip_id"], first["status"], first["progress"], first["terminal"]) == (
            "one",
            "uploading",
            15,
            False,
        )
        await place.move("other", "queued")
        for stage, state in (("processing", "running"), ("complete", "done")):
            await place.move("one", stage)
            event = await reader.event()
            assert (event["clip_id"], event["status"], event["state"]) == ("one", stage, state)
        assert event["terminal"] is True
        newest = await place.owner.fetchval("SELECT max(id) FROM clip_events WHERE clip_id = 'one'")
        assert int(reader.last_id) == newest


async def test_one_stream_follows_many_clips(client, place):
    for name in ("a", "b", "c"):
        await place.clip(name)
    async with stream(client, "?clip=a&clip=b&clip=nobody") as reader:
        assert {(await reader.event())["clip_id"], (await reader.event())["clip_id"]} == {"a", "b"}
        await place.move("c", "queued")
        await place.move("b", "queued")
        assert ((await reader.event())["clip_id"], reader.last_id) == ("b", "5")


async def test_all_clips_on_their_way_are_followed_without_naming_them(client, place):
    await place.clip("moving")
    await place.clip("done")
    await place.move("done", "complete", look_at=None)
    async with stream(client) as reader:
        assert (await reader.event())["clip_id"] == "moving"
        await place.clip("newcomer")
        await place.move("newcomer", "queued")
        # What was told of "done" before the stream began may still be on its way to it.
        seen = [event["clip_id"] for event in [await reader.event()] if event["clip_id"] != "done"]
        assert (seen or [(await reader.event())["clip_id"]]) == ["newcomer"]


async def test_a_resumed_stream_brings_what_happened_meanwhile(client, place):
    await place.clip("one")
    await place.clip("two")
    async with stream(client) as reader:
        for _ in range(2):
            await reader.event()
    async with stream(client, "?clip=two") as watching:
        await watching.event()
        await place.move("two", "complete", look_at=None)
        # Now it has been told, and a stream that begins hears of it from the past alone.
        assert (await watching.event())["status"] == "complete"
    async with stream(client, last_id=reader.last_id) as again:
        seen = [await again.event() for _ in range(2)]
    assert {(event["clip_id"], event["status"]) for event in seen} == {("one", "uploading"), ("two", "complete")}
    async with stream(client, "?clip=two", last_id="not one of ours") as again:
        assert (await again.event())["status"] == "complete"


async def test_changes_of_one_moment_are_read_together_and_never_go_back(client, place):
    await place.clip("one")
    async with stream(client, "?clip=one") as reader:
        last = await reader.event()
        for percent in range(151, 290):
            await place.monitor.execute("UPDATE clips SET progress = $1 WHERE id = 'one'", percent / 10)
            await place.monitor.execute("SELECT pg_notify($1, 'one')", CHANGED_CHANNEL)
        count = 0
        while last["progress"] < 28.9:
            event = await reader.event()
            assert (event["progress"], event["version"]) > (last["progress"], last["version"])
            last, count = event, count + 1
        assert count < 139


async def test_a_quiet_stream_has_a_heartbeat(place):
    client = await place.start(heartbeat_seconds=0.05)
    async with stream(client, "?clip=nobody") as reader:
        assert await reader.block() == "retry: 3000\n\n"
        assert await reader.block() == ": heartbeat\n\n"


async def test_a_lost_listening_connection_is_replaced_and_nothing_in_between_is_missed(client, place):
    await place.clip("one")
    async with stream(client, "?clip=one") as reader, stream(client) as everybody:
        await reader.event()
        await everybody.event()
        async with asyncio.timeout(5):
            while not await place.owner.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            ):
                await asyncio.sleep(0.01)  # it does not listen yet
        # Written without a word to anybody: only the sweep after listening again can find it.
        await place.monitor.execute("UPDATE clips SET status = 'queued', progress = 30 WHERE id = 'one'")
        assert (await reader.event())["status"] == "queued"
        assert (await everybody.event())["status"] == "queued"
        await place.move("one", "processing")
        assert (await reader.event())["status"] == "processing"


async def test_streams_are_ended_when_the_process_stops(place):
    client = await place.start()
    feed = client.app[FEED]
    async with stream(client, "?clip=one") as reader:
        await until(lambda: feed.client_count == 1)
        await client.server.close()
        async with asyncio.timeout(5):
            assert b"retry" in await reader.answer.content.read()
    await until(lambda: feed.client_count == 0)


async def test_a_closed_reader_leaves_nothing_behind_long_before_the_next_heartbeat(client):
    feed = client.app[FEED]
    async with stream(client) as reader:
        await reader.block()
        assert feed.client_count == 1
        reader.answer.close()
    await until(lambda: feed.client_count == 0)
    assert "orchestrator_event_streams 0.0" in await (await client.get("/metrics")).text()


@pytest.mark.parametrize("query", ["?clip=", "?clip=../x", "?clip=%00", "?" + "&".join(["clip=a"] * (CLIPS_MAX + 1))])
async def test_a_bad_list_of_clips_is_refused(client, query):
    answer = await client.get(f"/api/events{query}")
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, "clip")


async def test_there_are_only_so_many_streams(client, monkeypatch):
    monkeypatch.setattr("orchestrator.web.events.STREAMS_MAX", 1)
    async with stream(client) as reader:
        await reader.block()
        async with client.get("/api/events") as answer:
            assert answer.status == 429
            assert (await answer.json())["code"] == "too-many-streams"


async def test_half_of_the_descriptors_stay_for_calls(client, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (2, 2))
    async with stream(client) as reader:
        await reader.block()
        assert (await client.get("/api/events")).status == 429
        assert (await client.get("/api/clips")).status == 200


async def test_a_slow_reader_is_cut_off_and_the_others_are_not(place):
    """A reader that takes nothing fills its queue; the feed drops it and goes on."""
    cut: list[str] = []

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(place.settings.database_url.get_secret_value())

    feed = LiveFeed(place.services.pool, connect)
    live_pause, live.COALESCE_SECONDS = live.COALESCE_SECONDS, 0.0
    feed.start()
    try:
        await place.clip("one")
        one = frozenset({"one"})
        async with (
            feed.subscribed(one, 0, lambda: cut.append("slow")) as slow,
            feed.subscribed(one, 0, lambda: cut.append("quick")) as quick,
        ):
            for number in range(QUEUE_MAX + 2):
                async with asyncio.timeout(5):
                    await quick.queue.get()
                await place.monitor.execute("UPDATE clips SET progress = $1 WHERE id = 'one'", 15 + number / 10)
                await place.monitor.execute("SELECT pg_notify($1, 'one')", CHANGED_CHANNEL)
            assert cut == ["slow"]
            assert len(slow.queue) == QUEUE_MAX
            assert feed.client_count == 1
    finally:
        live.COALESCE_SECONDS = live_pause
        await feed.close()


async def test_a_database_that_rests_for_a_moment_ends_no_stream(client, place):
    await place.clip("one")
    async with stream(client, "?clip=one") as reader:
        await reader.event()
        await place.owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name IN ('test web',"
            " 'clip-orchestrator live')"
        )
        await place.move("one", "queued")
        assert (await reader.event())["status"] == "queued"


async def test_beats_are_events_for_those_who_ask_and_the_first_comes_at_once(place):
    client = await place.start(heartbeat_seconds=0.05)
    async with stream(client, "?beats=1") as reader:
        blocks = [await reader.block() for _ in range(3)]
    assert blocks == ["retry: 3000\n\n", *[": heartbeat\nevent: beat\ndata: 1\n\n"] * 2]


async def test_another_stream_of_a_page_goes_on_where_its_former_one_was(client, place):
    """What ended between the two is told; a page cannot send the header when it opens a stream."""
    await place.clip("one", uid="u1")
    await place.move("one", "queued")
    heard = await place.owner.fetchval("SELECT max(id) FROM clip_events")
    await place.move("one", "complete", look_at=None)
    async with stream(client, f"?after={heard}") as reader:
        assert (await reader.event())["status"] == "complete"
