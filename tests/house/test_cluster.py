"""A server that is ended, frozen and replaced, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import asyncpg
import pytest

from house.cluster import _children, make_cluster

pytestmark = pytest.mark.on_linux


async def test_it_is_ended_frozen_and_replaced_and_nothing_is_left(tmp_path: Path) -> None:
    async with make_cluster(tmp_path, {"fsync": "off"}) as cluster:
        server = cluster.primary
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)")

        stopped = server.freeze()
        with pytest.raises(TimeoutError):
            await connection.fetchval("SELECT 1", timeout=0.2)
        connection.terminate()
        server.thaw(stopped)

        await server.end(signal.SIGQUIT)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await asyncpg.connect(server.dsn())
        await server.start()

        standby = await cluster.add_standby()
        copied = await asyncpg.connect(standby.dsn())
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await copied.execute("INSERT INTO kept VALUES (2)")
        await server.end(signal.SIGKILL)
        await standby.promote()
        await copied.execute("INSERT INTO kept VALUES (2)")
        assert await copied.fetchval("SELECT sum(id) FROM kept") == 3
        await copied.close()
        main = standby.process
        assert main is not None
    assert main.poll() is not None
    assert not cluster.directory.exists()
    async with asyncio.timeout(10):
        while _children(main.pid):
            await asyncio.sleep(0.02)
