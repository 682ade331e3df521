"""`orchestrator worker` says what it lacks before it starts anything."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


async def test_without_pgqueuer_it_says_what_to_install(
    cli: Any, provider_environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("R2_ACCOUNT_ID", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME"):
        monkeypatch.setenv(name, "some-name")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "pgqueuer" else found(name))
    ran = await cli("worker")
    assert ran.code == 2
    assert "clip-orchestrator[worker]" in ran.err


async def test_it_lists_every_wrong_setting(
    cli: Any, provider_environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_TRANSFERS", "0")
    monkeypatch.setenv("R2_BUCKET_NAME", "")
    ran = await cli("worker")
    assert ran.code == 2
    assert "MAX_TRANSFERS" in ran.err
    assert "R2_BUCKET_NAME" in ran.err
