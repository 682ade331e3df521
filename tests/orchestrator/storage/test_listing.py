"""Pages of the list: every clip once, in order, in both directions, also where a walk is ended early."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from orchestrator.noticing import VIEWS, yardsticks_from
from orchestrator.storage import listing
from orchestrator.storage.listing import Filter, Place, place_of, read_listing
from orchestrator.storage.pool import connect

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
STATUSES = (
    "processing",
    "error",
    "complete",
    "complete",
    "complete",
    "queued",
    "complete",
    "error",
    "complete",
    "complete",
)


async def fill(database: str) -> None:
    """Forty clips, one a minute, of several statuses."""
    owner = await asyncpg.connect(database)
    await owner.execute("SET session_replication_role = replica")
    rows = []
    for n in range(40):
        status = STATUSES[n % len(STATUSES)]
        look_at = None if status in ("complete", "error") else START
        refused = {"requested_status_error": "not-failed: …"} if status == "queued" else {}
        details = json.dumps({"error_code": f"code{n % 2}"} | refused)
        pipeline = "cut" if n % 3 == 0 else "stream"
        created_at = START + timedelta(minutes=n)
        rows.append((f"c{n:02}", pipeline, f"uid{n:02}", f"Title {n}", status, details, created_at, look_at))
    await owner.executemany(
        "INSERT INTO clips (id, pipeline, cloudflare_uid, title, status, progress, processing_details, created_at,"
        " look_at) VALUES ($1, $2, $3, $4, $5, 50, $6, $7, $8)",
        rows,
    )
    await owner.close()


@pytest.fixture(scope="module")
def filled(shared_database: str) -> str:
    """The database with the clips that all tests of this file read."""
    asyncio.run(fill(shared_database))
    return shared_database


@pytest.fixture
async def api(filled: str):
    """A connection in the role of the web process."""
    connection = await connect(filled, "orchestrator_api", "test")
    yield connection
    await connection.close()


def wanted(**filters: Any) -> list[str]:
    """The ids that fit, newest first, by going through them one by one."""
    ids = []
    for n in reversed(range(40)):
        status, pipeline = STATUSES[n % len(STATUSES)], "cut" if n % 3 == 0 else "stream"
        fits = (
            ("statuses" not in filters or status in filters["statuses"])
            and ("pipeline" not in filters or pipeline == filters["pipeline"])
            and ("search" not in filters or filters["search"].lower() in f"title {n}")
            and ("error_code" not in filters or (status == "error" and filters["error_code"] == f"code{n % 2}"))
            and ("view" not in filters or status in filters["view"])
        )
        ids += [f"c{n:02}"] if fits else []
    return ids


FILTERS: list[dict[str, Any]] = [
    {},
    {"statuses": ("processing",)},
    {"statuses": ("processing", "queued")},
    {"statuses": ("error",)},
    {"statuses": ("complete",)},
    {"statuses": ("error", "processing")},
    {"pipeline": "cut"},
    {"search": "tItLe 1"},
    {"statuses": ("error",), "pipeline": "stream"},
    {"error_code": "code1"},
    {"view": ("processing", "queued")},
    {"view": ("error", "queued")},
]


def filter_of(filters: dict[str, Any]) -> Filter:
    views = {("processing", "queued"): VIEWS["stuck"], ("error", "queued"): VIEWS["attention"]}
    return Filter(**{**filters, **({"view": views[filters["view"]]} if "view" in filters else {})})


async def walk(connection: asyncpg.Connection, asked: Filter, limit: int) -> tuple[list[str], int]:
    """All pages, from the newest to the end, and how many they were."""
    ids: list[str] = []
    place: Place | None = None
    for pages in range(1, 200):
        page = await read_listing(connection, asked, limit, before=place, yardsticks=yardsticks_from({}))
        assert len(page.clips) <= limit
        ids += [clip.id for clip in page.clips]
        if page.more is None:
            return ids, pages
        assert place is None or (page.more.created_at, page.more.id) < (place.created_at, place.id)
        place = page.more
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("walk_max", [50_000, 7, 1], ids=["whole", "seven-a-page", "one-a-page"])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
async def test_pages_have_every_clip_once_and_in_order(api, monkeypatch, filters, walk_max) -> None:
    monkeypatch.setattr(listing, "WALK_MAX", walk_max)
    ids, _ = await walk(api, filter_of(filters), 3)
    assert ids == wanted(**filters)


@pytest.mark.parametrize("filters", FILTERS[:7], ids=str)
async def test_one_comes_back_the_way_one_went(api, filters) -> None:
    first = await read_listing(api, filter_of(filters), 2)
    if first.more is None:
        return
    second = await read_listing(api, filter_of(filters), 2, before=first.more)
    back = await read_listing(api, filter_of(filters), 2, after=place_of(second.clips[0]))
    assert [clip.id for clip in back.clips] == [clip.id for clip in first.clips]


async def test_a_walk_that_is_ended_says_how_far_it_went(api, monkeypatch) -> None:
    monkeypatch.setattr(listing, "WALK_MAX", 10)
    page = await read_listing(api, Filter(search="nowhere"), 5)
    assert page.clips == ()
    assert page.more == Place(START + timedelta(minutes=30), "c30")
    assert page.stopped_at == START + timedelta(minutes=30)
    _, pages = await walk(api, Filter(search="nowhere"), 5)
    assert pages == 4


@pytest.mark.parametrize("named", ["c02", "uid02"])
async def test_a_whole_id_is_found_however_old_its_clip_is(api, monkeypatch, named) -> None:
    monkeypatch.setattr(listing, "WALK_MAX", 5)
    page = await read_listing(api, Filter(search=named), 5)
    assert [clip.id for clip in page.clips] == ["c02"]
    other = await read_listing(api, Filter(search=named, statuses=("complete",), pipeline="cut"), 5)
    assert other.clips == ()


@pytest.mark.parametrize("search", ["%", "_", "\\", "' OR true --", "$1", "{0}", "\u202e"])
async def test_a_search_is_a_text_and_nothing_else(api, search) -> None:
    assert (await read_listing(api, Filter(search=search), 5)).clips == ()
