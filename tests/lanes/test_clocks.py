"""Clocks are wrong, jump and run too fast, under a monitor or under PostgreSQL: clips complete, and one leads."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from house.clocks import DAY, HOUR, MINUTE, WrongClock, library
from house.pairs import MONITORS, SETTLE_SECONDS, Measured, Pair, PairPlan, open_pair
from house.postgres import arranged_postgres
from house.supervising import Place

from lanes.canaries import CANARIES

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

TAKEOVER_SECONDS = 15.0
CLIPS = 3
# Monitors ask for the database's time every ten seconds.
FOLLOWED_SECONDS = 13.0
# Two seconds before the clocks of Berlin go back from three to two.
BEFORE_THE_CHANGE = "@2026-10-25 02:59:58"
BERLIN = {"TZ": "Europe/Berlin"}


@dataclass(frozen=True, slots=True)
class Case:
    """Whose clock is wrong, how at first, and how after a jump while clips are under way."""

    name: str
    first: str
    then: str | None = None
    second_monitor: str | None = None
    rate: bool = False
    in_berlin: bool = False
    # Object stores refuse who signs with a time more than a quarter of an hour off: nothing can be copied then.
    store_refuses: bool = False
    falls_back: bool = False


MONITOR_CASES = (
    Case("14 minutes ahead", f"+{14 * MINUTE}", second_monitor=f"-{14 * MINUTE}"),
    Case("an hour ahead", f"+{HOUR}", store_refuses=True),
    Case("a day behind, then an hour ahead", f"-{DAY}", f"+{HOUR}", store_refuses=True),
    Case("jumps by 14 minutes", "+0", f"+{14 * MINUTE}"),
    Case("twice as fast", "+0 x2.0", second_monitor="+0 x0.5", rate=True),
    Case("past 2038, then the clocks go back", "@2040-01-01 00:00:00", BEFORE_THE_CHANGE, None, False, True, True),
)
# When the database's clock falls back, a clip that waits goes on waiting until it has caught up: none waits here then.
DATABASE_CASES = (
    Case("jumps an hour ahead", "+0", f"+{HOUR}"),
    Case("falls back a day", f"+{DAY}", "+0", falls_back=True),
    Case("past 2038, then the clocks go back", BEFORE_THE_CHANGE, "@2040-01-01 00:00:00", in_berlin=True),
)


async def test_clips_complete_and_one_leads_whatever_the_clocks_say(
    postgres_server: Any,
    database_template: str,
    lane_directory: Path,
    sample: Path,
    amount: Callable[[Any, Any], Any],
    figures: Figures,
    sometimes: Sometimes,
) -> None:
    if library() is None:
        pytest.skip("libfaketime is not installed")
    measured = Measured()
    rounds = amount(1, 5)

    async def monitors(number: int, case: Case) -> None:
        name = f"{postgres_server.prefix}_clock_{number}"
        await postgres_server.clone(database_template, name)
        clocks = [
            WrongClock(lane_directory / f"monitor-case-{number}" / f"clock-{place}", said, rate=case.rate)
            for place, said in zip(MONITORS, (case.first, case.second_monitor or "+0"), strict=True)
        ]
        told = {
            place: {**clock.environment, **(BERLIN if case.in_berlin else {})}
            for place, clock in zip(MONITORS, clocks, strict=True)
        }
        plan = _plan(lane_directory / f"monitor-case-{number}", postgres_server.dsn(name), number, told)
        try:
            async with open_pair(plan, measured) as pair:
                await _live_through(pair, case, clocks[0], sample, sometimes, "monitor", rounds)
        finally:
            await postgres_server.drop(name)

    async def database(number: int, case: Case) -> None:
        directory = lane_directory / f"database-case-{number}"
        # The server runs as somebody else, who has to be able to read its clock.
        with tempfile.TemporaryDirectory(prefix="clip-clock-") as place:
            Path(place).chmod(0o755)
            clock = WrongClock(Path(place) / "clock", case.first)
            told = {**clock.environment, **(BERLIN if case.in_berlin else {})}
            async with (
                arranged_postgres(directory / "postgres", {}, told) as server,
                open_pair(_plan(directory, server.dsn(), number, {}), measured) as pair,
            ):
                await _live_through(pair, case, clock, sample, sometimes, "database", rounds)

    lives = [monitors(number, case) for number, case in enumerate(MONITOR_CASES)]
    lives += [database(number, case) for number, case in enumerate(DATABASE_CASES)]
    ended = await asyncio.gather(*lives, return_exceptions=True)
    if problems := [problem for problem in ended if problem is not None]:
        raise BaseExceptionGroup("not every case ended well", problems)
    seconds = [each for kind in measured.takeovers.values() for each in kind]
    figures.tell(
        wrong_clocks=len(MONITOR_CASES) + len(DATABASE_CASES),
        clips=measured.findings.clips,
        takeovers=len(seconds),
        worst_takeover=f"{max(seconds):.1f} s",
        violations=len(measured.findings.violations),
    )
    assert not measured.findings.violations, "\n".join(measured.findings.violations[:50])
    late = {kind: each for kind, each in measured.takeovers.items() if max(each) > TAKEOVER_SECONDS}
    assert not late, late


async def _live_through(
    pair: Pair, case: Case, clock: WrongClock, sample: Path, sometimes: Sometimes, whose: str, rounds: int
) -> None:
    """Clips under a wrong clock, then a jump while others are under way, then the leader dies."""
    kind = f"{whose} {case.name}"
    for _ in range(rounds):
        clock.say(case.first)
        place, epoch = await _with_the_clock(pair)
        sometimes.saw(f"clock of the {whose}", case.name)
        for _ in range(CLIPS):
            await pair.add_clip(sample)
        await _arrive(pair, case, kind)
        if case.then is not None:
            await _jump(pair, case, clock, sample, kind)
            place, epoch = await pair.leading()
        killed_at = time.monotonic()
        pair.supervisor.kill(place)
        if case.then is not None:
            clock.say(case.first)  # back, at the worst of moments
        await pair.replaced(epoch, kind, killed_at)
        if case.then is not None:
            await asyncio.sleep(max(0.0, killed_at + FOLLOWED_SECONDS - time.monotonic()))
        await pair.add_clip(sample)
        await _complete_under_a_right_clock(pair, case, clock, kind)
    await pair.check()
    # Under libfaketime the interpreter now and then spins for ever when it ends; that would be no finding of ours.
    pair.supervisor.is_ending = True
    for place in pair.supervisor.places:
        pair.supervisor.kill(place)


async def _jump(pair: Pair, case: Case, clock: WrongClock, sample: Path, kind: str) -> None:
    """The clock jumps while clips are under way; where it falls back, clips come afterwards."""
    clips = [] if case.falls_back else [await pair.add_clip(sample) for _ in range(CLIPS)]
    assert case.then is not None
    clock.say(case.then)
    # Until every process has read its clock anew.
    await asyncio.sleep(FOLLOWED_SECONDS if case.falls_back else 2.0)
    for _ in range(CLIPS - len(clips)):
        await pair.add_clip(sample)
    await _arrive(pair, case, f"{kind}, after the jump")


async def _complete_under_a_right_clock(pair: Pair, case: Case, clock: WrongClock, kind: str) -> None:
    if case.store_refuses:
        clock.say("+0")
        await asyncio.sleep(2.0)
        # What the store refused waits five minutes for somebody to mend the clock; this is somebody.
        await pair.house.rows.execute("UPDATE clips SET look_at = clock_timestamp() WHERE status <> 'complete'")
    await _complete(pair, f"{kind}, in the end")


async def _arrive(pair: Pair, case: Case, when: str) -> None:
    """Until all clips are as far as they can come: home, or before a store that says what is wrong."""
    if not case.store_refuses:
        await _complete(pair, when)
        return
    waiting = (
        "SELECT id, status, processing_details FROM clips WHERE status <> 'complete' AND NOT (status = 'mp4downloading'"
        " AND processing_details -> 'last_problem' ->> 'code' IS NOT DISTINCT FROM 'store_refused')"
    )
    ends_at = time.monotonic() + SETTLE_SECONDS
    while left := await pair.house.rows.fetch(waiting):
        if time.monotonic() > ends_at:
            pytest.fail(f"{when}: these got stuck: {left}\n{pair.house.logs()}")
        await asyncio.sleep(0.1)


async def _with_the_clock(pair: Pair) -> tuple[Place, int]:
    """Who leads, once it is the first monitor: the one whose clock is wrong, where it is a monitor's."""
    while True:
        place, epoch = await pair.leading()
        if place.name == MONITORS[0]:
            return place, epoch
        pair.supervisor.kill(place)
        await asyncio.sleep(1)


async def _complete(pair: Pair, when: str) -> None:
    try:
        await pair.all_complete()
    except pytest.fail.Exception as problem:
        pytest.fail(f"{when}: {problem}")


def _plan(directory: Path, database: str, number: int, told: dict[str, dict[str, str]]) -> PairPlan:
    chance = random.Random(number)  # noqa: S311 - moments, not secrets
    return PairPlan(directory, database, CANARIES, chance, environments=told)
