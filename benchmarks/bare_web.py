"""The ceiling of the web process: the least that an aiohttp program has to do, and nothing of the product.

    python -m benchmarks.bare_web DATABASE_URL PORT

It has no tokens, no checks, no trigger, no history: a signal is one more key in a document of a bare table, and those
that come within a few milliseconds share one statement and one commit. A status is one narrow row. A body is parsed,
since nobody can do without.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import asyncpg
from aiohttp import web

TABLES = """
CREATE TABLE bare_clips (id text PRIMARY KEY, uid text UNIQUE, status text NOT NULL DEFAULT 'processing',
    progress float8 NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT now(),
    processing_details jsonb NOT NULL DEFAULT '{}') WITH (fillfactor = 70)
"""
_SIGNALS = """
UPDATE bare_clips AS c SET processing_details = c.processing_details || s.details
  FROM unnest($1::text[], $2::jsonb[]) AS s(id, details) WHERE c.id = s.id
"""
_NOTICES = """
UPDATE bare_clips AS c SET processing_details = c.processing_details || s.details
  FROM unnest($1::text[], $2::jsonb[]) AS s(id, details) WHERE c.uid = s.id
"""
_STATUS = "SELECT status, progress, updated_at FROM bare_clips WHERE id = $1"
# What "a few milliseconds" are. Less makes more commits, more makes callers wait: 2 ms was the quickest here.
_COLLECT_SECONDS = 0.002


class Shared:
    """Signals that share a transaction: those of the last milliseconds, one commit at a time."""

    def __init__(self, pool: asyncpg.Pool, statement: str) -> None:
        self._pool = pool
        self._statement = statement
        self._waiting: list[tuple[str, str, asyncio.Future[None]]] = []
        self._work = asyncio.Event()

    async def write(self, clip_id: str, details: str) -> None:
        """Return once it is committed."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((clip_id, details, done))
        self._work.set()
        await done

    async def run(self) -> None:
        """Commit what has come, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            await asyncio.sleep(_COLLECT_SECONDS)
            batch, self._waiting = self._waiting, []
            async with self._pool.acquire() as connection:
                await connection.execute(self._statement, [each[0] for each in batch], [each[1] for each in batch])
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None)


async def main(dsn: str, port: int) -> None:
    """Serve until the process is ended."""
    async with asyncpg.create_pool(dsn, min_size=2, max_size=10) as pool:
        signals, notices = Shared(pool, _SIGNALS), Shared(pool, _NOTICES)

        async def signal(request: web.Request) -> web.Response:
            asked = json.loads(await request.read())
            await signals.write(request.match_info["id"], json.dumps({"requested_status": asked["requested_status"]}))
            return web.Response(status=202, body=b'{"recorded":true}', content_type="application/json")

        async def notice(request: web.Request) -> web.Response:
            told = json.loads(await request.read())
            await notices.write(told["uid"], json.dumps({"cloudflare_status": told["status"]["state"]}))
            return web.Response(body=b'{"received":true}', content_type="application/json")

        async def status(request: web.Request) -> web.Response:
            async with pool.acquire() as connection:
                row = await connection.fetchrow(_STATUS, request.match_info["id"])
            shown = {"status": row["status"], "progress": row["progress"], "updated_at": row["updated_at"].isoformat()}
            return web.Response(body=json.dumps(shown).encode(), content_type="application/json")

        app = web.Application()
        app.router.add_post("/api/clips/{id}/signals", signal)
        app.router.add_post("/webhooks/cloudflare", notice)
        app.router.add_get("/api/clips/{id}/status", status)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(signals.run())
            tasks.create_task(notices.run())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
