"""A process that copies one file and prints what memory it took; started, and killed, by the tests.

python copying_process.py '{"dsn": …, "endpoint": …, "source": …, "origin": …, "uid": …, "part_mib": 16}'
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import asyncpg

from orchestrator.drivers.egress import EgressPolicy
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.drivers.object_store_client import ObjectStoreSettings
from orchestrator.transfer import HttpSource, PostgresCheckpoints, TransferJob, TransferLimits, copy_to_bucket

MIB = 1024 * 1024


def memory_mib(field: str) -> float:
    """VmRSS or VmHWM of this process; unlike getrusage's figure it does not start with the parent's."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def main(asked: dict[str, str | int]) -> None:
    settings = ObjectStoreSettings(asked["endpoint"], "localkey0001", "localsecret0001", "clips", asked["endpoint"])
    store = ObjectStore(settings)
    source = HttpSource(EgressPolicy.allowing([asked["origin"]]))
    job = TransferJob("clip-1", asked["uid"], 1, asked["source"], expected_duration_seconds=30.0)
    async with asyncpg.create_pool(asked["dsn"], min_size=1, max_size=2) as pool:
        await store.head(job.key)
        idle = memory_mib("VmRSS")
        limits = TransferLimits(part_floor_bytes=asked["part_mib"] * MIB)
        result = await copy_to_bucket(job, source, store, PostgresCheckpoints(pool), lambda _: None, limits)
        print(json.dumps({"idle": idle, "peak": memory_mib("VmHWM"), "size": result.size_bytes}))
    await source.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
