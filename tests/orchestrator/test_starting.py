"""What a process loads before there is work: every idle one pays for it, in memory and at each start."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import asyncpg
import pytest

# Only a hang meets it.
LIMIT_SECONDS = 60
SETTINGS = {
    "CLOUDFLARE_ACCOUNT_ID": "a", "CLOUDFLARE_API_TOKEN": "t" * 20, "R2_ACCOUNT_ID": "a", "R2_ACCESS_KEY_ID": "k",
    "R2_SECRET_ACCESS_KEY": "s", "R2_BUCKET_NAME": "bucket", "LOG_JSON": "true",
}  # fmt: skip
# The first transfer, the first look into a file, a person's terminal, and a worker.
NOBODY_NEEDS_YET = {"boto3", "botocore", "av", "rich", "pgqueuer", "uvloop"}


@contextmanager
def started(command: str, database: str, tells: str) -> Iterator[list[str]]:
    """`orchestrator COMMAND` as a process of its own once its log *tells*; the lines it wrote, in the end all."""
    settings = {"DATABASE_URL": database, "PORT": "0", **SETTINGS}
    process = subprocess.Popen(
        # Python itself then tells of each module, in whatever place it is imported.
        [sys.executable, "-X", "importtime", "-m", "orchestrator", command],
        env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if tells in line:
                break
        yield lines
        process.terminate()
        lines += process.communicate(timeout=LIMIT_SECONDS)[1].splitlines()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, "".join(line for line in lines if not line.startswith("import time"))


def loaded(lines: Iterable[str]) -> set[str]:
    """The modules of packages, and these packages; one that was looked for in vain is told of and has no module."""
    told = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    modules = {name for name in told if "." in name}
    return modules | {name.partition(".")[0] for name in modules}


async def first_round(database: str) -> None:
    """Wait until the monitor has looked at everything once."""
    owner = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await owner.fetchval("SELECT round_at IS NOT NULL FROM monitor_lease"):
                await asyncio.sleep(0.05)
    finally:
        await owner.close()


@pytest.mark.parametrize(
    ("command", "tells", "its_own", "not_its_own"),
    [
        ("monitor", '"leading"', "orchestrator.monitor.loop", {"orchestrator.web.app", "orchestrator.worker.running"}),
        (
            "serve",
            '"the web process listens"',
            "orchestrator.web.app",
            {"orchestrator.monitor.loop", "orchestrator.worker.running", "orchestrator.drivers.object_store"},
        ),
    ],
)
async def test_an_idle_process_has_loaded_what_it_needs_and_no_more(
    database: str, command: str, tells: str, its_own: str, not_its_own: set[str]
) -> None:
    with started(command, database, tells) as lines:
        if command == "monitor":
            await first_round(database)
    modules = loaded(lines)
    assert its_own in modules
    assert not modules & (NOBODY_NEEDS_YET | not_its_own)
