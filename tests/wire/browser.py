"""A real browser, where there is one: Chromium without a window, driven by Playwright in a thread of its own.

CHROMIUM names its program. The thread has a loop of its own, so that one browser serves tests which each have theirs;
every tab in a context of its own knows nothing of the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, CDPSession, ConsoleMessage, Dialog, Error, Page, async_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# Nothing but the pages under test: no first run, no updates, no calls to the maker.
FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
WAIT_SECONDS = 20.0
_START_SECONDS = 60.0

T = TypeVar("T")


class Tab:
    """One page: goes to addresses, runs expressions, remembers what went wrong in it."""

    def __init__(self, browser: Browser, page: Page, session: CDPSession) -> None:
        self._browser, self._session = browser, session
        # Only what is awaited, and through `do`: the browser's thread alone may speak to it.
        self.page = page
        self.complaints: list[str] = []
        # What scripts of the page have asked to be shown: alert, confirm, prompt.
        self.dialogs: list[str] = []

    async def do(self, step: Coroutine[Any, Any, T]) -> T:
        """What *step*, a call of Playwright's, gives."""
        return await self._browser.do(step)

    async def hear(self, event: Any, handler: Callable[[Any], None]) -> None:
        """Tell *handler* of every *event* of the page from now on, in the browser's thread."""

        async def begin() -> None:
            self.page.on(event, handler)

        await self.do(begin())

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A call of the browser's own protocol, for what Playwright has no word for."""
        answer: dict[str, Any] = await self.do(self._session.send(method, parameters))
        return answer

    async def go(self, url: str) -> None:
        await self.do(self.page.goto(url, wait_until="load"))

    async def run(self, expression: str) -> Any:
        """The value of *expression* in the page; promises are waited for."""
        return await self.do(self.page.evaluate(expression))

    async def until(self, expression: str) -> None:
        """Wait until *expression* is true in the page."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    with suppress(Error):  # the page may be between two documents
                        if await self.run(f"Boolean({expression})"):
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.run("document.body.innerText")
            raise AssertionError(f"never true: {expression}\n{self.complaints}\n{text}") from None

    async def see(self, text: str) -> None:
        """Wait until *text* can be read on the page."""
        await self.until(f"document.body.innerText.includes({json.dumps(text)})")

    async def press(self, name: str, role: Any = "button") -> None:
        """Press what is called *name*, as a person would: it has to be visible and in nobody's way."""
        await self.do(self.page.get_by_role(role, name=name).first.click(timeout=WAIT_SECONDS * 1000))

    async def choose_file(self, selector: str, *paths: Path) -> None:
        await self.do(self.page.set_input_files(selector, [str(path) for path in paths]))

    async def resize(self, width: int, height: int = 900, dark: bool = False) -> None:
        await self.do(self.page.set_viewport_size({"width": width, "height": height}))
        await self.do(self.page.emulate_media(color_scheme="dark" if dark else "light"))

    async def picture(self, path: Path, *, whole: bool = True) -> None:
        await self.do(self.page.screenshot(path=path, full_page=whole, animations="disabled"))

    async def close(self) -> None:
        await self.do(self.page.close())


class Browser:
    """One Chromium, and the thread that drives it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="browser", daemon=True)
        self._playwright: Any = None
        self._chromium: Chromium | None = None
        self._contexts: list[BrowserContext] = []

    async def do(self, step: Coroutine[Any, Any, T]) -> T:
        """What *step* gives, run where the browser lives."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, self._loop))

    def start(self) -> None:
        """Start the browser; it knows nothing."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_SECONDS)

    def stop(self) -> None:
        """End the browser and its thread."""
        with suppress(Error, TimeoutError):
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        self._loop.close()

    async def tabs(self, count: int = 1, **how: Any) -> Sequence[Tab]:
        """Tabs that share cookies, storage and workers with each other and with nobody else."""
        return await self.do(self._tabs(count, how))

    async def tab(self, **how: Any) -> Tab:
        """A tab on its own; *how* is Playwright's for contexts."""
        return (await self.tabs(1, **how))[0]

    async def clear(self) -> None:
        """Close all tabs, and forget what they knew."""
        contexts, self._contexts = self._contexts, []
        for context in contexts:
            await self.do(context.close())

    async def _start(self) -> None:
        self._playwright = await async_playwright().start()
        self._chromium = await self._playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=False
        )

    async def _stop(self) -> None:
        if self._chromium is not None:
            await self._chromium.close()
        await self._playwright.stop()

    async def _tabs(self, count: int, how: dict[str, Any]) -> list[Tab]:
        assert self._chromium is not None
        context = await self._chromium.new_context(**how)
        context.set_default_timeout(WAIT_SECONDS * 1000)
        self._contexts.append(context)
        return [await self._tab(context) for _ in range(count)]

    async def _tab(self, context: BrowserContext) -> Tab:
        page = await context.new_page()
        tab = Tab(self, page, await context.new_cdp_session(page))

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                tab.complaints.append(f"{message.text} {message.location.get('url', '')}")

        async def on_dialog(dialog: Dialog) -> None:
            # A page that asks whether it may be left is left.
            if dialog.type == "beforeunload":
                return await dialog.accept()
            tab.dialogs.append(dialog.message)
            return await dialog.dismiss()

        page.on("console", on_console)
        page.on("dialog", on_dialog)
        page.on("pageerror", lambda problem: tab.complaints.append(str(problem)))
        return tab


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A fresh browser that knows nothing."""
    assert CHROMIUM is not None
    browser = Browser()
    await asyncio.to_thread(browser.start)
    try:
        yield browser
    finally:
        await asyncio.to_thread(browser.stop)
