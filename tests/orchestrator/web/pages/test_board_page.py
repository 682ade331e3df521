"""The board as it leaves the server: filters in the address, both directions, views that say what they mean."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime

import pytest

from orchestrator.noticing import VIEWS
from orchestrator.storage import listing


def ids(page: str) -> list[str]:
    return re.findall(r'<li data-clip="(\w+)"', page)


def address(page: str, rel: str) -> str:
    [found] = re.findall(rf'href="(/\?[^"]*)" rel="{rel}"', page)
    return html.unescape(found)


async def test_pages_lead_forth_and_back_with_the_filter(client, place):
    for number in range(7):
        await place.clip(f"c{number}", title="Take")
    await place.clip("other", title="Nothing")
    first = await (await client.get("/?search=take&limit=3")).text()
    second = await (await client.get(address(first, "next"))).text()
    third = await (await client.get(address(second, "next"))).text()
    assert [ids(page) for page in (first, second, third)] == [["c6", "c5", "c4"], ["c3", "c2", "c1"], ["c0"]]
    assert 'rel="next"' not in third
    back = await (await client.get(address(third, "prev"))).text()
    assert ids(back) == ["c3", "c2", "c1"]
    assert ids(await (await client.get(address(back, "next"))).text()) == ["c0"]
    top = await (await client.get(address(back, "prev"))).text()
    assert ids(top) == ["c6", "c5", "c4"]
    for page in (second, third, back):
        assert 'value="take"' in page


async def test_going_newer_than_the_first_page_shows_the_first_page(client, place):
    for number in range(4):
        await place.clip(f"c{number}")
    second = await (await client.get(address(await (await client.get("/?limit=3")).text(), "next"))).text()
    top = await (await client.get(address(second, "prev"))).text()
    await place.clip("newest")
    again = await (await client.get(address(second, "prev"))).text()
    assert ids(top) == ["c3", "c2", "c1"]
    assert ids(again)[-1] == "c1"
    assert len(ids(again)) == 3


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_says_on_the_page_what_it_means(client, view):
    page = html.unescape(await (await client.get(f"/?view={view}")).text())
    for rule in VIEWS[view].rules:
        assert f"{rule.sentence[0].upper()}{rule.sentence[1:]}." in page
    assert f'name="view" value="{view}"' in page


async def test_a_row_says_what_is_the_matter_with_its_clip(client, place):
    problem = {"code": "storage_quota", "text": "Full", "at": datetime.now(UTC).isoformat()}
    await place.clip("one", uid="u1")
    await place.owner.execute(
        "UPDATE clips SET processing_details = $1, status_since = now() - interval '1 min'",
        json.dumps({"last_problem": problem}),
    )
    page = await (await client.get("/")).text()
    assert "Stuck: its last look or step failed" in page
    assert "Needs attention: it waits for something that only a person can mend" in page
    for view in VIEWS:
        assert ids(await (await client.get(f"/?view={view}")).text()) == ["one"]


async def test_the_error_stands_in_the_row(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error", error_message="The file is corrupt")
    assert "Failed: The file is corrupt" in await (await client.get("/")).text()


async def test_a_search_that_is_not_at_its_end_says_how_far_it_went(client, place, monkeypatch):
    monkeypatch.setattr(listing, "WALK_MAX", 3)
    for number in range(8):
        await place.clip(f"c{number}", title="Take")
    await place.owner.execute("UPDATE clips SET title = 'Harbour' WHERE id = 'c1'")
    page, seen, pages = await (await client.get("/?search=harbour")).text(), [], 1
    while not ids(page):
        assert "No clip fits" not in page
        [further] = re.findall(r'<a href="([^"]+)">Look further back</a>', page)
        page = await (await client.get(html.unescape(further))).text()
        pages += 1
    seen += ids(page)
    assert (seen, pages) == (["c1"], 3)


async def test_an_empty_filter_offers_to_be_cleared(client, place):
    await place.clip("one")
    page = await (await client.get("/?status=complete")).text()
    assert "No clip fits" in page
    assert '<a class="button" href="/">Show all clips</a>' in page
    assert '<a class="button" href="/">Clear</a>' in page


@pytest.mark.parametrize("query", ["view=nope", "newer=torn", "error_code=" + "x" * 201, "pipeline=nope", "limit=0"])
async def test_an_address_that_means_nothing_is_a_problem_and_no_empty_list(client, query):
    answer = await client.get(f"/?{query}", headers={"Accept": "text/html"})
    assert answer.status == 422
    assert "No clip" not in await answer.text()


async def test_the_badges_that_scripts_put_in_are_the_ones_of_the_rows(client, place, stages):
    for number, stage in enumerate((*stages, "error")):
        await place.clip(f"c{number}")
        if stage != "uploading":
            await place.move(f"c{number}", stage)
    page = await (await client.get("/")).text()
    templates = dict(re.findall(r'<template data-badge="(\w+)">(.*?)</template>', page, re.S))
    shown = re.findall(r'<span class="state" data-state>(.*?)</span>\n<span class="when', page, re.S)
    assert len(shown) == len(stages) + 1
    assert set(shown) == set(templates.values())
