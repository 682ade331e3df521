"""Calls to the provider are noted with their tries and waits, beside the way: nothing waits for it or fails by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator import beside
from orchestrator.drivers import call_log
from orchestrator.drivers.budget import CallClass
from orchestrator.drivers.call_log import CallLog, CallNote
from orchestrator.drivers.cloudflare import CloudflareSettings, CloudflareStream
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.storage import provider_calls
from orchestrator.storage.provider_calls import read_calls


def note(uid: str = "u1", number: int = 1, **changes: Any) -> CallNote:
    values: dict[str, Any] = {
        "cloudflare_uid": uid, "at": datetime(2026, 5, 4, tzinfo=UTC), "operation": "get", "call_class": "progress",
        "try_number": number, "waited_ms": 5, "took_ms": 30, "http_status": 200, "problem": None,
    }  # fmt: skip
    return CallNote(**(values | changes))


@pytest.fixture
async def pool(database: str):
    async with asyncpg.create_pool(database, min_size=0, max_size=2) as pool:
        yield pool


async def test_calls_are_written_together_and_read_newest_first(pool) -> None:
    log = CallLog(pool)
    log.note(note(number=1, http_status=None, problem="provider_timeout"))
    log.note(note(number=2))
    log.note(note(uid="other"))
    await log.write()
    async with pool.acquire() as connection:
        second, first = await read_calls(connection, "u1")
    assert (first.attempt, first.http_status, first.problem) == (1, None, "provider_timeout")
    assert (second.attempt, second.http_status, second.problem) == (2, 200, None)
    assert (second.operation, second.call_class, second.waited_ms, second.took_ms) == ("get", "progress", 5, 30)


async def test_the_last_ones_are_written_at_the_end(pool) -> None:
    async with CallLog(pool).kept() as log:
        log.note(note())
    async with pool.acquire() as connection:
        assert len(await read_calls(connection, "u1")) == 1


async def test_they_are_written_by_themselves(pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "GATHER_SECONDS", 0.0)
    async with CallLog(pool).kept() as log:
        log.note(note())
        async with asyncio.timeout(10), pool.acquire() as connection:
            while not await read_calls(connection, "u1"):
                await asyncio.sleep(0.01)


async def test_only_the_newest_are_held_and_kept(pool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CallLog(pool)
    for number in range(call_log.HELD_MAX + 5):
        log.note(note(number=number))
    monkeypatch.setattr(provider_calls, "_FORGET", provider_calls._FORGET.replace(f"- {provider_calls.KEPT}", "- 3"))
    await log.write()
    async with pool.acquire() as connection:
        kept = [call.attempt for call in await read_calls(connection, "u1")]
    assert kept == [call_log.HELD_MAX + 4, call_log.HELD_MAX + 3, call_log.HELD_MAX + 2]


async def test_what_cannot_be_written_is_lost_and_nothing_else(pool) -> None:
    log = CallLog(pool)
    log.note(note(operation="x" * 100))  # the table takes no such name
    await log.write()
    log.note(note())
    await log.write()
    async with pool.acquire() as connection:
        assert len(await read_calls(connection, "u1")) == 1


@pytest.mark.parametrize("role", ["orchestrator_api", "orchestrator_monitor"])
async def test_both_roles_may_write_and_read_them(database: str, role: str) -> None:
    async with asyncpg.create_pool(database, min_size=0, max_size=1, server_settings={"role": role}) as pool:
        log = CallLog(pool)
        log.note(note())
        await log.write()
        async with pool.acquire() as connection:
            assert len(await read_calls(connection, "u1")) == 1


class _Free:
    """A budget that is never spent."""

    async def take(self, klass: CallClass, n: int = 1) -> None:
        await asyncio.sleep(0.02)

    async def learn(self, status: int, headers: Any) -> None:
        """Nothing to learn."""


@asynccontextmanager
async def calling(answers: list[tuple[int, dict[str, Any]]], told: list[CallNote]) -> AsyncIterator[CloudflareStream]:
    """A driver whose calls are answered one after the other with *answers*, noted in *told*."""

    async def answer(_: web.Request) -> web.Response:
        status, result = answers.pop(0)
        return web.json_response({"success": status == 200, "errors": [], "result": result}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        settings = CloudflareSettings("acc", "token", str(server.make_url("")).rstrip("/"), first_pause_seconds=0.001)
        stream = CloudflareStream(settings, _Free(), on_call=told.append)
        try:
            yield stream
        finally:
            await stream.close()


async def test_each_try_of_a_call_is_noted_with_its_wait_and_answer() -> None:
    told: list[CallNote] = []
    async with calling([(502, {}), (200, {"uid": "u1", "status": {"state": "ready"}})], told) as stream:
        await stream.get("u1")
    assert [(call.cloudflare_uid, call.operation) for call in told] == [("u1", "get")] * 2
    assert [call.try_number for call in told] == [1, 2]
    assert [(call.http_status, call.problem is None) for call in told] == [(502, False), (200, True)]
    assert all(call.waited_ms >= 15 and call.took_ms >= 0 for call in told)


async def test_a_call_that_makes_a_video_is_noted_with_it_and_lists_with_none() -> None:
    told: list[CallNote] = []
    made = {"uid": "a" * 32, "uploadURL": "https://upload.example.org/x"}
    async with calling([(200, made), (200, {"result": []})], told) as stream:
        await stream.create_direct_upload(60, "c.1", {})
        with contextlib.suppress(TransientError, PermanentError):
            await stream.list_by_ids(["u1"])
    assert [(call.cloudflare_uid, call.operation) for call in told] == [("a" * 32, "create_direct_upload")]
