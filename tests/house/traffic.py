"""Those who use the program while it is beaten: callers that try again elsewhere, pollers, readers of events."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from house import free_port
from house.checking import Ratchet

_CALL_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=2)
# A stopped process keeps its connections open: a stream that says nothing for longer than two heartbeats is dead.
_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=8)
_PAUSE_SECONDS = 0.2
_LOST = (aiohttp.ClientError, TimeoutError, ConnectionError)


@dataclass
class Doors:
    """The web processes as a caller sees them: several addresses, any of which may be away."""

    http: aiohttp.ClientSession
    addresses: Sequence[str]
    chance: random.Random
    calls: int = 0
    lost: int = 0

    async def try_once(self, method: str, path: str, **options: Any) -> tuple[int, Any] | None:
        """One call at any door; None when no answer came, so that nobody knows what became of it."""
        self.calls += 1
        address = self.chance.choice(self.addresses)
        try:
            async with self.http.request(method, address + path, timeout=_CALL_TIMEOUT, **options) as answer:
                return answer.status, await answer.json(content_type=None)
        except (*_LOST, ValueError):
            self.lost += 1
            return None

    async def insist(self, method: str, path: str, wanted: int, **options: Any) -> Any:
        """The same call at one door after the other until it is answered with *wanted*; its document."""
        while True:
            answer = await self.try_once(method, path, **options)
            if answer is not None and answer[0] == wanted:
                return answer[1]
            await asyncio.sleep(_PAUSE_SECONDS)

    async def create(self, title: str, file: Path, protocol: str = "form") -> dict[str, Any]:
        """A clip, made once however often the call has to be repeated."""
        body = {"source": "upload", "title": title, "size_bytes": file.stat().st_size, "protocol": protocol}
        key = {"Idempotency-Key": secrets.token_hex(16)}
        return dict(await self.insist("POST", "/api/clips", 201, json=body, headers=key))


@dataclass
class Asker:
    """Sends signals, and remembers which were acknowledged."""

    doors: Doors
    acknowledged: list[tuple[str, str]] = field(default_factory=list)

    async def ask(self, clip_id: str, status: str) -> None:
        """Ask once; without an answer nothing was promised."""
        mark = secrets.token_hex(8)
        body = {"requested_status": status, "details": {"mark": mark}}
        answer = await self.doors.try_once("POST", f"/api/clips/{clip_id}/signals", json=body)
        if answer is not None and 200 <= answer[0] < 300:
            self.acknowledged.append((clip_id, mark))


async def poll(doors: Doors, clip_ids: Sequence[str], ratchet: Ratchet, pause_seconds: float) -> None:
    """Ask for each clip in turn, for ever."""
    while True:
        await asyncio.sleep(pause_seconds)
        for clip_id in tuple(clip_ids):
            answer = await doors.try_once("GET", f"/api/clips/{clip_id}")
            if answer is not None and answer[0] == 200:
                ratchet.see(clip_id, answer[1])
            await asyncio.sleep(pause_seconds)


@dataclass
class EventReader:
    """Follows clips by server-sent events, for ever: reconnects anywhere with the last id it has seen."""

    doors: Doors
    ratchet: Ratchet
    clip_ids: Sequence[str] | None = None
    last_event_id: str = ""
    connections: int = 0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read()
            except (*_LOST, ValueError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self) -> None:
        address = self.doors.chance.choice(self.doors.addresses) + "/api/events"
        headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        asked = [("clip", clip_id) for clip_id in self.clip_ids or ()]
        async with self.doors.http.get(address, params=asked, headers=headers, timeout=_STREAM_TIMEOUT) as answer:
            if answer.status != 200:
                return
            self.connections += 1
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    self.last_event_id = value
                elif name == "data":
                    told = json.loads(value)
                    self.ratchet.see(told["clip_id"], told)


class WebhookRoad:
    """Takes the provider's notifications and carries each to whichever web process lives; some are lost."""

    def __init__(self, chance: random.Random, share_lost: float) -> None:
        self.addresses: Sequence[str] = ()
        self.port = free_port()
        self.carried = 0
        self.lost = 0
        self._http: aiohttp.ClientSession | None = None
        self._chance = chance
        self._share_lost = share_lost
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> WebhookRoad:
        self._http = aiohttp.ClientSession(timeout=_CALL_TIMEOUT)
        app = web.Application()
        app.router.add_post("/webhooks/cloudflare", self._carry)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()

    async def _carry(self, request: web.Request) -> web.Response:
        assert self._http is not None
        body = await request.read()
        headers = {"Webhook-Signature": request.headers["Webhook-Signature"], "Content-Type": request.content_type}
        if self._chance.random() >= self._share_lost:
            for address in self._chance.sample(self.addresses, len(self.addresses)):
                try:
                    url = f"{address}/webhooks/cloudflare"
                    async with self._http.post(url, data=body, headers=headers) as answer:
                        if answer.status == 200:
                            self.carried += 1
                            return web.Response()
                except _LOST:
                    continue
        self.lost += 1
        return web.Response()
