"""The eight-step machine against job queues that take items through as many durable steps on the same PostgreSQL.

The queues come from the registry (`peers.txt`), into an environment of their own; what runs there is `peer_steps.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import asyncpg

from benchmarks.database import make_database, started_server
from benchmarks.harness import Place, Row, Subject, at_least, call, medians, ratio, take_turns
from benchmarks.machine import STEPS, product_steps

HERE = Path(__file__).parent
# Times as fast as each, from the goals.
PEERS = {"pgqueuer": 10, "procrastinate": 50}
INSTALL_SECONDS = 300.0
LATE_SECONDS = 300.0


async def measure(place: Place) -> list[Row]:
    """Steps a second of each, in turns; whoever is to be measured has the server to himself meanwhile."""
    clips, items = place.amount((1_000, 60), (5_000, 1_000))
    python = await _installed(place.directory / "environment")
    async with started_server(place) as server:
        database = await make_database(server, "product")
        owner = await asyncpg.connect(database)
        turn = 0

        async def product() -> float:
            return await product_steps(owner, database, clips)

        def peer(name: str) -> Subject:
            async def steps() -> float:
                nonlocal turn
                turn += 1
                address = await make_database(server, f"{name}_{turn}")
                arguments = [name, address, str(items), str(len(STEPS))]
                return float(await call([str(python), str(HERE / "peer_steps.py"), *arguments], LATE_SECONDS))

            return steps

        subjects: dict[str, Subject] = {"product": product, **{name: peer(name) for name in PEERS}}
        taken = await take_turns(subjects, rounds=place.amount(2, 5))
        await owner.close()
    figures = {f"{name} steps/s": figure for name, figure in medians(taken).items()}
    return [
        Row(f"eight-step machine, product to {name}", ratio(taken, "product", name), at_least(times), figures=figures)
        for name, times in PEERS.items()
    ]


async def _installed(environment: Path) -> Path:
    """The interpreter of an environment that holds the peers and nothing else."""
    python = environment / "bin" / "python"
    await call([sys.executable, "-m", "venv", str(environment)], INSTALL_SECONDS)
    await call([str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "peers.txt")], INSTALL_SECONDS)
    return python
