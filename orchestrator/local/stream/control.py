"""The controls of the stand-in itself, under /stand-in: faults, and what was asked and sent."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.switchboard import UnknownFault
from orchestrator.local.stream.webhooks import as_rows


class Control:
    """Routes for the person or the test that drives the stand-in; no token, loopback only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/stand-in/faults", self.faults),
            web.put("/stand-in/faults", self.set_faults),
            web.patch("/stand-in/faults", self.change_faults),
            web.get("/stand-in/calls", self.calls),
            web.get("/stand-in/traffic", self.traffic),
            web.get("/stand-in/webhooks", self.webhooks),
            web.post("/stand-in/reset", self.reset),
        ]

    async def faults(self, _request: web.Request) -> web.Response:
        """`{"set": {name: fault}, "bitten": {name: times}}`"""
        return web.json_response(self._parts.switches.as_json())

    async def set_faults(self, request: web.Request) -> web.Response:
        """PUT: exactly these faults from now on; `{}` takes all away."""
        body = await _json_object(request)
        _checked(lambda: self._parts.switches.set(**body))
        return await self.faults(request)

    async def change_faults(self, request: web.Request) -> web.Response:
        """PATCH: these faults besides the others; null takes one away."""
        body = await _json_object(request)
        _checked(lambda: self._parts.switches.update(**body))
        return await self.faults(request)

    async def calls(self, _request: web.Request) -> web.Response:
        """Calls by route, what lists carried, and the last calls one by one."""
        return web.json_response(self._parts.calls.as_json())

    async def traffic(self, _request: web.Request) -> web.Response:
        """MP4 requests and bytes by uid."""
        return web.json_response(self._parts.traffic.as_json())

    async def webhooks(self, _request: web.Request) -> web.Response:
        """The last attempts to deliver notifications."""
        return web.json_response(as_rows(self._parts.webhooks.deliveries))

    async def reset(self, request: web.Request) -> web.Response:
        """Clear faults, logs and the rate limit; with `{"videos": true}` every video too."""
        body = await _json_object(request)
        if set(body) - {"videos"} or not isinstance(body.get("videos", False), bool):
            raise _wrong('the body may be {"videos": true}, nothing else')
        self._parts.switches.clear()
        self._parts.calls.reset()
        self._parts.traffic.reset()
        self._parts.limiter.reset()
        self._parts.webhooks.deliveries.clear()
        if body.get("videos"):
            for video in self._parts.store.oldest_first():
                await self._parts.delete(video.uid)
        return web.json_response({"videos": len(self._parts.store)})


async def _json_object(request: web.Request) -> dict[str, Any]:
    try:
        raw = await request.read()
        body = json.loads(raw) if raw.strip() else {}
    except ValueError as exc:
        raise _wrong("the body is not JSON") from exc
    if not isinstance(body, dict):
        raise _wrong("the body is not a JSON object")
    return body


def _checked(change: Any) -> None:
    try:
        change()
    except UnknownFault as exc:
        raise _wrong(str(exc)) from exc


def _wrong(text: str) -> web.HTTPException:
    return web.HTTPUnprocessableEntity(text=json.dumps({"error": text}), content_type="application/json")
