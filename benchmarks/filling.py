"""Fills a database with a house's past: clips that have ended, their history, and a few that are on their way.

Triggers are off for the filling alone, and what is indexed besides the primary keys is indexed afterwards. All of it is
one transaction, which a server with `wal_level = minimal` writes once instead of twice.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg

# On their way and not due, as many in the smallest house as in the largest: what waits is no matter of the past.
WAITING = 2_000
# Of history: the past is spread over so many days, so that a good part is older than what is kept by itself.
DAYS = 500
_CHUNK = 1_000_000
# Measured with the rows below, indexes and all: what a clip and a line of history take on the disk.
CLIP_BYTES, LINE_BYTES = 1_700, 320
# Left on the disk for the log, for sorting, and for others.
_RESERVE_BYTES = 20 * 1024**3

# Ids of the form and length of ours, which sort by time, with documents as ended clips have them.
_CLIPS = """
INSERT INTO clips (id, pipeline, cloudflare_uid, title, status, progress, processing_details, error_message, duration,
                   file_size, hls_url, dash_url, thumbnail_url, mp4_url, r2_url, uploaded_at, completed_at, created_at,
                   updated_at, status_since, look_at, version)
SELECT id, CASE WHEN n % 10 = 0 THEN 'cut' ELSE 'stream' END, md5('u' || n), 'Clip number ' || n,
       CASE WHEN failed THEN 'error' ELSE 'complete' END, CASE WHEN failed THEN 50 ELSE 100 END,
       jsonb_build_object('created_by', 'api', 'origin', 'upload', 'last_checked', at, 'cloudflare_status', 'ready',
           'mp4_status', 'ready', 'sha256', md5('s' || n) || md5('t' || n), 'requested_status_handled', at,
           'error_code', CASE WHEN failed THEN 'code' || n % 7 END),
       CASE WHEN failed THEN 'The provider could not read it' END, 60 + n % 600, 1000000 + n,
       'https://videodelivery.net/' || md5('u' || n) || '/manifest/video.m3u8',
       'https://videodelivery.net/' || md5('u' || n) || '/manifest/video.mpd',
       'https://videodelivery.net/' || md5('u' || n) || '/thumbnails/thumbnail.jpg',
       'https://videodelivery.net/' || md5('u' || n) || '/downloads/default.mp4',
       CASE WHEN NOT failed THEN 'https://files.example.com/clips/' || id || '/1.mp4' END,
       at, CASE WHEN NOT failed THEN at + interval '3 min' END, at, at + interval '3 min', at + interval '3 min', NULL,
       12
  FROM (SELECT n, '01' || lpad(to_hex(n), 11, '0') || left(md5(n::text), 10) AS id, n % 30 = 7 AS failed,
               now() - ($3 - n) * $4::float8 * interval '1 s' - interval '1 hour' AS at
          FROM generate_series($1::bigint, $2::bigint) AS n) AS made
"""
_LINES = """
INSERT INTO clip_events (clip_id, at, kind, attempt, from_status, to_status, progress, source, details)
SELECT '01' || lpad(to_hex(n), 11, '0') || left(md5(n::text), 10),
       now() - ($3 - n) * $4::float8 * interval '1 s' - interval '1 hour' + step * interval '20 s',
       CASE WHEN step = 1 THEN 'created' WHEN step = $5::int OR step % 3 > 0 THEN 'moved' ELSE 'noted' END, 1, 'queued',
       CASE WHEN step < $5::int THEN (ARRAY['uploading', 'queued', 'processing', 'stream_ready', 'waitformp4',
           'mp4_processing', 'mp4downloading', 'r2_uploading', 'r2_uploading'])[step]
            WHEN n % 30 = 7 THEN 'error' ELSE 'complete' END,
       10 * step, 'monitor', jsonb_build_object('reason', 'Cloudflare says so at ' || step)
  FROM generate_series($1::bigint, $2::bigint) AS n, generate_series(1, $5::int) AS step
 ORDER BY n, step
"""
_WAITING = f"""
INSERT INTO clips (id, pipeline, cloudflare_uid, title, status, progress, processing_details, look_at)
SELECT '02' || lpad(to_hex(n), 11, '0') || left(md5(n::text), 10), 'stream', md5('w' || n), 'On its way ' || n,
       'processing', 55, jsonb_build_object('created_by', 'api', 'cloudflare_status', 'inprogress'),
       now() + interval '1 day'
  FROM generate_series(1, {WAITING}) AS n
"""
_TRANSFERS = """
INSERT INTO transfers (clip_id, attempt, object_key, upload_id, part_size_bytes, source_size_bytes, started_at,
                       finished_at, stored_size_bytes, stored_etag)
SELECT id, 1, 'clips/' || id || '/1.mp4', md5(id), 16777216, file_size, created_at, completed_at, file_size, md5(id)
  FROM clips WHERE status = 'complete' AND pipeline = 'stream' AND right(id, 1) = '0'
"""
_KEYS = """
INSERT INTO idempotency_keys (scope, key_sha256, call_sha256, claimed_at, status, answer)
SELECT 'token', sha256(n::text::bytea), sha256(n::text::bytea), now() - n * interval '23 hours' / $1, 201, sha256('a')
  FROM generate_series(1, $1::bigint) AS n
"""
_SIZES = """
SELECT pg_database_size(current_database()) AS all, pg_total_relation_size('clips') AS clips,
       pg_total_relation_size('clip_events') AS lines
"""
_UNIQUE = "clips_cloudflare_uid_key"
_SECONDARY = """
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS built
  FROM pg_index AS i LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid
 WHERE i.indrelid IN ('clips'::regclass, 'clip_events'::regclass) AND c.oid IS NULL
"""


@dataclass(frozen=True, slots=True)
class House:
    """A filled database: how many ended *clips* and *lines* of history, and what each takes on the disk."""

    dsn: str
    clips: int
    lines: int
    seconds: float
    bytes: int
    clip_bytes: float
    line_bytes: float


def lines_per_clip(clips: int, place: Path, wanted: int) -> int:
    """As many lines of history for each clip as are *wanted*, or as the disk at *place* has room for; at least two."""
    free = shutil.disk_usage(place).free - _RESERVE_BYTES - clips * CLIP_BYTES
    return max(2, min(wanted, free // (clips * LINE_BYTES)))


async def fill(dsn: str, clips: int, lines: int) -> House:
    """Fill the migrated database at *dsn* with *clips* that have *lines* of history each."""
    began = time.monotonic()
    owner = await asyncpg.connect(dsn)
    await owner.execute("SET session_replication_role = replica; SET synchronous_commit = off")
    await owner.execute("SET maintenance_work_mem = '512MB'; SET max_parallel_maintenance_workers = 0")
    apart = DAYS * 86_400 / clips
    secondary = await owner.fetch(_SECONDARY)
    filling = owner.transaction()
    await filling.start()
    await owner.execute(f"ALTER TABLE clips DROP CONSTRAINT {_UNIQUE}; TRUNCATE clips, clip_events")
    for index in secondary:
        await owner.execute(f"DROP INDEX {index['name']}")
    for first in range(1, clips + 1, _CHUNK):
        last = min(first + _CHUNK - 1, clips)
        await owner.execute(_CLIPS, first, last, clips, apart)
        await owner.execute(_LINES, first, last, clips, apart, lines)
        if clips > _CHUNK:
            print(f"  filled {last:,} of {clips:,} clips in {time.monotonic() - began:.0f} s", flush=True)
    await owner.execute(_WAITING)
    await owner.execute(f"ALTER TABLE clips ADD CONSTRAINT {_UNIQUE} UNIQUE (cloudflare_uid)")
    for index in secondary:
        await owner.execute(index["built"])
    await filling.commit()
    await owner.execute(_TRANSFERS)
    await owner.execute(_KEYS, min(clips, 1_000_000))
    for table in ("clips", "clip_events", "transfers", "idempotency_keys"):
        await owner.execute(f"VACUUM (ANALYZE, PARALLEL 0) {table}")
    await owner.execute("CHECKPOINT")
    sizes = await owner.fetchrow(_SIZES)
    await owner.close()
    each = sizes["clips"] / clips, sizes["lines"] / (clips * lines)
    return House(dsn, clips, clips * lines, time.monotonic() - began, sizes["all"], *each)
