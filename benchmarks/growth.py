"""What ten million ended clips cost: a round of the monitor, every page, and the plan of every statement.

A house with 10,000 ended clips and one with a hundred thousand (in full: ten million) stand side by side on one server.
The real monitor code (reading, judging, looking, with a provider that answers at once) and the real web handlers over
HTTP take turns on both. Each statement that was asked is explained, in `plans.txt`; one that reads a large table whole
is a failure.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.filling import House, fill, lines_per_clip
from benchmarks.harness import Place, Row, Subject, at_most, medians, ratio, take_turns
from benchmarks.plans import ScannedWhole, WatchedPool, explain
from orchestrator.drivers.cloudflare_models import Video, VideoState
from orchestrator.monitor.judging import _PAGE, BATCH, drain
from orchestrator.monitor.leadership import Lease, Term
from orchestrator.monitor.looking import Looker, group, look, read_due
from orchestrator.pipelines.stream.plan import StreamPolicy, stream_pipeline
from orchestrator.pipelines.terms import Done, Effect, LookKind, Reports
from orchestrator.settings import Settings
from orchestrator.storage.clips import Clip
from orchestrator.storage.pool import create_pool
from orchestrator.storage.pruning import count_window, walk_history
from orchestrator.web.app import run_web
from orchestrator.web.services import Services, wake_through
from signals import signal_retry, signal_status_update, update_processing_details

SMALL = 10_000
DUE = 500
# Lines of history a clip leaves in the full form: with them ten million clips have a hundred million lines.
LINES = 10
# Enough of memory for what is asked often, as a server of this size would be given; the rest is for the filling.
SERVER = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
# What is taken in one turn, so that a moment's noise does not count.
ROUNDS_A_TURN, POLLS_A_TURN = 10, 100
PRUNED_WINDOWS_SECONDS = 10.0
_KEEP = timedelta(days=400)
PIPELINES = {"stream": stream_pipeline(StreamPolicy(timedelta(seconds=5), timedelta(minutes=10)))}


async def measure(place: Place) -> list[Row]:
    """Build both houses, let them take turns, and explain what was asked of the large one."""
    large_clips = place.amount(100_000, 10_000_000)
    lines = place.amount(2, lines_per_clip(large_clips, place.directory, LINES))
    async with started_server(place, SERVER) as server:
        houses = {}
        for name, clips in (("small", SMALL), ("large", large_clips)):
            house = await fill(await make_database(server, name), clips, lines)
            houses[name] = await _Inhabited.enter(house)
        small, large = houses.values()
        try:
            rows = [_built(large.house)]
            rows += await _rounds(small, large, place.amount(15, 40))
            async with small.serving(), large.serving():
                rows += await _pages(small, large, place.amount(9, 21))
            rows += await _pruning(large)
            await _explain(place, large)
        finally:
            for each in houses.values():
                await each.leave()
    return rows


def _built(house: House) -> Row:
    figures = {"clips": house.clips, "lines of history": house.lines, "built in s": round(house.seconds),
               "bytes a clip": round(house.clip_bytes), "bytes a line": round(house.line_bytes)}  # fmt: skip
    return Row("the large house on the disk", house.bytes / 1024**3, unit="GiB", figures=figures)


class _Hands:
    """A provider that answers at once that everything is still being encoded."""

    def capacity(self, effect: Effect) -> int:
        """No effect is started here."""
        return 0

    def queue_of(self, effect: Effect) -> str | None:
        """Nor is one left to workers."""
        return None

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        """What is seen of each."""
        return {
            clip.id: Video(str(clip.cloudflare_uid), VideoState.IN_PROGRESS, "inprogress", percent=40.0)
            for clip in clips
        }

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        """Nothing."""
        return Done()

    async def tidy(self) -> Mapping[str, int]:
        """Nothing."""
        return {}


@dataclass
class _Inhabited:
    """A house with a monitor's hands in it, and a web process when it is serving."""

    house: House
    owner: asyncpg.Connection
    pool: Any
    watched: WatchedPool
    api: Any
    term: Term
    due: list[str]
    url: str = ""
    asked_by_web: WatchedPool | None = None

    @classmethod
    async def enter(cls, house: House) -> _Inhabited:
        """Take the lease, and put 500 clips on their way."""
        owner = await asyncpg.connect(house.dsn)
        pool = await create_pool(house.dsn, "orchestrator_monitor", "benchmark monitor", max_size=4)
        term = await Lease(pool, time.monotonic).take()
        assert term is not None
        due = [f"zz{number:06d}" for number in range(DUE)]
        await owner.execute(
            "INSERT INTO clips (id, cloudflare_uid) SELECT n, 'uid' || n FROM unnest($1::text[]) AS n", due
        )
        api = await create_pool(house.dsn, "orchestrator_api", "benchmark web", max_size=10)
        return cls(house, owner, pool, WatchedPool(pool), api, term, due)

    async def leave(self) -> None:
        """Give everything back."""
        await self.pool.close()
        await self.api.close()
        await self.owner.close()

    async def come_to_rest(self) -> None:
        """Nothing is due from now on, and what was is cleaned up, as autovacuum would have done within a minute."""
        await self.put_off(timedelta(hours=1))
        await self.owner.execute("VACUUM clips, clip_signals")

    async def idle_round(self) -> float:
        """Milliseconds of a round in which nothing is to be done, the middle one of some."""
        return statistics.median([await _milliseconds(self._round()) for _ in range(ROUNDS_A_TURN)])

    async def empty_poll(self) -> float:
        """Milliseconds of asking for pending signals when there are none, the middle one of some."""
        async with self.pool.acquire() as connection:
            asked = [await _milliseconds(connection.fetch(_PAGE, "", BATCH)) for _ in range(POLLS_A_TURN)]
        return statistics.median(asked)

    async def full_round(self) -> float:
        """Milliseconds of a round in which 500 clips have a signal and 500 are due."""
        await self.put_off(timedelta(0))
        await self.owner.execute(
            "INSERT INTO clip_signals (clip_id, attempt, requested_status, source, observed)"
            " SELECT n, 1, 'processing', 'monitor', true FROM unnest($1::text[]) AS n",
            self.due,
        )
        return await _milliseconds(self._round())

    async def put_off(self, by: timedelta) -> None:
        """Put the clips of this benchmark back where they were, due after *by*."""
        async with self.owner.transaction():
            await self.owner.execute("SET LOCAL session_replication_role = replica")
            await self.owner.execute(
                "UPDATE clips SET status = 'queued', progress = 30, look_at = clock_timestamp() + $2::interval"
                " WHERE id = ANY ($1)",
                self.due, by,
            )  # fmt: skip

    async def _round(self) -> None:
        """What the drainer and the looker do in one round of theirs."""
        await drain(self.watched, self.term, _now)
        due = await read_due(self.watched, PIPELINES, [])
        for each in group(PIPELINES, due):
            await look(Looker(self.watched, self.term, _now, _here), PIPELINES["stream"], _Hands(), each)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """With a web process in front."""
        self.asked_by_web = WatchedPool(self.api)
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        provider: Any = None  # no page asks it
        watched: Any = self.asked_by_web
        services = Services(_settings(self.house.dsn), watched, provider, wake_through(self.api), "orchestrator_api")
        task = asyncio.create_task(run_web(services, stop, listening.set_result))
        self.url = f"http://127.0.0.1:{await listening}"
        try:
            yield
        finally:
            stop.set()
            await task


async def _rounds(small: _Inhabited, large: _Inhabited, rounds: int) -> list[Row]:
    rows = []
    for what, name in ((f"a round with {DUE} due clips and signals", "full_round"), ("an idle round", "idle_round")):
        for each in (small, large):
            await each.come_to_rest()
        subjects: dict[str, Subject] = {"small": getattr(small, name), "large": getattr(large, name)}
        taken = await take_turns(subjects, rounds)
        figures = {f"{key} ms": value for key, value in medians(taken, 2).items()}
        rows.append(Row(f"{what}: {large.house.clips:,} ended clips against {SMALL:,}",
                        ratio(taken, "large", "small"), at_most(1.2), figures=figures))  # fmt: skip
    polls = await take_turns({"small": small.empty_poll, "large": large.empty_poll}, rounds)
    figures = {f"{key} ms": value for key, value in medians(polls, 3).items()}
    what = f"an empty poll at {large.house.clips:,} clips"
    rows.append(Row(what, statistics.median(polls["large"]), at_most(0.3), "ms", figures))
    return rows


_PAGES = {
    "the newest clips": "/api/clips",
    "clips far back": "/api/clips?cursor={cursor}",
    "200 failed clips": "/api/clips?status=error&limit=200",
    "failed for one reason": "/api/clips?status=error&view=attention",
    "complete clips of one pipeline": "/api/clips?status=complete&pipeline=cut",
    "clips on their way": "/api/clips?status=processing",
    "a search that finds nothing": "/api/clips?search=nowhere",
    "one clip": "/api/clips/{clip}",
    "its status": "/api/clips/{clip}/status",
    "its history": "/api/clips/{clip}/events",
    "its page": "/clips/{clip}",
    "the board": "/",
    "what is stuck": "/?view=stuck",
    "the board's figures": "/api/board",
    "metrics": "/metrics",
    "readiness": "/readyz",
}


async def _pages(small: _Inhabited, large: _Inhabited, rounds: int) -> list[Row]:
    """Each page over HTTP on both, in turns."""
    rows = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        known = {each.url: await _names(session, each) for each in (small, large)}
        for what, path in _PAGES.items():
            subjects = {
                name: _asking(session, each.url + path.format(**known[each.url]))
                for name, each in (("small", small), ("large", large))
            }
            taken = await take_turns(subjects, rounds)
            figures = {f"{key} ms": value for key, value in medians(taken, 1).items()}
            rows.append(Row(f"{what}: large against small", ratio(taken, "large", "small"), figures=figures))
        await _ask(large)
    return rows


async def _names(session: aiohttp.ClientSession, each: _Inhabited) -> dict[str, str]:
    """A clip from the middle of the house's past, and a cursor that leads there."""
    clip = await each.owner.fetchrow(
        "SELECT id FROM clips WHERE created_at < now() - interval '200 days' ORDER BY created_at DESC LIMIT 1"
    )
    async with session.get(f"{each.url}/api/clips", params={"limit": "200"}) as answer:
        cursor = (await answer.json())["next_cursor"]
    return {"clip": clip["id"], "cursor": cursor}


def _asking(session: aiohttp.ClientSession, url: str) -> Subject:
    async def once() -> float:
        began = time.perf_counter()
        async with session.get(url) as answer:
            body = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{url} was answered with {answer.status}: {body[:200]!r}")
        return (time.perf_counter() - began) * 1000

    return once


async def _ask(large: _Inhabited) -> None:
    """The functions that ask, so that their statements are explained, too."""
    async with large.asked_by_web.acquire() as connection:  # type: ignore[union-attr]
        await signal_status_update(connection, large.due[0], "processing", {}, "benchmark")
        await update_processing_details(connection, large.due[0], {"note": 1})
        failed = await connection.fetchval(
            "SELECT id FROM clips WHERE status = 'error' ORDER BY created_at DESC LIMIT 1"
        )
        await signal_retry(connection, failed, "uploading", "benchmark")


async def _pruning(large: _Inhabited) -> list[Row]:
    """How fast old history goes, with the rests that it takes, and what a count of all of it takes."""
    began = time.monotonic()
    done = await walk_history(large.watched, _KEEP, limit_seconds=PRUNED_WINDOWS_SECONDS)
    seconds = time.monotonic() - began
    counted_from = time.monotonic()
    counted = await walk_history(large.watched, _KEEP, count_window, limit_seconds=PRUNED_WINDOWS_SECONDS)
    figures = {"lines": done.lines, "transfers": done.transfers, "in s": round(seconds, 1),
               "counted a second": round(counted.lines / (time.monotonic() - counted_from))}  # fmt: skip
    return [
        Row("lines of history pruned, a fifth of the time at work", done.lines / seconds, unit="/s", figures=figures)
    ]


async def _explain(place: Place, large: _Inhabited) -> None:
    """Write the plans down.

    Raises:
        ScannedWhole: some statement reads a large table from end to end.
    """
    asked = large.watched.asked | (large.asked_by_web.asked if large.asked_by_web is not None else {})
    text, scanned = await explain(large.owner, asked)
    (place.directory / "plans.txt").write_text(text)
    print(f"  {len(asked)} statements are explained in {place.directory / 'plans.txt'}", flush=True)
    if scanned:
        raise ScannedWhole("\n".join(scanned))


async def _milliseconds(work: Any) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


def _now() -> datetime:
    return datetime.now(UTC)


async def _here(_: asyncpg.Connection, pipeline: str, effects: Sequence[Effect]) -> Sequence[Effect]:
    """All of it is left to this process."""
    return effects


def _settings(dsn: str) -> Settings:
    return Settings.load(
        _env_file=None, database_url=dsn, cloudflare_account_id="benchmark", cloudflare_api_token="t" * 20,
        r2_endpoint_url="http://127.0.0.1:1", r2_access_key_id="k" * 20, r2_secret_access_key="s" * 20,
        r2_bucket_name="benchmark", host="127.0.0.1", port=0,
    )  # fmt: skip
