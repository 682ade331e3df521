"""Items through durable steps by a job queue: each step writes status and history and queues the next one.

    python peer_steps.py pgqueuer|procrastinate ADDRESS ITEMS STEPS

Runs in an environment of its own, with nothing of this project in it; prints steps a second, from the first job's
being queued until every item has made its last step.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

TABLES = """
CREATE TABLE peer_items (id text PRIMARY KEY, step integer NOT NULL DEFAULT 0, changed_at timestamptz);
CREATE TABLE peer_history (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text, step integer,
                           at timestamptz DEFAULT clock_timestamp());
"""
LEFT = "SELECT count(*) FROM peer_items WHERE step < {steps}"
# As many jobs at once as either queue gains from on two processors.
AT_ONCE = 20


async def pgqueuer(address: str, items: int, steps: int) -> float:
    """A step and the job of the next one are one transaction."""
    import asyncpg
    from pgqueuer import PgQueuer, Queries
    from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver

    pool = await asyncpg.create_pool(address, min_size=AT_ONCE, max_size=AT_ONCE)
    owner = await asyncpg.connect(address)
    await Queries(AsyncpgDriver(owner)).install()
    await owner.execute(TABLES)
    await owner.execute("INSERT INTO peer_items (id) SELECT 'item_' || n FROM generate_series(1, $1::int) AS n", items)
    queue = PgQueuer(AsyncpgPoolDriver(pool))

    @queue.entrypoint("step")
    async def step(job: Any) -> None:
        item, number = job.payload.decode().split()
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE peer_items SET step = $2, changed_at = clock_timestamp() WHERE id = $1", item, int(number)
            )
            await connection.execute("INSERT INTO peer_history (item, step) VALUES ($1, $2)", item, int(number))
            if int(number) < steps:
                after = f"{item} {int(number) + 1}".encode()
                await Queries(AsyncpgDriver(connection)).enqueue("step", after)

    began = time.perf_counter()
    first = [f"item_{n} 1".encode() for n in range(1, items + 1)]
    await Queries(AsyncpgDriver(owner)).enqueue(["step"] * items, first, [0] * items)
    running = asyncio.create_task(queue.run(batch_size=AT_ONCE))
    while await owner.fetchval(LEFT.format(steps=steps)):
        if running.done():
            running.result()
        await asyncio.sleep(0.05)
    took = time.perf_counter() - began
    queue.shutdown.set()
    await asyncio.wait([running], timeout=10)
    return items * steps / took


async def procrastinate(address: str, items: int, steps: int) -> float:
    """A step is a transaction, the job of the next one another, as the library has it."""
    import procrastinate as library
    from psycopg_pool import AsyncConnectionPool

    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    connector = library.PsycopgConnector(conninfo=address, min_size=2, max_size=AT_ONCE)
    app = library.App(connector=connector)
    async with app.open_async(), AsyncConnectionPool(address, min_size=2, max_size=AT_ONCE, open=False) as pool:
        await app.schema_manager.apply_schema_async()
        async with pool.connection() as connection:
            await connection.execute(TABLES)
            await connection.execute(
                "INSERT INTO peer_items (id) SELECT 'item_' || n FROM generate_series(1, %s::int) AS n", [items]
            )

        @app.task(name="step")
        async def step(item: str, number: int) -> None:
            async with pool.connection() as connection:
                await connection.execute(
                    "UPDATE peer_items SET step = %s, changed_at = clock_timestamp() WHERE id = %s", [number, item]
                )
                await connection.execute("INSERT INTO peer_history (item, step) VALUES (%s, %s)", [item, number])
            if number < steps:
                await step.defer_async(item=item, number=number + 1)

        began = time.perf_counter()
        await step.batch_defer_async(*({"item": f"item_{n}", "number": 1} for n in range(1, items + 1)))
        running = asyncio.create_task(app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False))
        async with pool.connection() as watching:
            await watching.set_autocommit(True)
            while (await (await watching.execute(LEFT.format(steps=steps))).fetchone())[0]:
                if running.done():
                    running.result()
                await asyncio.sleep(0.05)
        took = time.perf_counter() - began
        running.cancel()
        await asyncio.wait([running], timeout=10)
    return items * steps / took


if __name__ == "__main__":
    peer = {"pgqueuer": pgqueuer, "procrastinate": procrastinate}[sys.argv[1]]
    print(asyncio.run(peer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
