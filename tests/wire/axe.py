"""What axe finds on a page: the part of WCAG 2.2 AA, and of good practice, that a program can tell."""

from __future__ import annotations

import json
from pathlib import Path

from wire.browser import Tab

_SOURCE = Path(__file__).parents[2] / "build" / "for-tests" / "axe.min.js"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_FOUND = """axe.run(document, OPTIONS).then(({ violations }) => violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)} ${failureSummary.slice(0, 300)}`)))"""


async def axe(tab: Tab, *, contrast_only: bool = False) -> list[str]:
    """What is wrong with the page as it is now; *contrast_only* is what another colour scheme can change."""
    assert _SOURCE.exists(), "python hatch_build.py fetches axe-core"
    only = {"type": "rule", "values": ["color-contrast"]} if contrast_only else {"type": "tag", "values": _TAGS}
    await tab.run(_SOURCE.read_text())
    options = json.dumps({"runOnly": only, "resultTypes": ["violations"]})
    found: list[str] = await tab.run(_FOUND.replace("OPTIONS", options))
    return found
