"""``GET /api/events``: server-sent events for many clips in one stream."""

from __future__ import annotations

import asyncio
import resource
import socket

from aiohttp import web

from orchestrator.web.live import Client, LiveFeed
from orchestrator.web.metrics import METRICS
from orchestrator.web.problems import Problem, invalid
from orchestrator.web.views import CLIP_ID

HEARTBEAT_SECONDS = 15.0
# Streams per process; each holds a socket and at most 64 chunks, most of them shared: some 16 KiB.
STREAMS_MAX = 4000
# The list page follows fifty; an address of 200 ids is 6 KB and still fits into a request line.
CLIPS_MAX = 200
# How long a browser waits before it connects again.
_RETRY_MILLISECONDS = 3000
_COMMENT = b": heartbeat\n\n"
_BEAT = b": heartbeat\nevent: beat\ndata: 1\n\n"
# A reader that has gone shows only when something is written to it, or when one looks.
_CLOSED_SEEN_AFTER_SECONDS = 2.0
# A client that vanished without a word is noticed within two heartbeats: the first finds nobody, and as long after it
# the connection is given up.
_VANISHED_AFTER_MILLISECONDS = int(HEARTBEAT_SECONDS * 1000)
# What the kernel keeps for a reader that takes nothing, a few hundred events. Left to itself it keeps 4 MB for each.
_SEND_BUFFER_BYTES = 64 * 1024

FEED: web.AppKey[LiveFeed] = web.AppKey("feed", LiveFeed)
HEARTBEAT: web.AppKey[float] = web.AppKey("heartbeat", float)


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Send the present state of the clips asked for, then every change, until either side goes."""
    clip_ids, last_event_id, beat = _followed(request), _last_event_id(request), _beat(request)
    feed, metrics = request.app[FEED], request.app[METRICS]
    if feed.is_closed:
        raise Problem("shutting-down", "This process is being stopped", headers={"Retry-After": "3"})
    if feed.client_count >= _streams_max():
        raise Problem("too-many-streams", f"{feed.client_count} streams are open", headers={"Retry-After": "30"})
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store, no-transform",
            # Asks nginx not to collect events before it passes them on.
            "X-Accel-Buffering": "no",
        }
    )
    # Compression would hold events back.
    transport = request.transport
    if transport is None:
        return response
    _bound(transport)
    async with feed.subscribed(clip_ids, last_event_id, transport.abort) as client:
        metrics.streams.set(feed.client_count)
        try:
            await response.prepare(request)
            # The first beat comes at once: by it a page tells that events come through, and not only the head.
            await response.write(f"retry: {_RETRY_MILLISECONDS}\n\n".encode() + (beat if beat is not _COMMENT else b""))
            await _pump(response, client, transport, request.app[HEARTBEAT], beat)
        except ConnectionError:
            pass  # the reader went: the usual end of a stream
        finally:
            metrics.streams.set(feed.client_count - 1)
    return response


def _streams_max() -> int:
    """As many streams as may be open here: half of the descriptors stay for calls, which would hang without one."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return STREAMS_MAX if descriptors == resource.RLIM_INFINITY else min(STREAMS_MAX, descriptors // 2)


async def _pump(
    response: web.StreamResponse, client: Client, transport: asyncio.Transport, heartbeat_seconds: float, beat: bytes
) -> None:
    """Send what the feed has for *client*, and *beat* in between, until either side ends it."""
    loop = asyncio.get_running_loop()
    written_at = loop.time()
    while not transport.is_closing():
        heartbeat_at = written_at + heartbeat_seconds
        try:
            async with asyncio.timeout_at(min(heartbeat_at, loop.time() + _CLOSED_SEEN_AFTER_SECONDS)):
                chunk = await client.queue.get()
        except TimeoutError:
            if loop.time() < heartbeat_at:
                continue
            chunk = beat
        if chunk is None:
            return
        await response.write(chunk)
        written_at = loop.time()


def _followed(request: web.Request) -> frozenset[str] | None:
    asked = request.query.getall("clip", [])
    if len(asked) > CLIPS_MAX:
        raise invalid("clip", f"may stand there at most {CLIPS_MAX} times; leave it out to follow all")
    for clip_id in asked:
        if not CLIP_ID.fullmatch(clip_id):
            raise invalid("clip", "is no clip id", clip_id)
    return frozenset(asked) or None


def _beat(request: web.Request) -> bytes:
    """What keeps the line alive: a comment, or an event for those who cannot see comments, which pages cannot."""
    return _BEAT if request.query.get("beats") == "1" else _COMMENT


def _last_event_id(request: web.Request) -> int:
    """The id the reader got last; anything that is none of ours counts as none.

    A browser sends the header when it reconnects by itself, and cannot when a page opens another stream.
    """
    text = request.headers.get("Last-Event-ID", request.query.get("after", "")).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


def _bound(transport: asyncio.Transport) -> None:
    """Bound how long a vanished reader and how much a slow one keeps of this machine."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _VANISHED_AFTER_MILLISECONDS)
    except OSError:
        return  # not a TCP socket: its peer cannot vanish
