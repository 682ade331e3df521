from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.drivers.ffmpeg import FfmpegMissing
from orchestrator.local import dev_parts
from orchestrator.local.dev_parts import DevParts, DevPlan
from orchestrator.local.dev_state import DevState
from orchestrator.local.errors import NotInstalled


def absent(error: Exception) -> object:
    def find(*_: object) -> None:
        raise error

    return find


def missing(environment: dict[str, str]) -> list[str]:
    state = DevState("account", "token", "secret", "key", "secret")
    plan = DevPlan(Path("/nowhere"), "127.0.0.1", 8080, state, environment, None, ())
    return DevParts(plan, lambda name, line: None).missing()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, ["no PostgreSQL", "no rclone", "no ffmpeg"]),
        ({"DATABASE_URL": "postgresql://elsewhere"}, ["no rclone", "no ffmpeg"]),
        ({"DATABASE_URL": "x", "R2_ENDPOINT_URL": "x", "CLOUDFLARE_API_TOKEN": "x"}, []),
    ],
    ids=["all-at-once", "what-is-given-is-not-needed", "nothing-is-needed"],
)
def test_what_is_missing_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: list[str]
) -> None:
    monkeypatch.setattr(dev_parts, "find_binaries", absent(NotInstalled("no PostgreSQL")))
    monkeypatch.setattr(dev_parts, "find_rclone", absent(NotInstalled("no rclone")))
    monkeypatch.setattr(dev_parts, "find_ffmpeg", absent(FfmpegMissing("no ffmpeg")))
    assert missing(environment) == said


def test_nothing_is_missing_where_the_extra_is_installed() -> None:
    assert missing({}) == []
