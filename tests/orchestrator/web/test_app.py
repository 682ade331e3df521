"""The process as a whole: it takes calls on its port, and ends in time when it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aiohttp
import pytest

from orchestrator.web.app import run_web


@pytest.fixture
async def running(place):
    """A process run as in production, its address, and how to stop it."""
    settings = place.settings.model_copy(update={"port": 0})
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_web(replace(place.services, settings=settings), stop, listening.set_result))
    async with asyncio.timeout(10):
        port = await listening
    yield f"http://127.0.0.1:{port}", stop, task
    stop.set()
    await task


async def test_it_takes_calls_and_stops_with_a_stream_open(running):
    address, stop, task = running
    async with aiohttp.ClientSession() as session:
        assert (await session.get(f"{address}/healthz")).status == 200
        async with session.get(f"{address}/api/events") as answer:
            assert answer.status == 200
            began = asyncio.get_running_loop().time()
            stop.set()
            async with asyncio.timeout(10):
                await answer.content.read()
                await task
            assert asyncio.get_running_loop().time() - began < 10
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{address}/healthz")


async def test_a_call_under_way_is_answered_before_it_stops(running, place, monkeypatch):
    address, stop, task = running
    reached, go_on = asyncio.Event(), asyncio.Event()
    reserve = place.stream.create_direct_upload

    async def slow(*arguments):
        reached.set()
        await go_on.wait()
        return await reserve(*arguments)

    monkeypatch.setattr(place.stream, "create_direct_upload", slow)
    async with aiohttp.ClientSession() as session:
        call = asyncio.create_task(session.post(f"{address}/api/clips", json={"source": "upload", "size_bytes": 5}))
        await reached.wait()
        stop.set()
        go_on.set()
        assert (await call).status == 201
        async with asyncio.timeout(10):
            await task


async def test_what_is_no_http_is_refused_without_logging_it(running, caplog):
    address, _, _ = running
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-token\x00\r\n\r\n")
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.readline()
    writer.close()
    assert "canary-token" not in caplog.text
    assert "Error handling request" in caplog.text
