"""The stand-in as one object: started, asked, stopped."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import structlog
from aiohttp import web

from orchestrator.drivers.ffmpeg import find_ffmpeg
from orchestrator.local.stream.admission import Admission
from orchestrator.local.stream.application import build_application
from orchestrator.local.stream.downloads import Downloads
from orchestrator.local.stream.encoding import Encoder
from orchestrator.local.stream.limiter import RateLimiter
from orchestrator.local.stream.media import Media
from orchestrator.local.stream.options import StandInOptions
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.processing import Processing
from orchestrator.local.stream.records import CallLog, Traffic
from orchestrator.local.stream.store import VideoStore
from orchestrator.local.stream.switchboard import FaultSwitches
from orchestrator.local.stream.tokens import TokenSigner
from orchestrator.local.stream.webhook_settings import WebhookSettings
from orchestrator.local.stream.webhooks import Webhooks

log = structlog.get_logger(__name__)

# Requests still running at the end are cut off after this: a viewer must not hold up the stop.
_SHUTDOWN_SECONDS = 0.5
# Cloudflare refuses addresses above 32 KB (its page on error 414); that bounds the uids of one `id=`.
_LONGEST_ADDRESS_BYTES = 32 * 1024


class DataDirBusy(RuntimeError):
    """Another stand-in uses this data directory."""


class StreamStandIn:
    """A local Cloudflare Stream.

    async with StreamStandIn(StandInOptions(data_dir=path)) as stream:
        stream.url, stream.account_id, stream.api_token
    """

    def __init__(self, options: StandInOptions) -> None:
        self.options = options
        self.faults = FaultSwitches(options.faults)
        self.calls = CallLog()
        self.traffic = Traffic()
        self._parts: Parts | None = None
        self._runner: web.AppRunner | None = None
        self._lock: BinaryIO | None = None

    @property
    def base_url(self) -> str:
        """The upload and delivery host, like `http://127.0.0.1:8788`."""
        return self._running.base_url

    @property
    def url(self) -> str:
        """The API's base address, what CLOUDFLARE_API_URL is set to."""
        return f"{self.base_url}/client/v4"

    @property
    def account_id(self) -> str:
        return self.options.account_id

    @property
    def api_token(self) -> str:
        return self.options.api_token

    @property
    def webhook_secret(self) -> str | None:
        """What signs notifications now; None while no webhook is registered and no secret was given."""
        current = self._running.webhooks.settings.current
        return current.secret if current is not None else self.options.webhook_secret

    @property
    def parts(self) -> Parts:
        """The wired parts, for whoever looks deeper than the API does."""
        return self._running

    @property
    def _running(self) -> Parts:
        if self._parts is None:
            raise RuntimeError("the stand-in is not started")
        return self._parts

    async def start(self) -> None:
        """Listen, and take up what an earlier run left unfinished.

        Raises FfmpegMissing, DataDirBusy, OSError (the port is taken).
        """
        options = self.options
        media = Media(find_ffmpeg(options.ffmpeg))
        options.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(options.data_dir / "lock")
        listener: socket.socket | None = None
        try:
            listener = _listener(options.host, options.port)
            port = listener.getsockname()[1]
            self._parts = self._wire(media, options.public_url or f"http://{_in_url(options.host)}:{port}")
            await self._serve(self._parts, listener)
            await self._parts.webhooks.start(self._parts.base_url)
        except BaseException:
            await self.stop()
            if listener is not None:
                listener.close()
            raise
        self._parts.processing.resume()
        self._parts.downloads.resume()

    async def stop(self) -> None:
        """Stop listening and working; no child is left. What was unfinished goes on after the next start."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._parts is not None:
            await self._parts.processing.close()
            await self._parts.downloads.close()
            await self._parts.webhooks.close()
        if self._lock is not None:
            self._lock.close()
        self._runner = self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, parts: Parts, listener: socket.socket) -> None:
        app = build_application(parts, TokenSigner(self.options.data_dir / "token-secret"))
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, max_line_size=_LONGEST_ADDRESS_BYTES
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    def _wire(self, media: Media, base_url: str) -> Parts:
        options = self.options
        store = VideoStore(options.data_dir / "videos")
        store.load()
        encoder = Encoder(store, media, options.encode, options.encoders)
        settings = WebhookSettings(options.data_dir / "webhook.json", options)
        webhooks = Webhooks(settings, store, self.faults, options)
        return Parts(
            options=options,
            base_url=base_url.rstrip("/"),
            api_url=f"{base_url.rstrip('/')}/client/v4/accounts/{options.account_id}",
            store=store,
            media=media,
            switches=self.faults,
            calls=self.calls,
            traffic=self.traffic,
            limiter=RateLimiter(options.rate_limit_count, options.rate_limit_window_seconds),
            admission=Admission(store, self.faults, options),
            encoder=encoder,
            processing=Processing(store, encoder, self.faults, options, webhooks.notify),
            downloads=Downloads(store, media, self.faults, options.dwell),
            webhooks=webhooks,
        )


def _locked(path: Path) -> BinaryIO:
    """Two stand-ins on one directory would overwrite each other's records."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise DataDirBusy(f"another stand-in uses {path.parent}") from exc
    return file


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _in_url(host: str) -> str:
    if ":" in host:
        return f"[{host}]"
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
