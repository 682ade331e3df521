"""A real browser, where there is one: Chromium without a window, spoken to over its own protocol.

CHROMIUM names its program.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# Nothing but the pages under test: no first run, no updates, no calls to the maker.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0",
)  # fmt: skip
WAIT_SECONDS = 20.0


class Tab:
    """One page: goes to addresses, runs expressions, remembers what went wrong in it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []
        # What scripts of the page have asked to be shown: alert, confirm, prompt.
        self.dialogs: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **parameters)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    async def run(self, expression: str) -> Any:
        """The value of *expression* in the page; promises are waited for."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until *expression* is true in the page."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    with suppress(AssertionError):  # the page may be between two documents
                        if await self.run(f"Boolean({expression})"):
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.run("document.body.innerText")
            raise AssertionError(f"never true: {expression}\n{self.complaints}\n{text}") from None

    async def choose_file(self, selector: str, path: Path) -> None:
        document = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(path)])

    async def resize(self, width: int, height: int = 900, dark: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """One Chromium and the line to it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        await self._socket.send_json(message)
        async with asyncio.timeout(WAIT_SECONDS):
            answer = await answered
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    async def tab(self) -> Tab:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await tab.call(f"{domain}.enable")
        return tab

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            heard = json.loads(message.data)
            if "id" in heard and heard["id"] in self._answers:
                self._answers.pop(heard["id"]).set_result(heard)
            tab = self._tabs.get(heard.get("sessionId", ""))
            if tab is None:
                continue
            if heard.get("method") == "Log.entryAdded" and heard["params"]["entry"]["level"] == "error":
                tab.complaints.append(heard["params"]["entry"]["text"] + " " + heard["params"]["entry"].get("url", ""))
            if heard.get("method") == "Page.javascriptDialogOpening":
                tab.dialogs.append(heard["params"]["message"])
                dismiss = {"id": next(self._numbers), "method": "Page.handleJavaScriptDialog"}
                dismiss |= {"params": {"accept": False}, "sessionId": heard["sessionId"]}
                await self._socket.send_json(dismiss)
            if heard.get("method") == "Runtime.exceptionThrown":
                tab.complaints.append(json.dumps(heard["params"]["exceptionDetails"])[:2000])


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A fresh browser that knows nothing."""
    assert CHROMIUM is not None
    home = Path(tempfile.mkdtemp(prefix="browser-"))
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *FLAGS, f"--user-data-dir={home}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            port, path = await _door(home)
            async with session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket:
                found = Browser(socket)
                yield found
                with suppress(AssertionError, TimeoutError, aiohttp.ClientError):
                    await found.call("Browser.close")
                await found.close()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        shutil.rmtree(home, ignore_errors=True)


async def _door(home: Path) -> tuple[str, str]:
    """Where the browser listens, as it writes it down once it does."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with suppress(OSError, ValueError):
                port, path = (home / "DevToolsActivePort").read_text().split("\n")[:2]
                return port, path
            await asyncio.sleep(0.05)
