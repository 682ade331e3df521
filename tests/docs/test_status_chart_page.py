"""The page with the statuses is what the tables say now, in a form that GitHub draws."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from statusutils import TABLES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_not_stale() -> None:
    made = subprocess.run(
        [sys.executable, DOCS / "status_chart.py"], capture_output=True, text=True, check=True, timeout=60
    )
    assert made.stdout == (DOCS / "status-chart.md").read_text("utf-8"), "run `python docs/status_chart.py --write`"


def test_every_status_of_every_pipeline_is_in_the_chart_and_in_the_table() -> None:
    page = (DOCS / "status-chart.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(TABLES)
    for name, section in sections.items():
        (chart,) = re.findall(r"```mermaid\n(.*?)```", section, re.DOTALL)
        lines = chart.splitlines()
        assert lines[0] == "stateDiagram-v2"
        assert all(re.fullmatch(r"    (\[\*\]|\w+) --> \w+(: .+)?", line) for line in lines[1:])
        for status in TABLES[name].statuses:
            assert re.search(rf"\b{status.name}\b", chart)
            assert f"| {status.order} | `{status.name}` |" in section
            assert status.message in section


def test_the_chart_draws_the_pair_both_ways_and_no_way_out_of_complete_but_error() -> None:
    page = (DOCS / "status-chart.md").read_text("utf-8")
    arrows = re.findall(r"^    (\S+) --> (\w+)", page, re.MULTILINE)
    assert {("waitformp4", "mp4_processing"), ("mp4_processing", "waitformp4")} <= set(arrows)
    assert [target for source, target in arrows if source == "complete"] == ["error"] * len(TABLES)
    starts = [table.first.name for table in TABLES.values()]
    assert [target for source, target in arrows if source == "error"] == starts
