"""What the benchmarks of growth are made of: a past that obeys the law, plans, trends, and a drawing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import asyncpg

from benchmarks.drawing import PANELS, draw
from benchmarks.filling import fill, lines_per_clip
from benchmarks.plans import WatchedPool, explain
from benchmarks.sampling import FLAT, Sampler, flatness, memory_bytes, open_files, read_csv, write_csv
from orchestrator.storage.pool import create_pool


async def test_a_filled_house_has_a_past_that_can_be_read_pruned_and_moved_on(database: str) -> None:
    house = await fill(database, 300, 10)
    owner = await asyncpg.connect(database)
    assert (house.clips, house.lines) == (300, await owner.fetchval("SELECT count(*) FROM clip_events"))
    # Every clip from the first line to the end: the law's own triggers are on again.
    ends = await owner.fetchval(
        "SELECT count(*) FROM clips AS c JOIN clip_events AS e ON e.clip_id = c.id AND e.to_status = c.status"
        " WHERE e.kind = 'moved' AND c.look_at IS NULL"
    )
    assert ends == 300
    indexes = await owner.fetch("SELECT indexname FROM pg_indexes WHERE tablename IN ('clips', 'clip_events')")
    assert {"clips_due", "clips_by_age", "clip_events_of_clip", "clips_cloudflare_uid_key"} <= {
        row["indexname"] for row in indexes
    }
    failed = await owner.fetchval("SELECT id FROM clips WHERE status = 'error' LIMIT 1")
    await owner.execute(
        "UPDATE clips SET status = 'uploading', progress = 15, attempt = 2, look_at = now() WHERE id = $1", failed
    )
    await owner.close()


def test_history_is_as_long_as_the_disk_allows_and_never_shorter_than_two_lines(tmp_path: Path) -> None:
    assert lines_per_clip(10, tmp_path, 10) == 10
    assert lines_per_clip(10**12, tmp_path, 10) == 2


async def test_a_statement_that_reads_a_large_table_whole_is_found(database: str) -> None:
    pool = await create_pool(database, None, "test")
    watched = WatchedPool(pool)
    async with watched.acquire() as connection:
        await connection.fetch("SELECT id FROM clips WHERE id = $1", "c")
        await connection.fetch("SELECT count(*) FROM clips WHERE title = $1", "c")
        await connection.execute("LISTEN nobody")
    owner = await asyncpg.connect(database)
    await owner.execute("SET enable_seqscan = off")  # an empty table is read whole otherwise, and rightly
    text, scanned = await explain(owner, watched.asked)
    assert len(watched.asked) == 2
    assert "Index Cond: (id = 'c'::text)" in text
    assert scanned
    assert all(line.startswith("clips (for ") and "title = $1" in line for line in scanned)
    await owner.close()
    await pool.close()


def samples(growing: float, minutes: int = 10) -> list[dict[str, float]]:
    return [{"seconds": 10.0 * n, **{name: 1000.0 + growing * n for name in FLAT}} for n in range(1, minutes * 6)]


def test_a_trend_is_told_from_noise_and_from_a_warm_up() -> None:
    assert all(each.is_flat for each in flatness(samples(0), 60))
    assert all(each.is_flat for each in flatness(samples(-50), 60))
    leaking = {each.name: each for each in flatness(samples(1000), 60)}
    assert not any(each.is_flat for each in leaking.values())
    noisy = samples(0)
    noisy[30] = {name: 50 * value if name != "seconds" else value for name, value in noisy[30].items()}
    assert all(each.is_flat for each in flatness(noisy, 60)), "one moment is no trend"
    warming = samples(0)
    for sample in warming[:6]:
        sample |= dict.fromkeys(FLAT, 10.0)
    assert all(each.is_flat for each in flatness(warming, 70))


async def test_what_is_sampled_has_everything_that_is_judged_and_drawn(database: str, tmp_path: Path) -> None:
    owner = await asyncpg.connect(database)
    await owner.execute("INSERT INTO clips (id) VALUES ('c')")
    sampler = Sampler(owner, {"monitor": 1, "web": 1, "postgres": 1})
    taken = [await sampler.sample(seconds) for seconds in (10.0, 20.0)]
    await owner.close()
    drawn = {name for _, names in PANELS for name in names}
    assert set(FLAT) | drawn <= set(taken[0])
    assert [sample["lines"] for sample in taken] == [1, 0]
    write_csv(tmp_path / "s.csv", taken)
    assert [sample["seconds"] for sample in read_csv(tmp_path / "s.csv")] == [10.0, 20.0]


def test_memory_and_descriptors_of_a_process_that_has_ended_are_none() -> None:
    assert (memory_bytes(2**22), open_files(2**22)) == (0, 0)


def test_the_drawing_is_small_well_formed_and_has_every_line() -> None:
    names = {name for _, lines in PANELS for name in lines}
    long = [{"seconds": 10.0 * n, **dict.fromkeys(names, float(n % 7))} for n in range(1, 2000)]
    text = draw(long, 600)
    root = ET.fromstring(text)  # noqa: S314 (our own)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == sum(len(each) for _, each in PANELS)
    assert all(len(line.attrib["points"].split()) <= 250 for line in lines)
    assert len(text) < 80_000
    assert "prefers-color-scheme: dark" in text
