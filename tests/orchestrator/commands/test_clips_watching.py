"""`clips watch`: every change once, in order, and the end as the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.commands.clips import watching
from orchestrator.storage.pool import connect
from signals import signal_retry, signal_status_update

LIMIT_SECONDS = 20.0
_WATCHERS = "application_name = 'clip-orchestrator command line' AND datname = current_database()"


class Watch:
    """A running `clips watch`, and what it has told so far."""

    def __init__(self, task: asyncio.Task[Any], told: list[Any]) -> None:
        self.task = task
        self.told = told

    async def until(self, holds: Callable[[list[Any]], bool]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not holds(self.told):
                assert not self.task.done()
                await asyncio.sleep(0.01)

    async def end(self) -> Any:
        return await asyncio.wait_for(self.task, LIMIT_SECONDS)


@pytest.fixture
def watch(cli, monkeypatch: pytest.MonkeyPatch):
    """Starts the command and returns when it has told where the clip stands."""

    @asynccontextmanager
    async def start(*arguments: str, poll_seconds: float = 60.0) -> AsyncIterator[Watch]:
        told: list[Any] = []
        monkeypatch.setattr(watching, "POLL_SECONDS", poll_seconds)
        monkeypatch.setattr(watching, "say", told.append)
        monkeypatch.setattr(watching, "say_json", told.append)
        task = asyncio.create_task(cli("clips", "watch", *arguments))
        started = Watch(task, told)
        await started.until(lambda told: len(told) > 0)
        yield started
        await started.end()

    return start


async def test_a_complete_clip_ends_it_at_once(cli, ground) -> None:
    await ground.insert("c1")
    await ground.move("c1", "complete", 100)
    ran = await cli("clips", "watch", "c1", "--json")
    assert ran.code == 0
    assert [(said["kind"], said["status"], said["state"], said["terminal"]) for said in ran.documents] == [
        ("now", "complete", "done", True)
    ]


async def test_a_failed_clip_is_exit_code_1(cli, ground) -> None:
    await ground.insert("c1")
    await ground.move("c1", "error", 15, error_message="no bytes")
    ran = await cli("clips", "watch", "c1")
    assert ran.code == 1
    assert ran.out.endswith("  error  15 %  Failed: no bytes\n")


async def test_notifications_bring_each_change_once_and_in_order(ground, watch) -> None:
    await ground.insert("c1")
    async with watch("c1", "--json") as watched:
        await ground.move("c1", "queued", 30, notify=False)  # two at once, told of by the second
        await ground.move("c1", "processing", 50)
        await watched.until(lambda told: told[-1]["status"] == "processing")
        await ground.owner.execute("UPDATE clips SET progress = 55")
        await ground.owner.execute("SELECT pg_notify('orchestrator_changed', 'c1')")
        await watched.until(lambda told: told[-1]["kind"] == "progress")
        await ground.record("c1", "refused", "processing", "queued", 55, reason="Refused: status never goes back")
        await ground.move("c1", "complete", 100)
        assert (await watched.end()).code == 0
    assert [(said["kind"], said["status"], said["progress"], said["asked_for"]) for said in watched.told] == [
        ("now", "uploading", 15.0, None),
        ("moved", "queued", 30.0, None),
        ("moved", "processing", 50.0, None),
        ("progress", "processing", 55.0, None),
        ("refused", "processing", 55.0, "queued"),
        ("moved", "complete", 100.0, None),
    ]
    assert (watched.told[1]["reason"], watched.told[4]["source"]) == ("it was seen so", "monitor")


async def test_lost_notifications_are_made_up_for(ground, watch) -> None:
    await ground.insert("c1")
    async with watch("c1", poll_seconds=0.05) as watched:
        await ground.move("c1", "queued", 30, notify=False)
        await ground.move("c1", "error", 30, notify=False, error_message="gone")
        assert (await watched.end()).code == 1
    assert [line.split("  ", 1)[1] for line in watched.told] == [
        "uploading  15 %  Uploading to Cloudflare",
        "queued  30 %  Queued at Cloudflare  (monitor: it was seen so)",
        "error  30 %  Failed: gone  (monitor: it was seen so)",
    ]


async def test_a_failed_try_is_told_with_its_reason(ground, watch) -> None:
    await ground.insert("c1")
    async with watch("c1", poll_seconds=0.05) as watched:
        await ground.record("c1", "failed-try", "uploading", "uploading", 15, reason="The store is away")
        await watched.until(lambda told: len(told) > 1)
        await ground.move("c1", "complete", 100)
        await watched.end()
    assert watched.told[1].endswith("  failed-try: monitor: The store is away")
    assert len(watched.told) == 3


async def test_more_history_than_one_look_takes_is_told_in_full(ground, watch) -> None:
    await ground.insert("c1")
    async with watch("c1", "--json") as watched:
        await ground.owner.execute(
            "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, source)"
            " SELECT 'c1', 'refused', 1, 'uploading', 'uploading', 'n' || n FROM generate_series(1, 450) n"
        )
        await ground.move("c1", "complete", 100)
        await watched.end()
    asked = [(said["source"], said["asked_for"]) for said in watched.told[1:-1]]
    assert asked == [(f"n{n}", "uploading") for n in range(1, 451)]
    assert watched.told[-1]["status"] == "complete"


async def test_a_clip_that_is_being_retried_has_not_ended(ground, watch, database: str) -> None:
    await ground.insert("c1")
    await ground.move("c1", "error", 15)
    await asked(database, signal_retry, "c1", "uploading", "test")
    async with watch("c1", "--json", poll_seconds=0.05) as watched:
        await ground.owner.execute("UPDATE clips SET pending = 0, attempt = 2, status = 'uploading', progress = 15")
        await watched.until(lambda told: told[-1]["attempt"] == 2)
        await ground.move("c1", "complete", 100)
        assert (await watched.end()).code == 0
    assert watched.told[0]["status"] == "error"


async def test_a_clip_that_is_tried_again_by_itself_is_followed_and_told_when(ground, watch) -> None:
    at = datetime.now(UTC) + timedelta(minutes=5)
    await ground.insert("c1", retry_at=at.isoformat())
    await ground.move("c1", "error", 15, error_message="The provider was away")
    async with watch("c1", "--json", poll_seconds=0.05) as watched:
        await watched.until(lambda told: len(told) == 2)
        await ground.owner.execute("UPDATE clips SET pending = 0, attempt = 2, status = 'uploading', progress = 15")
        await watched.until(lambda told: told[-1]["attempt"] == 2)
        await ground.move("c1", "complete", 100)
        assert (await watched.end()).code == 0
    assert [said["kind"] for said in watched.told[:2]] == ["now", "retry"]
    assert datetime.fromisoformat(watched.told[1]["retry_at"]) == at
    assert watched.told[1]["reason"].startswith("attempt 2 begins at ")


async def test_a_complete_clip_has_ended_whatever_is_asked(cli, ground, database: str) -> None:
    await ground.insert("c1")
    await ground.move("c1", "complete", 100)
    await asked(database, signal_status_update, "c1", "stream_ready", None, "webhook")
    assert (await cli("clips", "watch", "c1")).code == 0


async def asked(database: str, ask: Any, *arguments: Any) -> None:
    api = await connect(database, "orchestrator_api", "test")
    await ask(api, *arguments)
    await api.close()


async def test_time_that_is_over_is_exit_code_1(cli, ground) -> None:
    await ground.insert("c1")
    ran = await cli("clips", "watch", "c1", "--timeout", "0.3")
    assert (ran.code, ran.err) == (1, "clip c1 is still at uploading after 0.3 s\n")


async def test_a_lost_connection_is_opened_again(ground, watch) -> None:
    await ground.insert("c1")
    async with watch("c1", "--json", poll_seconds=0.1) as watched:
        await ground.owner.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_WATCHERS}")
        await ground.move("c1", "complete", 100)
        ran = await watched.end()
    assert ran.code == 0
    assert "Looking again." in ran.err
    assert [said["status"] for said in watched.told] == ["uploading", "complete"]


async def test_a_database_that_stays_away_ends_it(ground, watch, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError(111, "refused")

    await ground.insert("c1")
    async with watch("c1", poll_seconds=0.05) as watched:
        monkeypatch.setattr(watching, "AWAY_MAX_SECONDS", 0.3)
        monkeypatch.setattr("orchestrator.commands.database.find_access", refuse)
        await ground.owner.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_WATCHERS}")
        ran = await watched.end()
    assert ran.code == 1
    assert ran.err.splitlines()[-1].endswith(
        "does not answer (connection refused); is it running, is DATABASE_URL right?"
    )


async def test_a_clip_that_is_removed_meanwhile_ends_it(ground, watch) -> None:
    await ground.insert("c1")
    async with watch("c1", poll_seconds=0.05) as watched:
        await ground.owner.execute("DELETE FROM clips")
        ran = await watched.end()
    assert (ran.code, ran.err[:24]) == (2, "there is no clip c1; `or")


async def test_ctrl_c_ends_it_quietly(ground, database: str) -> None:
    await ground.insert("c1")

    def run() -> tuple[int, bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "clips", "watch", "c1"],
            env={**os.environ, "DATABASE_URL": database},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # As from a terminal: where the tests run in the background Ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        return child.wait(LIMIT_SECONDS), child.communicate()[1]

    assert await asyncio.to_thread(run) == (130, b"")


async def test_a_reader_that_leaves_ends_it_quietly(ground, database: str) -> None:
    await ground.insert("c1")

    def run() -> tuple[int, bytes]:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as gone:
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator", "clips", "ls"],
                env={**os.environ, "DATABASE_URL": database},
                stdout=gone,
                stderr=subprocess.PIPE,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        return done.returncode, done.stderr

    assert await asyncio.to_thread(run) == (141, b"")
