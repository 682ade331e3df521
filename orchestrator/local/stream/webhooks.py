"""Notifications: one signed POST for each video that became ready or failed, with a few retries."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import structlog

from orchestrator.local.stream import faults
from orchestrator.local.stream.options import StandInOptions
from orchestrator.local.stream.store import VideoGone, VideoStore
from orchestrator.local.stream.switchboard import FaultSwitches
from orchestrator.local.stream.tasks import Tasks
from orchestrator.local.stream.videos import Video, video_object
from orchestrator.local.stream.webhook_settings import Registration, WebhookSettings

log = structlog.get_logger(__name__)

# A receiver that needs longer than this has lost the notification for this attempt.
_TIMEOUT = aiohttp.ClientTimeout(total=30)
# More at once would measure the receiver's backlog, not its work.
_AT_ONCE = 20
# Enough to look back on; older deliveries are forgotten.
_KEPT_DELIVERIES = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt, as it went: status None when no answer came."""

    uid: str
    state: str
    attempt: int
    status: int | None


def sign(secret: str, body: bytes, at_unix_seconds: int) -> str:
    """The value of Webhook-Signature: HMAC-SHA256 over `time.body`, keyed by the secret's text."""
    source = str(at_unix_seconds).encode() + b"." + body
    return f"time={at_unix_seconds},sig1={hmac.new(secret.encode(), source, hashlib.sha256).hexdigest()}"


class Webhooks:
    """Sends one notification for each video that became ready or failed."""

    def __init__(
        self,
        settings: WebhookSettings,
        store: VideoStore,
        switches: FaultSwitches,
        options: StandInOptions,
    ) -> None:
        self.settings = settings
        self.deliveries: deque[Delivery] = deque(maxlen=_KEPT_DELIVERIES)
        self._base_url = ""
        self._store = store
        self._switches = switches
        self._options = options
        self._tasks = Tasks()
        self._numbers = 0
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._held: list[asyncio.Event] = []
        self._session: aiohttp.ClientSession | None = None

    async def start(self, base_url: str) -> None:
        """Begin to send, also what an earlier run still owed."""
        self._base_url = base_url
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        for video in self._store.oldest_first():
            if video.webhook_due:
                self.notify(video.uid)

    async def close(self) -> None:
        """Stop sending; what is still owed is sent after the next start."""
        await self._tasks.close()
        if self._session is not None:
            await self._session.close()

    def notify(self, uid: str) -> None:
        """Send the video's state as it is now."""
        self._start(self._notify(uid))

    async def _notify(self, uid: str) -> None:
        try:
            video = self._store.get(uid)
            if self.settings.current is not None:
                body = json.dumps(video_object(video, self._base_url)).encode()
                copies = await self._faulty_copies(video)
                await asyncio.gather(*(self._deliver(video, body) for _ in range(copies)))
            self._store.note(uid, webhook_due=False)
        except VideoGone:
            return

    async def _faulty_copies(self, video: Video) -> int:
        """How often to send this one, after the waits that faults ask for."""
        if self._switches.bite(faults.WebhookLost, *video.names):
            return 0
        if delayed := self._switches.bite(faults.WebhookDelayed, *video.names):
            await asyncio.sleep(delayed.seconds)
        if reordered := self._switches.bite(faults.WebhookReordered, *video.names):
            await self._wait_in_batch(reordered)
        duplicated = self._switches.bite(faults.WebhookDuplicated, *video.names)
        return 1 + (duplicated.copies if duplicated else 0)

    async def _wait_in_batch(self, fault: faults.WebhookReordered) -> None:
        mine = asyncio.Event()
        self._held.append(mine)
        if len(self._held) >= fault.batch:
            self._start(self._release())
        try:
            async with asyncio.timeout(fault.seconds):
                await mine.wait()
        except TimeoutError:
            self._start(self._release())
            await mine.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._numbers += 1
        self._tasks.start(self._numbers, work)

    async def _release(self) -> None:
        """Let the held ones go, last first, each with a start on the next."""
        held, self._held = self._held, []
        for event in reversed(held):
            event.set()
            await asyncio.sleep(0.02)

    async def _deliver(self, video: Video, body: bytes) -> None:
        wait_seconds = self._options.webhook_backoff_seconds
        for attempt in range(1, self._options.webhook_attempts + 1):
            async with self._at_once:
                status = await self._post(video, body)
            self.deliveries.append(Delivery(video.uid, video.state, attempt, status))
            if status is not None and 200 <= status < 300:
                return
            if attempt < self._options.webhook_attempts:
                await asyncio.sleep(wait_seconds)
                wait_seconds *= 2
        log.warning("A notification was given up", uid=video.uid, attempts=self._options.webhook_attempts)

    async def _post(self, video: Video, body: bytes) -> int | None:
        registration = self.settings.current
        if registration is None or self._session is None:
            return None
        headers = {"Content-Type": "application/json", "Webhook-Signature": self._signature(video, body, registration)}
        try:
            async with self._session.post(
                registration.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _signature(self, video: Video, body: bytes, registration: Registration) -> str:
        secret, at = registration.secret, int(time.time())
        if self._switches.bite(faults.WebhookWrongSecret, *video.names):
            secret = secrets.token_hex(16)
        if self._switches.bite(faults.WebhookSecretRotated, *video.names):
            secret = (self.settings.rotate() or registration).secret
        if stale := self._switches.bite(faults.WebhookStale, *video.names):
            at -= int(stale.seconds)
        return sign(secret, body, at)


def as_rows(deliveries: deque[Delivery]) -> list[dict[str, Any]]:
    """The deliveries as JSON, oldest first."""
    return [asdict(delivery) for delivery in deliveries]
