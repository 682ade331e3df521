"""A stand-in to ask, a client that holds its token, a receiver for its webhooks, and small real media."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.local.stream import Dwell, StandInOptions, StreamStandIn

# Longer than any state of a test takes; reached only when something is broken.
PATIENCE_SECONDS = 20.0
_LOOK_SECONDS = 0.005
# Tests that watch a state give it time of their own.
_BRISK = Dwell(0.005, 0.005, 0.005, 0.005, 0.005, 0.005)


@dataclass(frozen=True, slots=True)
class Answer:
    """One API answer: status, headers and the envelope (None without a body)."""

    status: int
    headers: Any
    body: Any

    @property
    def result(self) -> Any:
        assert self.status == 200, self.body
        assert self.body["success"] is True
        return self.body["result"]

    @property
    def code(self) -> int:
        assert self.body["success"] is False
        assert self.body["result"] is None
        return int(self.body["errors"][0]["code"])


class Account:
    """The API of one stand-in, asked as a client would."""

    def __init__(self, stream: StreamStandIn, session: aiohttp.ClientSession) -> None:
        self.stream = stream
        self.session = session
        self.address = f"{stream.url}/accounts/{stream.account_id}"
        self.token = stream.api_token

    async def call(self, method: str, path: str, **arguments: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}", **arguments.pop("headers", {})}
        async with self.session.request(method, self.address + path, headers=headers, **arguments) as answer:
            is_json = answer.content_type == "application/json"
            return Answer(
                answer.status, answer.headers, await answer.json() if is_json else await answer.text() or None
            )

    async def video(self, uid: str) -> dict[str, Any]:
        return (await self.call("GET", f"/stream/{uid}")).result

    async def until(self, uid: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The video as soon as it is as wanted."""
        return await eventually(lambda: self.video(uid), is_so)

    async def until_state(self, uid: str, state: str) -> dict[str, Any]:
        def is_so(video: dict[str, Any]) -> bool:
            assert video["status"]["state"] in {state, "pendingupload", "downloading", "queued", "inprogress"}, video
            return bool(video["status"]["state"] == state)

        return await self.until(uid, is_so)

    async def announce(self, **body: Any) -> dict[str, Any]:
        """A one-time form address."""
        return (await self.call("POST", "/stream/direct_upload", json={"maxDurationSeconds": 600, **body})).result

    async def send(self, address: str, path: Path) -> int:
        """The form upload a browser makes: no token."""
        form = aiohttp.FormData()
        with path.open("rb") as file:
            form.add_field("file", file, filename=path.name, content_type="video/mp4")
            async with self.session.post(address, data=form) as answer:
                return answer.status

    async def upload(self, path: Path, **body: Any) -> str:
        """Announce and send; the uid."""
        announced = await self.announce(**body)
        assert await self.send(announced["uploadURL"], path) == 200
        return str(announced["uid"])

    async def ready(self, path: Path, **body: Any) -> str:
        """A video that is ready."""
        uid = await self.upload(path, **body)
        await self.until_state(uid, "ready")
        return uid

    async def mp4(self, path: Path, **body: Any) -> tuple[str, str]:
        """A video whose MP4 is ready: uid and address."""
        uid = await self.ready(path, **body)
        await self.call("POST", f"/stream/{uid}/downloads")
        return uid, (await self.until_mp4(uid, "ready"))["url"]

    async def until_mp4(self, uid: str, status: str) -> dict[str, Any]:
        async def look() -> dict[str, Any]:
            return dict((await self.call("GET", f"/stream/{uid}/downloads")).result["default"])

        return await eventually(look, lambda download: download["status"] == status)


async def eventually(look: Callable[[], Awaitable[Any]], is_so: Callable[[Any], bool]) -> Any:
    """What *look* gives as soon as *is_so* holds of it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so(seen := await look()):
            await asyncio.sleep(_LOOK_SECONDS)
        return seen


@dataclass(slots=True)
class Receiver:
    """A webhook receiver that keeps what came and answers as told."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.received.append((dict(request.headers), await request.read()))
        self.came.set()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    async def until(self, count: int) -> list[tuple[dict[str, str], bytes]]:
        """Everything received, as soon as there are *count*."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.received) < count:
                self.came.clear()
                await self.came.wait()
        return self.received


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Application], Awaitable[str]]]:
    """Serves an application for the length of a test; gives its address."""
    runners: list[web.AppRunner] = []

    async def start(app: web.Application) -> str:
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def receiver(serve: Callable[[web.Application], Awaitable[str]]) -> Receiver:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    receiver.url = f"{await serve(app)}/hook"
    return receiver


OpenAccount = Callable[..., Awaitable[Account]]


@pytest.fixture
async def open_account(tmp_path: Path) -> AsyncIterator[OpenAccount]:
    """Starts stand-ins with the options a test needs, and stops them after it."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def start(**options: Any) -> Account:
            plain = {"data_dir": tmp_path / "stream", "encode": "copy", "rate_limit_count": 1_000_000, "dwell": _BRISK}
            given = StandInOptions(**{**plain, **options})
            return Account(await stack.enter_async_context(StreamStandIn(given)), session)

        yield start


@pytest.fixture
async def account(open_account: OpenAccount) -> Account:
    """A stand-in with fast, plain options."""
    return await open_account()


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str) -> Path:
    return _made(tmp_path_factory.mktemp("media"), ffmpeg)


def _made(folder: Path, ffmpeg: str) -> Path:
    """clip.mp4 (2 s), long.mp4 (8 s), clip.webm, silent.mp4, blink.mp4 (0.04 s), broken.mp4, text.mp4, sound.m4a"""

    def make(name: str, *arguments: str) -> None:
        subprocess.run([ffmpeg, "-loglevel", "error", "-y", *arguments, str(folder / name)], check=True)

    h264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
    picture = ("-f", "lavfi", "-i", "testsrc=size=320x180:rate=25:duration=")
    sound = ("-f", "lavfi", "-i", "sine=duration=")
    make("clip.mp4", *picture[:-1], picture[-1] + "2", *sound[:-1], sound[-1] + "2", *h264, "-movflags", "+faststart")
    make("long.mp4", *picture[:-1], picture[-1] + "8", *sound[:-1], sound[-1] + "8", *h264)
    make("silent.mp4", *picture[:-1], picture[-1] + "1", *h264)
    make("blink.mp4", *picture[:-1], picture[-1] + "0.04", *h264)
    make("clip.mkv", *picture[:-1], picture[-1] + "1", "-c:v", "mpeg4")
    make("sound.m4a", *sound[:-1], sound[-1] + "1")
    whole = (folder / "long.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    return folder
