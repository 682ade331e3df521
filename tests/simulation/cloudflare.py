"""Cloudflare Stream as one object in memory: its API, its upload addresses and its delivery host as one aiohttp app.

Time comes from a clock that is handed in, chance from a `random.Random`, and what goes wrong from a script
(`simulation.faults`). Everything is kept to be looked at: calls, effects, deliveries.

    stream = SimulatedStream(clock, rng)
    serve(stream.application())            api: {origin}/client/v4/accounts/{account}/stream
    stream.receive(uid)                    the uploader has sent its last byte
    stream.due_notifications()             webhooks to be delivered (or lost, or doubled) by the caller
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from orchestrator.local.stream.limiter import RateLimiter
from simulation.delivery import DeliveryHost
from simulation.doors import answer_through
from simulation.faults import Call, Fault, Faults, NoFaults, Reply
from simulation.movies import movie
from simulation.videos import Fate, SimulatedVideo, downloads_object, draw_fate, rfc3339, video_object

NOT_FOUND, BAD_REQUEST, NO_ROUTE, UNAUTHORIZED, THROTTLED, UNDOCUMENTED = 10003, 10005, 7003, 10000, 971, 1000
_JSON = {"Content-Type": "application/json"}
_IN_FLIGHT = ("downloading", "queued", "inprogress")
_PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The account, and where its things are reached."""

    account_id: str = "acc"
    api_token: str = "simulated-token"
    #: How the answers name the delivery host and the upload host.
    delivery_origin: str = "http://10.0.0.9:80"
    upload_origin: str = "http://10.0.0.9:80"
    webhook_secret: str = "simulated-webhook-secret"
    #: 1,200 calls in 300 s, and one too many is answered by refusing all for as long.
    calls: int = 1200
    window_seconds: float = 300.0
    max_in_flight: int = 120


@dataclass(frozen=True, slots=True)
class Seen:
    """One call to the API as it was met; *limited* when the rate limit refused it."""

    at: datetime
    name: str
    about: str
    fault: str
    status: int = 0
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that was really done: ``copy``, ``direct_upload``, ``tus_upload``, ``enable_download``, ``delete``…"""

    at: datetime
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Notification:
    """One signed webhook, due since *at*."""

    at: datetime
    uid: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Asked:
    """One API request, parsed."""

    name: str
    uid: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body) if self.body.strip() else {}
        except ValueError:
            raise _Refused(400, BAD_REQUEST, "The body is not JSON.") from None
        return found if isinstance(found, dict) else {}


class _Refused(Exception):
    """The API says no."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.reply = refused(status, code, message)


def refused(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """The envelope of a "no"."""
    said = {"result": None, "success": False, "errors": [{"code": code, "message": message}], "messages": []}
    return Reply(status, {**_JSON, **(headers or {})}, json.dumps(said).encode())


def accepted(result: object, **beside: object) -> Reply:
    """The envelope of a success."""
    said = {"result": result, "success": True, "errors": [], "messages": [], **beside}
    return Reply(200, _JSON, json.dumps(said).encode())


class SimulatedStream:
    """One account at the provider."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        rng: random.Random,
        faults: Faults | None = None,
        options: StreamOptions | None = None,
        fate: Callable[[random.Random], Fate] = draw_fate,
    ) -> None:
        self.now = clock
        self.options = options or StreamOptions()
        self.faults: Faults = faults or NoFaults()
        self.fate = fate
        self.videos: dict[str, SimulatedVideo] = {}
        #: Videos that were deleted, for the oracles.
        self.gone: dict[str, SimulatedVideo] = {}
        self.tokens: dict[str, tuple[str, float]] = {}
        self.calls: list[Seen] = []
        self.effects: list[Effect] = []
        self.webhook_url: str | None = None
        #: Lists asked for by uid leave out everything, as they sometimes leave out a few.
        self.lists_nothing = False
        self.delivery = DeliveryHost(self)
        self._rng = rng
        self._numbers: Counter[str] = Counter()
        self._limiter = RateLimiter(self.options.calls, self.options.window_seconds, lambda: self.now().timestamp())
        self._notified: set[tuple[str, str]] = set()

    # --- For whoever drives the simulation ------------------------------------------------------------

    def ask(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Reply:
        """One call to the API as if no network were between; faults do not befall it, the rate limit does."""
        parts = path.strip("/").split("/")[3:]
        name, uid = _named(method, parts, query)
        limits, is_limited = self._count(name, uid or query.get("creator", ""), "")
        if is_limited:
            return refused(429, THROTTLED, "Please wait and consider throttling your request rate", limits)
        reply = self._answer(_Asked(name, uid, query, headers, body), path)
        return Reply(reply.status, {**limits, **reply.headers}, reply.body)

    def application(self) -> web.Application:
        """Everything over HTTP; one app for API, uploads and deliveries."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    def receive(self, uid: str, size_bytes: int = 10_000) -> bool:
        """The last byte of an upload has come; False when the video is gone, or its time is over."""
        video = self.videos.get(uid)
        if video is None or (video.expires_at is not None and self.now() > video.expires_at):
            return False
        if video.arrived_at is None:
            video.arrived_at, video.received_bytes = self.now(), size_bytes
        return True

    def replace_file(self, uid: str, data: bytes) -> None:
        """The delivery host serves other bytes from now on."""
        self.videos[uid].files.append(data)

    def due_notifications(self) -> list[Notification]:
        """The webhooks that are due and were not fetched before; each is made of what is so now."""
        now = self.now()
        due = []
        for video in self.videos.values():
            standing = video.standing(now)
            mark = (video.uid, standing.state)
            if standing.state in ("ready", "error") and mark not in self._notified:
                self._notified.add(mark)
                due.append(self.notification(video.uid))
        return due

    def next_notification_at(self) -> datetime | None:
        """When the next one is due; None when none is in sight."""
        waiting = [
            video.encoded_at
            for video in self.videos.values()
            if video.encoded_at is not None and not {(video.uid, "ready"), (video.uid, "error")} & self._notified
        ]
        return min(waiting, default=None)

    def notification(self, uid: str) -> Notification:
        """A signed webhook about *uid* as it stands now."""
        now = self.now()
        body = json.dumps(video_object(self.videos[uid], now, self.options.delivery_origin)).encode()
        signed_at = str(int(now.timestamp()))
        secret = self.options.webhook_secret.encode()
        digest = hmac.new(secret, f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"Webhook-Signature": f"time={signed_at},sig1={digest}", "Content-Type": "application/json"}
        return Notification(now, uid, headers, body)

    def count(self, effect: str, uid: str | None = None) -> int:
        """How often *effect* was really done."""
        return sum(one.name == effect and uid in (None, one.uid) for one in self.effects)

    def find(self, uid: str) -> SimulatedVideo | None:
        """The video, deleted ones too."""
        return self.videos.get(uid) or self.gone.get(uid)

    # --- What the delivery host asks ------------------------------------------------------------------

    def shown_under(self, name: str) -> tuple[SimulatedVideo | None, bool]:
        """The video of a uid, or of a token in its place, and whether it may be shown: a private one by token alone."""
        uid, until = self.tokens.get(name, (name, 0.0))
        video = self.videos.get(uid)
        return video, video is not None and (not video.fate.is_private or self.now().timestamp() <= until)

    def fault(self, name: str, about: str) -> Fault | None:
        """What befalls a delivery."""
        return self.faults.next(self._call("delivery", name, about))

    # --- The API --------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts[:3] == ["client", "v4", "accounts"]:
            return await self._serve_api(request, parts[3:])
        if len(parts) == 2 and parts[0] == "upload":
            await request.read()
            return web.Response(status=200 if self.receive(parts[1], request.content_length or 0) else 404)
        if len(parts) == 3 and parts[1:] == ["downloads", "default.mp4"]:
            return await self.delivery.serve(request, parts[0])
        return web.Response(status=404)

    async def _serve_api(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        name, uid = _named(request.method, parts, request.query)
        asked = _Asked(name, uid, request.query, request.headers, await request.read())
        about = uid or asked.query.get("creator", "")
        fault = self.faults.next(self._call("stream", name, about))
        limits, is_limited = self._count(name, about, type(fault).__name__ if fault else "")
        if is_limited:
            return _response(refused(429, THROTTLED, "Please wait and consider throttling your request rate", limits))

        def perform() -> Reply:
            reply = self._answer(asked, request.path)
            return Reply(reply.status, {**limits, **reply.headers}, reply.body)

        return await answer_through(request, fault, perform)

    def _count(self, name: str, about: str, fault: str) -> tuple[Mapping[str, str], bool]:
        """Count a call; what the answer says of the rate limit, and whether that refuses it."""
        allowance = self._limiter.take()
        is_limited = allowance.retry_after_seconds is not None
        self.calls.append(Seen(self.now(), name, about, fault, 429 if is_limited else 0, limited=is_limited))
        return self._limiter.headers(allowance), is_limited

    def _answer(self, asked: _Asked, path: str) -> Reply:
        if asked.headers.get("Authorization") != f"Bearer {self.options.api_token}":
            return refused(401, UNAUTHORIZED, "Authentication error")
        if path.split("/")[4] != self.options.account_id or not asked.name:
            return refused(404, NO_ROUTE, "Could not route to the path")
        try:
            return _OPERATIONS[asked.name](self, asked)
        except _Refused as no:
            return no.reply

    def _call(self, service: str, name: str, about: str) -> Call:
        self._numbers[name] += 1
        return Call(service, name, about, self._numbers[name])

    def _did(self, effect: str, uid: str) -> None:
        self.effects.append(Effect(self.now(), effect, uid))

    def _video(self, asked: _Asked) -> SimulatedVideo:
        video = self.videos.get(asked.uid)
        if video is None:
            raise _Refused(404, NOT_FOUND, "Not Found")
        return video

    def make(self, effect: str, creator: str | None, meta: Any) -> SimulatedVideo:
        """A new video, with a file that its MP4 will be."""
        in_flight = sum(one.standing(self.now()).state in _IN_FLIGHT for one in self.videos.values())
        if in_flight >= self.options.max_in_flight:
            raise _Refused(429, UNDOCUMENTED, "Too many videos are queued or being encoded")
        video = SimulatedVideo(
            uid=f"{self._rng.getrandbits(128):032x}",
            fate=self.fate(self._rng),
            created_at=self.now(),
            creator=creator,
            meta=meta if isinstance(meta, dict) else {},
        )
        video.files.append(movie(self._rng, video.fate.size_bytes, video.fate.duration_seconds))
        self.videos[video.uid] = video
        self._did(effect, video.uid)
        return video

    def _object(self, video: SimulatedVideo) -> dict[str, Any]:
        return video_object(video, self.now(), self.options.delivery_origin)

    def direct_upload(self, asked: _Asked) -> Reply:
        said = asked.json()
        video = self.make("direct_upload", said.get("creator"), said.get("meta"))
        video.max_duration_seconds = said.get("maxDurationSeconds")
        expiry = said.get("expiry")
        video.expires_at = datetime.fromisoformat(expiry) if expiry else self.now() + timedelta(minutes=30)
        return accepted({"uid": video.uid, "uploadURL": f"{self.options.upload_origin}/upload/{video.uid}"})

    def tus_upload(self, asked: _Asked) -> Reply:
        video = self.make("tus_upload", asked.headers.get("Upload-Creator"), {})
        headers = {"Location": f"{self.options.upload_origin}/upload/{video.uid}", "stream-media-id": video.uid}
        return Reply(201, headers)

    def copy(self, asked: _Asked) -> Reply:
        said = asked.json()
        source = said.get("input") or said.get("url")
        if not isinstance(source, str):
            raise _Refused(400, BAD_REQUEST, "input is missing")
        video = self.make("copy", said.get("creator"), said.get("meta"))
        video.source_url = source
        video.arrived_at = self.now() + timedelta(seconds=video.fate.downloading_seconds)
        return accepted(self._object(video))

    def list(self, asked: _Asked) -> Reply:
        query = asked.query
        now = self.now()
        uids = query["id"].split(",") if "id" in query else list(self.videos)
        states = query["status"].split(",") if "status" in query else None
        is_hidden = self.lists_nothing and "id" in query
        found = [self.videos[uid] for uid in dict.fromkeys(uids) if uid in self.videos and not is_hidden]
        matching = [
            video
            for video in found
            if ("creator" not in query or video.creator == query["creator"])
            and (states is None or video.standing(now).state in states)
            and ("search" not in query or query["search"].lower() in str(video.meta.get("name", "")).lower())
            and ("before" not in query or video.created_at < datetime.fromisoformat(query["before"]))
        ]
        matching.sort(key=lambda video: (video.created_at, video.uid), reverse=query.get("asc") != "true")
        page = matching[: int(query.get("limit", _PAGE_MAX))]
        counts = {"total": len(matching), "range": len(page)} if query.get("include_counts") == "true" else {}
        return accepted([self._object(video) for video in page], **counts)

    def get(self, asked: _Asked) -> Reply:
        return accepted(self._object(self._video(asked)))

    def delete(self, asked: _Asked) -> Reply:
        video = self._video(asked)
        self.gone[video.uid] = self.videos.pop(video.uid)
        self._did("delete", video.uid)
        return accepted("")

    def get_downloads(self, asked: _Asked) -> Reply:
        return accepted(downloads_object(self._video(asked), self.now(), self.options.delivery_origin))

    def enable_download(self, asked: _Asked) -> Reply:
        video = self._video(asked)
        if not video.standing(self.now()).is_playable:
            raise _Refused(400, UNDOCUMENTED, "The video is not ready to stream")
        there = video.mp4(self.now())
        if there is None:
            video.mp4_enabled_at = self.now()
            video.mp4_makes += 1
        elif there[0] != "error":
            video.mp4_repeated_at.append(self.now())
        self._did("enable_download", video.uid)
        return accepted(downloads_object(video, self.now(), self.options.delivery_origin))

    def reset_download(self, asked: _Asked) -> Reply:
        self._video(asked).mp4_enabled_at = None
        self._did("reset_download", asked.uid)
        return accepted("")

    def create_token(self, asked: _Asked) -> Reply:
        video = self._video(asked)
        token = f"{self._rng.getrandbits(128):032x}.{self._rng.getrandbits(128):032x}"
        until = float(asked.json().get("exp") or self.now().timestamp() + 3600)
        self.tokens[token] = (video.uid, until)
        self._did("create_token", video.uid)
        return accepted({"token": token})

    def webhook(self, asked: _Asked) -> Reply:
        if asked.name == "put_webhook":
            self.webhook_url = asked.json().get("notificationUrl")
        if self.webhook_url is None:
            raise _Refused(404, NOT_FOUND, "Not Found")
        said = {"notificationUrl": self.webhook_url, "secret": self.options.webhook_secret}
        return accepted({**said, "modified": rfc3339(self.now())})

    def storage_usage(self, asked: _Asked) -> Reply:
        minutes = sum(video.fate.duration_seconds for video in self.videos.values()) / 60
        return accepted(
            {"totalStorageMinutes": minutes, "totalStorageMinutesLimit": 1000, "videoCount": len(self.videos)}
        )


_OPERATIONS: Mapping[str, Callable[[SimulatedStream, _Asked], Reply]] = {
    "direct_upload": SimulatedStream.direct_upload,
    "tus_upload": SimulatedStream.tus_upload,
    "copy": SimulatedStream.copy,
    "find_by_creator": SimulatedStream.list,
    "list": SimulatedStream.list,
    "get": SimulatedStream.get,
    "delete": SimulatedStream.delete,
    "get_downloads": SimulatedStream.get_downloads,
    "enable_download": SimulatedStream.enable_download,
    "reset_download": SimulatedStream.reset_download,
    "create_token": SimulatedStream.create_token,
    "get_webhook": SimulatedStream.webhook,
    "put_webhook": SimulatedStream.webhook,
    "storage_usage": SimulatedStream.storage_usage,
}

# Below /accounts/{account}: method and shape of the path, `*` for a uid.
_ROUTES = {
    ("POST", "stream/direct_upload"): "direct_upload",
    ("POST", "stream"): "tus_upload",
    ("POST", "stream/copy"): "copy",
    ("GET", "stream"): "list",
    ("GET", "stream/webhook"): "get_webhook",
    ("PUT", "stream/webhook"): "put_webhook",
    ("GET", "stream/storage-usage"): "storage_usage",
    ("GET", "stream/*"): "get",
    ("DELETE", "stream/*"): "delete",
    ("GET", "stream/*/downloads"): "get_downloads",
    ("POST", "stream/*/downloads"): "enable_download",
    ("DELETE", "stream/*/downloads"): "reset_download",
    ("POST", "stream/*/token"): "create_token",
}
#: Every call of the API that a script may befall.
API_CALLS = tuple(dict.fromkeys([*_OPERATIONS]))
DELIVERY_CALLS = ("probe", "span", "whole")


def _named(method: str, parts: list[str], query: Mapping[str, str]) -> tuple[str, str]:
    """The name of the call and the uid in it; an empty name for a path that leads nowhere."""
    path = "/".join(parts[1:])
    name, uid = _ROUTES.get((method, path), ""), ""
    if not name and len(parts) >= 3:
        name, uid = _ROUTES.get((method, "/".join(["stream", "*", *parts[3:]])), ""), parts[2]
    if name == "list" and "creator" in query:
        name = "find_by_creator"
    return name, uid


def _response(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


__all__ = [
    "API_CALLS",
    "DELIVERY_CALLS",
    "Effect",
    "Notification",
    "Seen",
    "SimulatedStream",
    "StreamOptions",
    "accepted",
    "refused",
]
