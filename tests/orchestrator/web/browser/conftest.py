"""A real browser, where there is one: without Chromium the tests in this directory are not collected.

The run says so at its end: a machine needs no browser to run the service or the other tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from wire.browser import CHROMIUM, Browser, Tab, open_browser

collect_ignore_glob = [] if CHROMIUM else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was not proved."""
    if not CHROMIUM:
        terminalreporter.write_line("no Chromium here (set CHROMIUM): the scripts of the pages were not tested")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A fresh browser that knows nothing."""
    async with open_browser() as opened:
        yield opened


@pytest.fixture
async def tab(browser: Browser) -> Tab:
    """A page of it."""
    return await browser.tab()
