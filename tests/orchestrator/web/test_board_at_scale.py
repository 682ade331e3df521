"""The board with 100,000 clips: a handful of queries however many rows, and each of them by an index."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.storage.pool import create_pool
from orchestrator.web.app import SERVER_OPTIONS, create_app
from orchestrator.web.services import Services, wake_through
from tests.orchestrator.web.conftest import ProviderInTheHand, make_settings

CLIPS = 100_000
# Seven for the figures, one for the usual times, one for the rows, one for where a walk ended.
QUERIES_MAX = 10
_GENERIC_PLAN_VERSION = 16
_FILL = """
INSERT INTO clips (id, pipeline, cloudflare_uid, title, status, progress, processing_details, error_message,
                   completed_at, created_at, status_since, look_at)
SELECT 'c' || lpad(n::text, 9, '0'), CASE WHEN n % 10 = 0 THEN 'cut' ELSE 'stream' END, 'uid' || n, 'Title ' || n,
       CASE WHEN n > $1 - 300 THEN 'r2_uploading' WHEN n % 50 = 0 THEN 'error' ELSE 'complete' END, 95,
       jsonb_build_object('error_code', 'code' || n % 7), CASE WHEN n % 50 = 0 THEN 'broken' END,
       CASE WHEN n <= $1 - 300 AND n % 50 <> 0 THEN now() - ($1 - n) * interval '10 s' END,
       now() - ($1 - n) * interval '10 s', now() - interval '5 min', CASE WHEN n > $1 - 300 THEN now() END
  FROM generate_series(1, $1::int) AS n
"""
_HISTORY = """
INSERT INTO clip_events (clip_id, at, kind, attempt, to_status, source)
SELECT 'c' || lpad(n::text, 9, '0'), now() - ($1 - n) * interval '10 s' + step * interval '1 s', 'moved', 1,
       (ARRAY['processing', 'r2_uploading', 'complete'])[step], 'monitor'
  FROM generate_series($1::int - 5000, $1::int) AS n, generate_series(1, 3) AS step
 ORDER BY n, step
"""
PAGES = (
    "/",
    "/?status=r2_uploading",
    "/?status=complete&pipeline=cut",
    "/?status=error",
    "/?status=error&error_code=code3",
    "/?search=nowhere",
    "/?search=c000000123",
    "/?view=stuck",
    "/?view=attention",
    "/?limit=200",
)


@dataclass
class Asked:
    """What was asked of the database, with its values."""

    queries: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def note(self, record: Any) -> None:
        """What asyncpg tells of each query."""
        self.queries.append((record.query, record.args))


class WatchedPool:
    """A pool that tells what is asked through it."""

    def __init__(self, pool: Any, asked: Asked) -> None:
        self._pool, self._asked = pool, asked

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Any]:
        """As the pool has it."""
        async with self._pool.acquire(timeout=timeout) as connection:
            with connection.query_logger(self._asked.note):
                yield connection


@pytest.fixture(scope="module")
def large(postgres_server: Any, database_template: str) -> Iterator[str]:
    """A database with 100,000 clips."""
    name = f"{postgres_server.prefix}_large"

    async def fill() -> None:
        await postgres_server.clone(database_template, name)
        owner = await asyncpg.connect(postgres_server.dsn(name))
        await owner.execute("SET session_replication_role = replica")
        await owner.execute(_FILL, CLIPS)
        await owner.execute(_HISTORY, CLIPS)
        await owner.execute("ANALYZE clips, clip_events")
        await owner.close()

    asyncio.run(fill())
    yield postgres_server.dsn(name)
    asyncio.run(postgres_server.drop(name))


@pytest.fixture
def asked() -> Asked:
    """What was asked of the database in this test."""
    return Asked()


@pytest.fixture
async def client(large: str, asked: Asked) -> AsyncIterator[TestClient[Any, Any]]:
    """A web process on it."""
    pool = await create_pool(large, "orchestrator_api", "test web", max_size=2)
    watched: Any = WatchedPool(pool, asked)
    services = Services(make_settings(large), watched, ProviderInTheHand(), wake_through(pool), "orchestrator_api")
    server = TestServer(create_app(services))
    await server.start_server(**SERVER_OPTIONS)
    async with TestClient(server) as client:
        yield client
    await services.wakeups.close()
    await pool.close()


async def scanned(connection: asyncpg.Connection, query: str, values: tuple[Any, ...]) -> set[str]:
    """The tables of which a plan of *query* reads every row: for these values, and for any."""
    kinds = ["FORMAT JSON"]
    if connection.get_server_version().major >= _GENERIC_PLAN_VERSION:
        kinds.append("FORMAT JSON, GENERIC_PLAN")
    tables: set[str] = set()
    for kind in kinds:
        plan = await connection.fetchval(f"EXPLAIN ({kind}) {query}", *values)
        tables |= set(_sequential(json.loads(plan)[0]["Plan"]))
    return tables


def _sequential(node: dict[str, Any]) -> Iterator[str]:
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _sequential(child)


async def test_every_page_opens_with_few_queries_and_each_goes_by_an_index(large, client, asked, capsys) -> None:
    owner = await asyncpg.connect(large)
    seen: dict[str, tuple[Any, ...]] = {}
    told = []
    for path in PAGES:
        del asked.queries[:]
        began = time.perf_counter()
        answer = await client.get(path)
        page = await answer.text()
        seconds = time.perf_counter() - began
        assert answer.status == 200, path
        told.append(f"{path}: {len(asked.queries)} queries, {seconds * 1000:.0f} ms, {page.count('data-clip=')} rows")
        assert len(asked.queries) <= QUERIES_MAX, told
        seen |= {query: values for query, values in asked.queries if not query.startswith(("LISTEN", "RESET"))}
    older = await client.get("/", params={"cursor": (await (await client.get("/api/clips")).json())["next_cursor"]})
    assert older.status == 200
    seen |= dict(asked.queries)
    large_tables = {"clips", "clip_events"}
    for query, values in seen.items():
        if "clips" in query or "clip_events" in query:
            assert not await scanned(owner, query, values) & large_tables, query
    await owner.close()
    with capsys.disabled():
        print("\n" + "\n".join(told))


async def test_the_number_of_queries_does_not_follow_the_number_of_rows(client, asked) -> None:
    counts = {}
    await client.get("/")
    for limit in (1, 50, 200):
        del asked.queries[:]
        await client.get("/", params={"limit": str(limit)})
        counts[limit] = len([query for query, _ in asked.queries if "FROM clips JOIN" in query])
    assert set(counts.values()) == {1}


async def test_the_counts_are_true_as_far_as_they_go_and_say_where_they_ended(client) -> None:
    board = await (await client.get("/api/board")).json()
    counts = {(each["pipeline"], each["status"]): (each["clips"], each["at_least"]) for each in board["counts"]}
    assert counts["stream", "r2_uploading"] == (270, False)
    assert counts["cut", "error"] == (1994, False)
    assert counts["stream", "complete"] == (10_000, True)
    assert counts["cut", "complete"] == (7_976, False)
    assert 90_000 < board["clips_estimate"] < 110_000
    assert sum(bar["clips"] for bar in board["completed"]["hours"]) == pytest.approx(24 * 360 * 0.98, rel=0.1)
    assert {stage["status"]: stage["median_seconds"] for stage in board["stages"]} == {
        "processing": 1.0,
        "r2_uploading": 1.0,
    }
