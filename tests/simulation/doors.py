"""The one way in which a simulated service answers over HTTP, whatever its script does to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from simulation.faults import Drip, Fault, NoReply, Reply, ReplyLost, Slow, meet

#: How often a silent answer looks whether its caller has gone; it grows, so that an hour costs few wake-ups.
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 1.0, 60.0


async def answer_through(request: web.Request, fault: Fault | None, perform: Callable[[], Reply]) -> web.StreamResponse:
    """What reaches the caller of *request* when *fault* befalls what *perform* does."""
    if isinstance(fault, Slow) and fault.before_seconds:
        await asyncio.sleep(fault.before_seconds)
    if isinstance(fault, Drip):
        return await _drip(request, fault)
    try:
        reply = meet(fault, perform)
    except ReplyLost:
        return cut_off(request)
    except NoReply:
        await until_gone(request)
        return cut_off(request)
    if isinstance(fault, Slow) and fault.after_seconds:
        await asyncio.sleep(fault.after_seconds)
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


def cut_off(request: web.Request) -> web.Response:
    """End the connection as a crash does; the answer returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def until_gone(request: web.Request) -> None:
    """Return when the caller has given up."""
    look_seconds = _FIRST_LOOK_SECONDS
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(look_seconds)
        look_seconds = min(2 * look_seconds, _LONGEST_LOOK_SECONDS)


async def _drip(request: web.Request, fault: Drip) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b" ")
            await asyncio.sleep(fault.pause_seconds)
    except ConnectionError:
        pass
    return response
