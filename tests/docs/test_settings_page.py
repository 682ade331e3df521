"""The page of settings says what the program reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, str(DOCS / "settings.py")], check=True, capture_output=True, text=True)
    assert made.stdout == (DOCS / "settings.md").read_text("utf-8"), "run `python docs/settings.py --write`"
