"""The independent check finds what it is there to find."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from house.checking import Findings, Ratchet, check_acknowledged, check_database, check_epochs, is_forward
from house.observing import observe


@pytest.fixture
async def rows(database: str) -> AsyncIterator[asyncpg.Connection]:
    """An observed database with one clip, and a lease that its owner has taken."""
    connection = await asyncpg.connect(database)
    await observe(connection)
    await connection.execute("UPDATE monitor_lease SET holder = 'me', epoch = 7, expires_at = 'infinity'")
    await connection.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('a', 'uida')")
    yield connection
    await connection.close()


async def _move(rows: asyncpg.Connection, status: str, progress: float, epoch: int = 7, told: bool = True) -> None:
    before = await rows.fetchval("SELECT status FROM clips")
    await rows.execute("UPDATE clips SET status = $1, progress = $2, epoch = $3", status, progress, epoch)
    if told:
        await rows.execute(
            "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, progress, source)"
            " VALUES ('a', 'moved', 1, $1, $2, $3, 'monitor')",
            before,
            status,
            progress,
        )


async def _violations(rows: asyncpg.Connection) -> list[str]:
    findings = Findings()
    await check_database(rows, findings)
    return [violation[:3].rstrip(":") for violation in findings.violations]


async def test_a_right_history_is_right(rows: asyncpg.Connection) -> None:
    await _move(rows, "queued", 30)
    await _move(rows, "stream_ready", 60)
    assert await _violations(rows) == []


async def test_a_change_without_a_line_is_found(rows: asyncpg.Connection) -> None:
    await _move(rows, "queued", 30)
    await _move(rows, "stream_ready", 60, told=False)
    assert set(await _violations(rows)) == {"I10"}


async def test_a_step_back_is_found_even_where_no_law_forbids_it(rows: asyncpg.Connection) -> None:
    await _move(rows, "stream_ready", 60)
    await rows.execute("ALTER TABLE clips DISABLE TRIGGER clips_obey_the_law")
    await _move(rows, "queued", 30)
    assert {"I1", "I4"} <= set(await _violations(rows))


async def test_a_write_in_a_term_that_is_over_is_found(rows: asyncpg.Connection) -> None:
    await _move(rows, "queued", 30, epoch=6)
    findings = Findings()
    await check_epochs(rows, findings)
    assert [violation[:2] for violation in findings.violations] == ["I3"]


async def test_what_another_than_the_leader_says_it_saw_is_found(rows: asyncpg.Connection) -> None:
    columns = "clip_id, attempt, requested_status, source, observed"
    statement = f"INSERT INTO clip_signals ({columns}) VALUES ('a', 1, 'queued', 'x', $1)"
    await rows.execute(statement, True)
    findings = Findings()
    await check_epochs(rows, findings)
    assert findings.violations == []
    await rows.execute("UPDATE observer.terms SET login = 'another'")
    await rows.execute(statement, True)
    await rows.execute(statement, False)  # anybody may ask
    await check_epochs(rows, findings)
    assert [violation[:2] for violation in findings.violations] == ["I8"]


async def test_a_lost_acknowledgement_is_found(rows: asyncpg.Connection) -> None:
    findings = Findings()
    await check_acknowledged(rows, [("a", "mark")], findings)
    assert len(findings.violations) == 1


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        ((1, "uploading"), (1, "complete"), True),
        ((1, "waitformp4"), (1, "mp4_processing"), True),
        ((1, "mp4_processing"), (1, "waitformp4"), True),
        ((1, "complete"), (1, "error"), True),
        ((1, "error"), (2, "stream_ready"), True),
        ((1, "queued"), (1, "queued"), False),
        ((1, "queued"), (1, "uploading"), False),
        ((1, "complete"), (1, "r2_uploading"), False),
        ((1, "error"), (1, "queued"), False),
        ((1, "error"), (3, "queued"), False),
        ((1, "error"), (2, "complete"), False),
        ((1, "queued"), (2, "queued"), False),
        ((2, "queued"), (1, "queued"), False),
    ],
)
def test_which_moves_were_promised(before: tuple[int, str], after: tuple[int, str], holds: bool) -> None:
    assert is_forward(before, after) is holds


def _told(**changes: Any) -> dict[str, Any]:
    return {"attempt": 1, "status": "queued", "progress": 15.0, "version": 3} | changes


@pytest.mark.parametrize(
    ("second", "holds"),
    [
        (_told(), True),
        (_told(status="processing", version=4), True),
        (_told(attempt=2, status="uploading", progress=0.0, version=9), True),
        (_told(version=2), False),
        (_told(status="uploading", version=4), False),
        (_told(progress=14.0, version=4), False),
    ],
)
def test_what_a_client_sees_never_goes_back(second: dict[str, Any], holds: bool) -> None:
    findings = Findings()
    ratchet = Ratchet("a client", findings)
    ratchet.see("a", _told())
    ratchet.see("a", second)
    ratchet.see("b", _told(version=1))
    assert (findings.violations == []) is holds
