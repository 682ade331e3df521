"""What the lanes of provider, delivery and bucket faults may ask for; a lane takes it in by ``pytest_plugins``."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from lanes.canaries import CANARIES

from orchestrator.observability import configure_logging
from simulation.surroundings import Secrets, Surroundings, in_surroundings


@pytest.fixture(scope="session")
def secrets() -> Secrets:
    """Secrets that give themselves away."""
    address = f"https://videos.example.com/{CANARIES['source address']}.mp4"
    return Secrets(CANARIES["api token"], CANARIES["bucket secret"], address)


@pytest.fixture(scope="session", autouse=True)
def kept_log(lane_directory: Path) -> Iterator[None]:
    """What the program logs goes where the secrets lane looks for it."""
    with (lane_directory / "program.log").open("a") as log:
        with contextlib.redirect_stderr(log):
            configure_logging(as_json=True)
        yield
        structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def warmed_up(secrets: Secrets, kept_log: None) -> None:
    """Everything is imported and built once, and then left alone by the collector: each run ends with one."""

    async def cell(around: Surroundings) -> None:
        async with around.program():
            await around.until_rest(await around.copied_clip())

    in_surroundings(cell, secrets)
    gc.collect()
    gc.freeze()
