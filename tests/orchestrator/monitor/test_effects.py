"""Effects: bounded, one of a kind per clip and attempt, told as signals; failures end somewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from orchestrator.drivers.errors import DATABASE_AWAY, PermanentError, TransientError
from orchestrator.drivers.fencing import changing
from orchestrator.monitor import effects
from orchestrator.monitor.effects import EffectRunner
from orchestrator.monitor.failures import DATABASE_WAIT, wait_after
from orchestrator.monitor.leadership import Term
from orchestrator.monitor.loop import STOP_SECONDS
from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.terms import Done, Effect, Pipeline, Reports, Step
from orchestrator.storage.clips import Clip, read_clip

NOW = datetime.now(UTC)
LIMIT_SECONDS = 10


@pytest.fixture
def pipelines() -> dict[str, Pipeline]:
    """The pipelines of the runner."""
    return dict(PIPELINES)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Something to do outside."""

    clip_id: str = "c"
    attempt: int = 1


# ---- the runner ----------------------------------------------------------------------------------------------------


class ScriptedHands:
    """Carries out each effect by the script it is given."""

    def __init__(self, script: Callable[[Effect, Reports], Awaitable[Done]], at_once: int = 10) -> None:
        self.script = script
        self.at_once = at_once
        self.started: list[Effect] = []

    def queue_of(self, effect: Effect) -> str | None:
        return None

    def capacity(self, effect: Effect) -> int:
        return self.at_once

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        self.started.append(effect)
        return await self.script(effect, reports)


@pytest.fixture
def runner_for(pool: asyncpg.Pool, term: Term, pipelines):
    """A runner with the given script, the hands in it, and an event that is set whenever something was reported."""

    def make(script: Callable[[Effect, Reports], Awaitable[Done]], **options: Any):
        hands, reported = ScriptedHands(script, **options), asyncio.Event()
        runner = EffectRunner(pool, term, pipelines, {"stream": hands}, lambda: NOW, reported.set, lambda: 10.0)  # type: ignore[dict-item]
        return runner, hands, reported

    return make


async def ended(runner: EffectRunner) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while tasks := list(runner._running.values()):
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # their callbacks


async def the(connection: asyncpg.Connection, clip_id: str = "c") -> Clip:
    clip = await read_clip(connection, clip_id)
    assert clip is not None
    return clip


async def test_what_was_done_is_told_as_something_seen(owner: asyncpg.Connection, runner_for, stand) -> None:
    await stand("c", "mp4downloading")

    async def script(effect: Effect, reports: Reports) -> Done:
        await reports.step(Step("r2_uploading", "first part"))
        return Done(Step("complete", "verified", {"r2_url": "https://b/k"}, {"a": 1}), {"b": 2})

    runner, _, reported = runner_for(script)
    assert runner.start("stream", Fetch())
    await ended(runner)
    assert reported.is_set()
    rows = await owner.fetch(
        "SELECT requested_status, attempt, source, observed, details FROM clip_signals ORDER BY id"
    )
    assert [tuple(row)[:4] for row in rows] == [("r2_uploading", 1, "fetch", True), ("complete", 1, "fetch", True)]
    assert json.loads(rows[1]["details"]) == {
        "reason": "verified",
        "facts": {"r2_url": "https://b/k"},
        "a": 1,
        "b": 2,
    }
    assert (await the(owner)).status == "mp4downloading", "an effect asks; the judge moves"


async def test_details_without_a_step_are_merged_for_the_same_attempt_alone(
    owner: asyncpg.Connection, runner_for, stand
) -> None:
    await stand("c", "error")

    async def script(effect: Effect, reports: Reports) -> Done:
        return Done(details={"deleted_at": f"attempt {effect.attempt}"})

    runner, _, _ = runner_for(script)
    runner.start("stream", Fetch(attempt=2))
    await ended(runner)
    assert (await the(owner)).processing_details == {}
    runner.start("stream", Fetch(attempt=1))
    await ended(runner)
    assert (await the(owner)).processing_details == {"deleted_at": "attempt 1"}


async def test_the_same_effect_runs_once_at_a_time_and_each_kind_is_bounded(runner_for) -> None:
    gate = asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        await gate.wait()
        return Done()

    @dataclass(frozen=True, slots=True)
    class Delete(Fetch):
        pass

    runner, hands, _ = runner_for(script, at_once=2)
    assert runner.start("stream", Fetch())
    assert not runner.start("stream", Fetch())
    assert runner.start("stream", Fetch(attempt=2))
    assert not runner.start("stream", Fetch("d")), "two of the kind run already"
    assert runner.start("stream", Delete()), "another kind has its own bound"
    gate.set()
    await ended(runner)
    assert hands.started == [Fetch(), Fetch(attempt=2), Delete(), Fetch("d")], "who waited got the free place"


async def test_who_waits_longest_gets_the_place_unless_nobody_wants_it_any_more(runner_for) -> None:
    gate = asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        await gate.wait()
        return Done()

    runner, hands, _ = runner_for(script, at_once=1)
    for clip_id in ("a", "b", "c", "d", "b"):
        runner.start("stream", Fetch(clip_id))
    runner.cancel_others("c", ())
    gate.set()
    await ended(runner)
    assert [effect.clip_id for effect in hands.started] == ["a", "b", "d"]


async def test_closing_starts_nobody_who_waits(runner_for) -> None:
    async def script(effect: Effect, reports: Reports) -> Done:
        await asyncio.Event().wait()
        return Done()

    runner, hands, _ = runner_for(script, at_once=1)
    runner.start("stream", Fetch("a"))
    runner.start("stream", Fetch("b"))
    await asyncio.sleep(0)
    await runner.close()
    await asyncio.sleep(0)
    assert [effect.clip_id for effect in hands.started] == ["a"]


async def test_a_failure_is_counted_written_and_waited_after(
    owner: asyncpg.Connection, runner_for, stand, history
) -> None:
    await stand("c", "mp4downloading")

    async def script(effect: Effect, reports: Reports) -> Done:
        raise TransientError("source_cut", "the line was cut")

    runner, _, reported = runner_for(script)
    for tries in (1, 2, 3):
        runner.start("stream", Fetch())
        await ended(runner)
        clip = await the(owner)
        assert (clip.status, clip.tries) == ("mp4downloading", tries)
        assert clip.look_at == NOW + wait_after(tries, None)
    assert [line["details"]["try"] for line in await history("c")] == [1, 2, 3]
    assert reported.is_set()


@pytest.mark.parametrize(
    "fault", [KeyError("secret=sesame"), MemoryError(), asyncio.CancelledError("sesame")], ids=repr
)
async def test_a_fault_of_ours_counts_as_a_failed_try(
    owner: asyncpg.Connection, runner_for, stand, pipelines, fault: BaseException
) -> None:
    stream = pipelines["stream"]
    few = {status: replace(limit, tries=2) for status, limit in stream.limits.items()}
    pipelines["stream"] = replace(stream, limits=few)
    await stand("c", "mp4downloading")

    async def script(effect: Effect, reports: Reports) -> Done:
        raise fault

    runner, _, _ = runner_for(script)
    for _ in range(2):
        runner.start("stream", Fetch())
        await ended(runner)
    clip = await the(owner)
    assert (clip.status, clip.processing_details["error_code"]) == ("error", "internal")
    assert "sesame" not in json.dumps(dict(clip.processing_details)) + (clip.error_message or "")


_END_WHO_WAITS = """
SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity
 WHERE application_name = 'test pool' AND wait_event_type = 'Lock'
"""


async def _tell_the_end(reports: Reports) -> Done:
    return Done(Step("complete", "verified"))


async def _tell_details(reports: Reports) -> Done:
    return Done(details={"deleted_at": "now"})


async def _tell_a_step(reports: Reports) -> Done:
    await reports.step(Step("r2_uploading", "first part"))
    return Done()


@pytest.mark.parametrize("tell", [_tell_the_end, _tell_details, _tell_a_step])
async def test_sessions_that_the_database_ends_are_not_blamed_on_the_clip(
    owner: asyncpg.Connection, runner_for, stand, history, tell: Callable[[Reports], Awaitable[Done]]
) -> None:
    """The database is there again when the failure is written, and nothing of it may be left but a short wait."""
    await stand("c", "mp4downloading")

    async def script(effect: Effect, reports: Reports) -> Done:
        return await tell(reports)

    runner, _, reported = runner_for(script)
    async with owner.transaction(), asyncio.timeout(LIMIT_SECONDS):
        await owner.execute("SELECT FROM monitor_lease FOR UPDATE")  # whatever is told waits for it
        runner.start("stream", Fetch())
        while not await owner.fetchval(_END_WHO_WAITS):
            await asyncio.sleep(0.01)
    await ended(runner)
    clip = await the(owner)
    assert (clip.status, clip.tries, clip.look_at) == ("mp4downloading", 0, NOW + DATABASE_WAIT)
    assert clip.processing_details["last_problem"]["code"] == DATABASE_AWAY
    assert await history("c") == []
    assert reported.is_set()


@pytest.mark.parametrize("case", ["attempt-over", "term-over", "clip-gone"])
async def test_a_failure_that_concerns_nobody_any_more_is_let_go(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, pipelines, stand, case: str
) -> None:
    await stand("c", "mp4downloading")

    async def script(effect: Effect, reports: Reports) -> Done:
        raise PermanentError("too_long", "longer than allowed")

    held = Term(term.holder, term.epoch - 1) if case == "term-over" else term
    hands = {"stream": ScriptedHands(script)}
    runner = EffectRunner(pool, held, pipelines, hands, lambda: NOW, lambda: None, lambda: 10.0)  # type: ignore[arg-type]
    effect = Fetch("d") if case == "clip-gone" else Fetch(attempt=2 if case == "attempt-over" else 1)
    before = await the(owner)
    runner.start("stream", effect)
    await ended(runner)
    assert await the(owner) == before


@pytest.mark.parametrize("tells", ["a step on the way", "a step at the end", "details alone"])
async def test_what_was_seen_in_a_term_that_is_over_is_not_told(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, pipelines, stand, tells: str
) -> None:
    """Another leads by now, and sees for itself."""
    await stand("c", "mp4downloading")

    async def script(effect: Effect, reports: Reports) -> Done:
        if tells == "a step on the way":
            await reports.step(Step("r2_uploading", "first part"))
        return Done(details={"b": 2}) if tells == "details alone" else Done(Step("complete", "verified"))

    former = Term(term.holder, term.epoch - 1)
    hands = {"stream": ScriptedHands(script)}
    runner = EffectRunner(pool, former, pipelines, hands, lambda: NOW, lambda: None, lambda: 10.0)  # type: ignore[arg-type]
    before = await the(owner)
    runner.start("stream", Fetch())
    await ended(runner)
    assert hands["stream"].started
    assert await the(owner) == before
    assert await owner.fetchval("SELECT count(*) FROM clip_signals") == 0


async def test_nothing_outside_is_changed_when_the_term_cannot_be_trusted_any_more(
    owner: asyncpg.Connection, pool: asyncpg.Pool, term: Term, pipelines, stand
) -> None:
    """A process that was stopped between its decision and its call goes on where it was; another one leads by then."""
    await stand("c", "mp4downloading")
    trusted, changed = [10.0], []

    async def script(effect: Effect, reports: Reports) -> Done:
        with changing():
            changed.append("in time")
        trusted[0] = -0.1
        with changing():
            changed.append("too late")
        return Done(details={"late": True})

    hands = {"stream": ScriptedHands(script)}
    runner = EffectRunner(pool, term, pipelines, hands, lambda: NOW, lambda: None, lambda: trusted[0])  # type: ignore[arg-type]
    before = await the(owner)
    runner.start("stream", Fetch())
    await ended(runner)
    assert changed == ["in time"]
    assert await the(owner) == before
    with changing():  # nobody's effect: nothing to refuse
        pass


async def test_progress_is_kept_while_it_runs_and_forgotten_afterwards(runner_for) -> None:
    told, gate = asyncio.Event(), asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        reports.progress("mp4downloading", None)
        reports.progress("mp4downloading", 12.0)
        reports.progress("mp4downloading", 40.0)
        told.set()
        await gate.wait()
        return Done()

    runner, _, _ = runner_for(script)
    runner.start("stream", Fetch())
    await asyncio.wait_for(told.wait(), LIMIT_SECONDS)
    assert {key: one.percent for key, one in runner.progress.items()} == {("c", 1): 40.0}
    gate.set()
    await ended(runner)
    assert runner.progress == {}


async def test_what_is_no_longer_wanted_is_stopped_and_nothing_else(runner_for) -> None:
    stopped: list[Effect] = []
    gate, running = asyncio.Event(), asyncio.Semaphore(0)

    async def script(effect: Effect, reports: Reports) -> Done:
        running.release()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            stopped.append(effect)
            raise
        return Done()

    runner, _, _ = runner_for(script)
    for effect in (Fetch(), Fetch(attempt=2), Fetch("d")):
        runner.start("stream", effect)
    for _ in range(3):
        await asyncio.wait_for(running.acquire(), LIMIT_SECONDS)
    runner.cancel_others("c", (Fetch(attempt=2),))
    gate.set()
    await ended(runner)
    assert stopped == [Fetch()]


async def test_closing_stops_everything_and_counts_no_failure(
    owner: asyncpg.Connection, runner_for, stand, history
) -> None:
    await stand("c", "mp4downloading")
    running = asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        running.set()
        await asyncio.Event().wait()
        return Done()

    runner, _, _ = runner_for(script)
    runner.start("stream", Fetch())
    await asyncio.wait_for(running.wait(), LIMIT_SECONDS)
    await asyncio.wait_for(runner.close(), LIMIT_SECONDS)
    assert (await the(owner)).tries == 0
    assert await history("c") == []


async def test_closing_lets_a_request_be_answered_that_is_on_its_way(
    owner: asyncpg.Connection, runner_for, stand
) -> None:
    """Whoever leads next looks whether it was done: what has not arrived by then would be asked for twice."""
    for clip_id in ("changes", "looks"):
        await stand(clip_id, "mp4downloading")
    answered, stopped = asyncio.Event(), asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        if effect.clip_id == "changes":
            with changing():
                await answered.wait()
            return Done(details={"asked": True})
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return Done()

    runner, hands, _ = runner_for(script)
    runner.start("stream", Fetch("changes"))
    runner.start("stream", Fetch("looks"))
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(hands.started) < 2:
            await asyncio.sleep(0)
        closing = asyncio.create_task(runner.close())
        await stopped.wait()
        assert not closing.done()
        answered.set()
        assert await closing
    assert (await the(owner, "changes")).processing_details["asked"]


async def test_closing_does_not_wait_for_an_answer_for_ever(runner_for, stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "ANSWER_SECONDS", 0.05)
    await stand("c", "mp4downloading")
    begun = asyncio.Event()

    async def script(effect: Effect, reports: Reports) -> Done:
        with changing():
            begun.set()
            await asyncio.Event().wait()
        return Done()

    runner, _, _ = runner_for(script)
    runner.start("stream", Fetch())
    await asyncio.wait_for(begun.wait(), LIMIT_SECONDS)
    assert not await asyncio.wait_for(runner.close(), LIMIT_SECONDS), "it was broken off, and that has to be known"
    assert not runner._running


def test_an_answer_may_take_no_longer_than_everything_has_to_stop_in() -> None:
    assert effects.ANSWER_SECONDS < STOP_SECONDS
