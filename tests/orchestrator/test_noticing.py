"""Stuck and in need of a person: one case per rule, and each rule in SQL against the same rule in Python."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from orchestrator.noticing import (
    MISTAKEN,
    VIEWS,
    Among,
    Case,
    noticed,
    yardsticks_as_json,
    yardsticks_from,
)
from orchestrator.storage.clips import COLUMNS, clip_from_row
from statusutils import STREAM
from statusutils.transitions import RULES

YARDSTICKS = yardsticks_from({("stream", "processing"): 100.0, ("stream", "uploading"): 1.0, ("cut", "clipping"): 1.0})
_INSERT = """
INSERT INTO clips (id, pipeline, status, progress, processing_details, attempt, status_since, look_at)
VALUES ($1, $2, $3, 50, $4, $5, $6, $7)
"""


async def put(connection: asyncpg.Connection, name: str, **columns: Any) -> None:
    """A row as it may come to stand there, however it got there."""
    now = datetime.now(UTC)
    status = columns.get("status", "processing")
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(
        _INSERT,
        name,
        columns.get("pipeline", "stream"),
        status,
        json.dumps(columns.get("details", {})),
        columns.get("attempt", 1),
        now - timedelta(seconds=columns.get("stood", 10)),
        None if status in ("complete", "error") else now + timedelta(seconds=columns.get("look_in", 5)),
    )


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def problem(seconds: float, code: str = "provider_unavailable", **more: Any) -> dict[str, Any]:
    return {"last_problem": {"code": code, "text": "No", "at": ago(seconds)}, **more}


def cases() -> list[tuple[str, dict[str, Any], dict[str, list[str]]]]:
    """Name, row, and the rules of each view that are to apply."""
    hours = 3600.0
    return [
        ("fresh", {}, {}),
        ("look-late", {"look_in": -90}, {"stuck": ["late"]}),
        ("look-late-by-a-moment", {"look_in": -30}, {}),
        ("slow", {"stood": 400}, {"stuck": ["slow"]}),
        ("not-slow-yet", {"stood": 250}, {}),
        ("slow-but-short", {"pipeline": "cut", "status": "clipping", "stood": 60}, {}),
        ("nothing-known-of-its-time", {"status": "queued", "stood": 2 * hours}, {}),
        ("awaits-its-bytes", {"status": "uploading", "stood": 30 * hours}, {}),
        ("near-its-deadline", {"status": "uploading", "stood": 39 * hours}, {"stuck": ["deadline"]}),
        ("slow-and-near", {"stood": 11 * hours}, {"stuck": ["slow", "deadline"]}),
        ("problem", {"details": problem(5)}, {"stuck": ["problem"]}),
        ("problem-of-before", {"details": problem(60)}, {}),
        ("problem-and-seen-since", {"details": problem(5, last_checked=ago(2))}, {}),
        ("problem-after-it-was-seen", {"details": problem(2, last_checked=ago(5))}, {"stuck": ["problem"]}),
        (
            "person",
            {"details": problem(5, "storage_quota")},
            {"stuck": ["problem"], "attention": ["person"]},
        ),
        ("mistaken", {"details": {"requested_status_error": "not-failed: only …"}}, {"attention": ["refused"]}),
        ("late-request", {"details": {"requested_status_error": "backward: status never goes back"}}, {}),
        ("failed", {"status": "error"}, {"attention": ["failed"]}),
        ("failed-and-retried", {"status": "error", "details": {"retry_at": ago(-600)}}, {}),
        (
            "failed-thrice",
            {"status": "error", "attempt": 3, "details": {"retry_at": ago(0)}},
            {"attention": ["failed"]},
        ),
        ("deleted", {"status": "error", "details": {"delete_requested": True}}, {}),
        ("not-deleted", {"status": "error", "details": {"delete_requested": False}}, {"attention": ["failed"]}),
        ("complete", {"status": "complete", "stood": 999 * hours, "details": problem(5)}, {}),
    ]


async def found(connection: asyncpg.Connection, view: str) -> dict[str, list[str]]:
    """What the conditions in SQL say, by clip."""
    rules: dict[str, list[str]] = {}
    for rule in VIEWS[view].rules:
        only = "status = 'error'" if rule.among is Among.FAILED else "status NOT IN ('complete', 'error')"
        condition = rule.sql.format(yardsticks="$1")
        values = [json.dumps(yardsticks_as_json(YARDSTICKS))] if "$1" in condition else []
        for row in await connection.fetch(f"SELECT id FROM clips WHERE {only} AND {condition} ORDER BY id", *values):
            rules.setdefault(row["id"], []).append(rule.name)
    return rules


async def said(connection: asyncpg.Connection, view: str) -> dict[str, list[str]]:
    """What the functions say, by clip."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    rows = [clip_from_row(row) for row in await connection.fetch(f"SELECT {COLUMNS} FROM clips")]
    rules = {clip.id: [rule.name for rule in noticed(VIEWS[view], Case(clip, now, YARDSTICKS))] for clip in rows}
    return {clip_id: names for clip_id, names in rules.items() if names}


async def test_each_rule_applies_where_it_should_in_python_and_in_sql_alike(owner: asyncpg.Connection) -> None:
    for name, row, _ in cases():
        await put(owner, name, **row)
    for view in VIEWS:
        wanted = {name: views[view] for name, _, views in cases() if view in views}
        assert await said(owner, view) == wanted
        assert await found(owner, view) == wanted


async def test_no_document_a_stranger_can_write_makes_a_condition_fail(owner: asyncpg.Connection) -> None:
    odd: list[Any] = [
        None,
        True,
        0,
        1e300,
        "",
        "x",
        "2026-99-99T99:99:99+00:00",
        "9999-12-31T23:59:59+00:00",
        [],
        {},
        [[1]],
    ]
    keys = ("last_problem", "last_checked", "retry_at", "delete_requested", "requested_status_error")
    number = itertools.count()
    for value in odd:
        for status in ("processing", "error"):
            await put(owner, f"k{next(number)}", status=status, details=dict.fromkeys(keys, value))
            await put(owner, f"k{next(number)}", status=status, details={"last_problem": {"at": value, "code": value}})
    for view in VIEWS:
        await found(owner, view)
        await said(owner, view)


def test_mistakes_are_rules_of_the_law() -> None:
    assert {rule.name for rule in RULES} > MISTAKEN


def test_every_status_that_is_no_end_has_a_yardstick() -> None:
    assert {status.name for status in STREAM.statuses if not status.is_terminal} == {
        place.partition("/")[2] for place in YARDSTICKS if place.startswith("stream/")
    }


def test_every_rule_has_a_sentence_of_its_own() -> None:
    rules = [rule for view in VIEWS.values() for rule in view.rules]
    assert len({rule.sentence for rule in rules}) == len({rule.name for rule in rules}) == len(rules)
