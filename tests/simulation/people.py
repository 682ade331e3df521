"""Whoever stands around the program: uploaders, callers with their errors and retries, the provider's webhooks."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp

from signals import SignalError, signal_status_update
from simulation.checking import ORDER
from simulation.cloudflare import Notification
from simulation.nodes import EPOCH
from simulation.processes import CALLER_TOKEN, WEB_HOST, WEB_PORT, WEBHOOK_SECRET
from simulation.scenarios import ClipPlan, Happening
from simulation.videos import SimulatedVideo

if TYPE_CHECKING:
    from simulation.world import World

_ADDRESS = f"http://{WEB_HOST}:{WEB_PORT}"
_COURIER_SECONDS = 0.5
_STATUSES = tuple(ORDER)


class People:
    """All of them, on one node that nothing befalls but a bad network."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._draw = world.loop.draw("people")
        self._http: aiohttp.ClientSession | None = None
        self.clip_ids: dict[int, str] = {}
        #: What was answered with success, to be found in the history: (clip, source, mark).
        self.acknowledged: list[tuple[str, str, str]] = []
        #: Clips that somebody ended, or whose video somebody removed: how they end is his doing.
        self.moved_by_people: set[str] = set()

    async def call(self, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, Any]:
        """One call of the web process; 0 when no answer came."""
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        said = {"Authorization": f"Bearer {CALLER_TOKEN}", "Content-Type": "application/json", **(headers or {})}
        try:
            async with self._http.request(method, _ADDRESS + path, data=data, headers=said) as answer:
                raw = await answer.read()
                return answer.status, json.loads(raw) if raw else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return 0, None

    # --- Clips -------------------------------------------------------------------------------------------

    async def bring(self, plan: ClipPlan) -> None:
        """Make one clip, however often it has to be asked for, and bring its bytes."""
        await asyncio.sleep(plan.at_seconds)
        body = self._body_of(plan)
        headers = {"Idempotency-Key": f"clip-{plan.number}"}
        wait_seconds = 1.0
        while True:
            status, answer = await self.call("POST", "/api/clips", body, headers)
            if status == 201:
                break
            self._world.loop.tell(f"clip {plan.number} was answered {status} {(answer or {}).get('detail', '')}")
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, 60.0)
        self.clip_ids[plan.number] = answer["id"]
        self._world.loop.tell(f"clip {plan.number} is {answer['id']} {answer['cloudflare_uid']}")
        if plan.origin == "upload" and plan.upload_seconds is not None:
            await asyncio.sleep(plan.upload_seconds)
            self._world.stream.receive(answer["cloudflare_uid"])

    def _body_of(self, plan: ClipPlan) -> dict[str, Any]:
        title = f"clip {plan.number}"
        if plan.origin == "url":
            return {"source": "url", "url": f"https://origin.example/{plan.number}.mp4?token=canary", "title": title}
        if plan.origin == "adopted":
            video = self._world.make_video(plan)
            return {"source": "stream", "cloudflare_uid": video.uid, "title": title}
        return {"source": "upload", "title": title, "size_bytes": 10_000, "max_duration_seconds": 3600}

    # --- What somebody does at one moment ----------------------------------------------------------------

    def _some_clip(self, share: float) -> str | None:
        known = list(self.clip_ids.values())
        return known[int(share * len(known))] if known else None

    async def act(self, one: Happening) -> None:
        """A person asks for something: an error, a deletion, a retry, any status."""
        clip_id = self._some_clip(one.share)
        if clip_id is None:
            return
        at = self._world.status_of_clip(clip_id)
        deed = "retry" if at == "error" else self._draw.choice(("error", "delete", "status", "status", "retry"))
        self._world.chaos.saw(f"person asks for {deed}", at)
        mark = f"person-{self._draw.getrandbits(32)}"
        if deed == "delete":
            self.moved_by_people.add(clip_id)
            status, _ = await self.call("DELETE", f"/api/clips/{clip_id}")
        elif deed == "retry":
            status, _ = await self.call("POST", f"/api/clips/{clip_id}/retry", {})
        else:
            asked = "error" if deed == "error" else self._draw.choice(_STATUSES)
            if asked == "error":
                self.moved_by_people.add(clip_id)
            body = {"requested_status": asked, "details": {"mark": mark}}
            status, _ = await self.call("POST", f"/api/clips/{clip_id}/signals", body)
            if status == 202:
                self.acknowledged.append((clip_id, "api", mark))
        self._world.loop.tell(f"person: {deed} {clip_id} {status}")

    async def speak_stale(self, one: Happening) -> None:
        """Another service of the house sends a signal that may be old, low or of a wrong attempt."""
        clip_id = self._some_clip(one.share)
        if clip_id is None:
            return
        at = self._world.status_of_clip(clip_id)
        status = self._draw.choice(_STATUSES[:9])
        row = self._world.database.row("clips", clip_id) or {}
        # Of the first attempt, whichever runs, or of one that cannot be opened yet; retries are for persons.
        attempt = self._draw.choice((None, 1, 1, row.get("attempt", 1) + 2))
        hearsay = self._draw.random() < 0.3
        self._world.chaos.saw("stale signal", at)
        mark = f"service-{self._draw.getrandbits(32)}"
        try:
            connection = await self._world.ground.connect()
            await signal_status_update(
                connection, clip_id, status, {"mark": mark}, "service", attempt=attempt, hearsay=hearsay
            )
            self.acknowledged.append((clip_id, "service", mark))
            connection.terminate()
        except (SignalError, *self._world.database_away) as problem:
            self._world.loop.tell(f"service: {type(problem).__name__}")

    # --- Webhooks ----------------------------------------------------------------------------------------

    async def deliver_webhooks(self) -> None:
        """The provider's courier: most arrive, some twice, some late, some never."""
        chaos, loop = self._world.chaos, self._world.loop
        while True:
            await asyncio.sleep(_COURIER_SECONDS)
            for one in self._world.stream.due_notifications():
                times, delays = 1, [0.0]
                if chaos.happens_in("webhooks", 0.3):
                    times = chaos.choose(0, 1, 2, 3)
                    delays = [chaos.between(0.0, chaos.choose(1.0, 40.0)) for _ in range(times)]
                    kind = "webhook lost" if times == 0 else "webhook late" if times == 1 else "webhook doubled"
                    chaos.saw(kind, self._world.status_of(one.uid))
                for delay in delays[:times]:
                    loop.create_task(self._deliver(one, delay))

    async def _deliver(self, one: Notification, delay: float) -> None:
        await asyncio.sleep(delay)
        clip_id = self._world.clip_of(one.uid)
        self._world.chaos.saw("webhook", self._world.status_of(one.uid))
        status, _ = await self.call("POST", "/webhooks/cloudflare", one.body, dict(one.headers))
        if status == 200:
            self._webhook_was_taken(one.uid, clip_id)
        self._world.loop.tell(f"webhook about {one.uid}: {status}")

    async def forge(self, one: Happening) -> None:
        """Whoever holds the secret, or records what passes, says that a video is further than it is."""
        uids = list(self._world.stream.videos)
        if not uids:
            return
        video = self._world.stream.videos[uids[int(one.share * len(uids))]]
        body = self._forged(video)
        at = int(EPOCH + self._world.loop.now - self._draw.choice((0, 0, 200, 400)))
        digest = hmac.new(WEBHOOK_SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        self._world.chaos.saw("forged webhook", self._world.status_of(video.uid))
        clip_id = self._world.clip_of(video.uid)
        signature = {"Webhook-Signature": f"time={at},sig1={digest}"}
        status, _ = await self.call("POST", "/webhooks/cloudflare", body, signature)
        if status == 200:
            self._webhook_was_taken(video.uid, clip_id)
        self._world.loop.tell(f"forged webhook about {video.uid}: {status}")

    def _webhook_was_taken(self, uid: str, clip_id_before: str | None) -> None:
        """It is in the history of the clip, unless a new attempt has left that video behind while it was on its way."""
        if clip_id_before is not None and self._world.clip_of(uid) == clip_id_before:
            self.acknowledged.append((clip_id_before, "webhook", ""))

    def _forged(self, video: SimulatedVideo) -> bytes:
        document = json.loads(self._world.stream.notification(video.uid).body)
        document["status"] = {
            "state": self._draw.choice(("ready", "ready", "error", "queued")),
            "pctComplete": "100.000000",
            "errorReasonCode": "ERR_FORGED",
        }
        document["readyToStream"] = True
        return json.dumps(document).encode()


def moment(now: float) -> datetime:
    """The true time *now* as a date."""
    return datetime.fromtimestamp(EPOCH + now, UTC)
