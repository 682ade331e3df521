"""`prune`: what it deletes, what it only counts, and how it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

YEAR = timedelta(days=365)
LINES = "SELECT count(*) FROM clip_events"


@pytest.fixture
async def old(ground) -> None:
    """A clip that failed a year ago, with three lines, and one that is on its way since then, with two."""
    for clip_id in ("ended", "stuck"):
        await ground.insert(clip_id)
        await ground.move(clip_id, "queued", 30, notify=False)
    await ground.move("ended", "error", 30, notify=False)
    async with ground.owner.transaction():
        await ground.owner.execute("SET LOCAL session_replication_role = replica")
        await ground.owner.execute("UPDATE clip_events SET at = at - $1::interval", YEAR)


async def test_old_history_of_ended_clips_goes_and_a_second_run_finds_nothing(cli, ground, old) -> None:
    ran = await cli("prune", "--history-keep-days", "30")
    said = "Pruned 2 lines of history and 0 records of finished transfers.\n"
    assert (ran.code, ran.out, ran.err) == (0, said, "")
    assert await ground.owner.fetchval(LINES) == 3
    again = await cli("prune", "--history-keep-days", "30")
    assert (again.code, again.out) == (0, said.replace("2", "0"))
    shown = await cli("clips", "show", "ended")
    assert "only how each attempt ended is kept" in shown.out
    assert (await cli("clips", "show", "ended", "--json")).document["pruned_before"] is not None
    assert (await cli("clips", "show", "stuck", "--json")).document["pruned_before"] is None


async def test_a_dry_run_counts_and_deletes_nothing(cli, ground, old) -> None:
    ran = await cli("prune", "--history-keep-days", "30", "--dry-run")
    assert (ran.code, ran.out) == (0, "2 lines of history are older than 30 days and would go.\n")
    assert await ground.owner.fetchval(LINES) == 5
    document = (await cli("prune", "--history-keep-days", "30", "--dry-run", "--json")).document
    assert (document["dry_run"], document["lines"], document["history_keep_days"]) == (True, 2, 30)
    assert datetime.fromisoformat(document["through_at"]) < datetime.now(UTC) - YEAR + timedelta(hours=1)
    assert await ground.owner.fetchval(LINES) == 5


async def test_by_itself_thirteen_months_are_kept_and_nought_is_for_ever(cli, ground, old, monkeypatch) -> None:
    assert (await cli("prune", "--json")).document["lines"] == 0
    monkeypatch.setenv("HISTORY_KEEP_DAYS", "0")
    ran = await cli("prune")
    assert (ran.code, "kept for ever" in ran.out) == (0, True)
    assert (await cli("prune", "--json")).document["lines"] == 0
    assert await ground.owner.fetchval(LINES) == 5


@pytest.mark.parametrize("days", ["6", "-1", "many", "36501"])
async def test_what_is_no_policy_is_wrong_usage(cli, days: str) -> None:
    ran = await cli("prune", f"--history-keep-days={days}")
    assert (ran.code, "HISTORY_KEEP_DAYS" in ran.err) == (2, True)


async def test_a_database_that_is_away_is_said_in_one_line(cli, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/x")
    ran = await cli("prune")
    assert ran.code == 1
    assert "does not answer" in ran.err
    assert len(ran.err.splitlines()) == 1


async def test_progress_is_told_on_stderr_and_not_to_programs(cli, ground, old, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.commands.pruning._TELL_SECONDS", 0.0)
    ran = await cli("prune", "--history-keep-days", "30", "--dry-run")
    assert ran.err.startswith("counted 2 lines, up to 20")
    assert (await cli("prune", "--history-keep-days", "30", "--json")).err == ""
