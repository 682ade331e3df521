"""A real browser, where there is one: one Chromium for all tests here, for each a context that knows nothing.

Without Chromium the tests are skipped, and with CI=true that fails: a machine needs no browser to run the service or
the other tests, but what is released has been looked at.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire.browser import CHROMIUM, Browser, Tab

_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker."""
    config.addinivalue_line("markers", "picture: takes pictures for the documentation, with SCREENSHOTS=1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take pictures on request alone; skip what cannot be looked at."""
    pictured = [item for item in items if _HERE in item.path.parents and item.get_closest_marker("picture")]
    if pictured and not os.environ.get("SCREENSHOTS"):
        config.hook.pytest_deselected(items=pictured)
        items[:] = [item for item in items if item not in pictured]
    if not CHROMIUM:
        mark = pytest.mark.skip(reason="no Chromium here; install it, or let CHROMIUM name it")
        for item in items:
            if _HERE in item.path.parents:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser that all tests share."""
    browser = Browser()
    browser.start()
    yield browser
    browser.stop()


@pytest.fixture
async def browser(chromium: Browser) -> AsyncIterator[Browser]:
    """The browser, without anything of the tests before."""
    yield chromium
    await chromium.clear()


@pytest.fixture
async def tab(browser: Browser) -> Tab:
    """A page of it."""
    return await browser.tab()


@pytest.fixture
def address() -> Any:
    """Where a path of a started process is."""
    return lambda client, path: str(client.make_url(path))
