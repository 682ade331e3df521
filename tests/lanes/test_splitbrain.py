"""A leader that was frozen, cut off or robbed comes back: the other has taken over, and it writes nothing more."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from house.networking import drop, heal, missing_tool, own_network
from house.observing import slow_writes
from house.pairs import MONITORS, Measured, Pair, PairPlan, open_pair
from house.postgres import arranged_postgres
from house.supervising import Place

from lanes.canaries import CANARIES

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

# The promises: a dead leader is replaced within the first, a robbed one yields within the second.
TAKEOVER_SECONDS = 15.0
YIELD_SECONDS = 2.0
# Who sees the database all the time learns of a lost lease at the next renewal.
RENEWAL_SECONDS = 3.0
RESUMES = ("download", "write", "look", "idle")
HALF_OPEN_ADDRESSES = ("127.0.0.2", "127.0.0.3")


async def test_a_frozen_killed_or_robbed_leader_is_replaced_and_writes_nothing_more(
    postgres_server: Any,
    database_template: str,
    lane_directory: Path,
    sample: Path,
    amount: Callable[[Any, Any], Any],
    figures: Figures,
    sometimes: Sometimes,
    commit: str,
) -> None:
    seed = int(os.environ.get("LANE_SEED") or secrets.randbelow(2**32))
    print(f"lane=splitbrain seed={seed} commit={commit}; LANE_SEED={seed} python3 run.py lanes splitbrain", flush=True)
    pairs, resumes = amount((5, 4), (5, 40))
    measured = Measured()

    async def run(number: int) -> None:
        chance = random.Random(seed + number)  # noqa: S311 - faults, not secrets
        name = f"{postgres_server.prefix}_pair_{number}"
        await postgres_server.clone(database_template, name)
        database = postgres_server.dsn(name)
        try:
            async with open_pair(
                PairPlan(lane_directory / f"pair-{number}", database, CANARIES, chance), measured
            ) as pair:
                kinds = [RESUMES[(number + n) % len(RESUMES)] for n in range(resumes)] + ["killed", "robbed"]
                chance.shuffle(kinds)
                for kind in kinds:
                    await _ROUNDS.get(kind, _resume)(pair, kind, sample, sometimes)
                await slow_writes(pair.house.rows, None)
                pair.house.stream.faults.clear()
                await pair.all_complete()
                await pair.check()
        finally:
            await postgres_server.drop(name)

    async with asyncio.TaskGroup() as tasks:
        for number in range(pairs):
            tasks.create_task(run(number))
    takeovers, yields, findings = measured.takeovers, measured.yields, measured.findings
    figures.tell(
        resumes=sum(len(yields[kind]) for kind in RESUMES),
        stale_writes_accepted=len(findings.violations),
        worst_takeover_after_SIGSTOP=measured.worst(takeovers, *RESUMES),
        worst_takeover_after_SIGKILL=measured.worst(takeovers, "killed"),
        worst_yield_after_SIGCONT=measured.worst(yields, *RESUMES),
        worst_yield_when_robbed=measured.worst(yields, "robbed"),
        clips=findings.clips,
        writes_checked=findings.writes,
        seed=seed,
    )
    assert not findings.violations, "\n".join(findings.violations[:50])
    for kind, seconds in takeovers.items():
        assert max(seconds) <= TAKEOVER_SECONDS, f"{kind}: {seconds}"
    for kind, seconds in yields.items():
        limit = YIELD_SECONDS + (RENEWAL_SECONDS if kind == "robbed" else 0)
        assert max(seconds) <= limit, f"{kind}: {seconds}"


async def _resume(pair: Pair, kind: str, sample: Path, sometimes: Sometimes) -> None:
    """Freeze the leader in the midst of something until the other leads, then let it go on."""
    place, epoch = await pair.leading()
    process = place.process
    assert process is not None
    rows = pair.house.rows
    await _MOMENTS[kind](pair, place, sample)
    place.is_stopped = True
    process.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    status = await rows.fetchval("SELECT status FROM clips ORDER BY created_at DESC LIMIT 1")
    sometimes.saw(f"SIGSTOP in the midst of a {kind}", str(status))
    await slow_writes(rows, None)
    await pair.replaced(epoch, kind, stopped_at)
    await asyncio.sleep(pair.chance.uniform(0, 2))
    pair.house.stream.faults.clear()
    process.send_signal(signal.SIGCONT)
    continued_at = time.monotonic()
    place.is_stopped = False
    place.stopped_seconds = continued_at - stopped_at
    await pair.yielded(place, process, epoch, kind, continued_at)


async def _in_a_download(pair: Pair, place: Place, sample: Path) -> None:
    """Until bytes of an MP4 flow, slowly enough that the end is far."""
    pair.house.stream.faults.set(mp4_slow={"bytes_per_second": 8_000})
    uid = await pair.add_clip(sample)
    async with asyncio.timeout(30):
        while not pair.house.stream.traffic.of(uid).bytes_sent:
            await asyncio.sleep(0.02)


async def _in_a_write(pair: Pair, place: Place, sample: Path) -> None:
    """Until the database is at work on a write of the leader's."""
    await slow_writes(pair.house.rows, 1.0)
    await pair.add_clip(sample)
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'"
    async with asyncio.timeout(30):
        while not await pair.house.rows.fetchval(asleep, pair.logins.login_of(place.name)):
            await asyncio.sleep(0.01)


async def _in_a_look(pair: Pair, place: Place, sample: Path) -> None:
    """Until the provider is being asked, and takes its time."""
    faults = pair.house.stream.faults
    faults.set(api_slow={"seconds": 3.0, "route": "GET /stream"})
    await pair.add_clip(sample)
    async with asyncio.timeout(30):
        while not faults.as_json()["bitten"]:
            await asyncio.sleep(0.01)


async def _at_rest(pair: Pair, place: Place, sample: Path) -> None:
    """Some moment of a life."""
    await pair.add_clip(sample)
    await asyncio.sleep(pair.chance.uniform(0, 3))


_MOMENTS = {"download": _in_a_download, "write": _in_a_write, "look": _in_a_look, "idle": _at_rest}


async def _kill(pair: Pair, kind: str, sample: Path, sometimes: Sometimes) -> None:
    """SIGKILL; the supervisor starts it anew, and it may be the one that leads next."""
    place, epoch = await pair.leading()
    await pair.add_clip(sample)
    killed_at = time.monotonic()
    pair.supervisor.kill(place)
    sometimes.saw("SIGKILL of the leader")
    await pair.replaced(epoch, kind, killed_at)


async def _rob(pair: Pair, kind: str, sample: Path, sometimes: Sometimes) -> None:
    """The lease is given to nobody that there is, for a moment."""
    place, epoch = await pair.leading()
    await pair.add_clip(sample)
    await asyncio.sleep(pair.chance.uniform(0, 3))
    robbed_at = time.monotonic()
    taken = await pair.house.rows.execute(
        "UPDATE monitor_lease SET holder = 'nobody', epoch = epoch + 1, taken_at = clock_timestamp(),"
        " expires_at = clock_timestamp() + interval '6 s' WHERE epoch = $1",
        epoch,
    )
    assert taken == "UPDATE 1", "somebody else led meanwhile"
    sometimes.saw("lease forced away")
    await pair.yielded(place, place.process, epoch, kind, robbed_at)


_ROUNDS = {"killed": _kill, "robbed": _rob}


async def test_a_leader_on_a_half_open_connection_is_replaced(
    lane_directory: Path,
    sample: Path,
    amount: Callable[[Any, Any], Any],
    figures: Figures,
    sometimes: Sometimes,
) -> None:
    """Its packets to the database vanish, both ways, without a FIN or RST: real TCP, in a network of its own."""
    if reason := missing_tool():
        pytest.skip(reason)
    measured = Measured()
    rounds = amount(2, 10)
    directory = lane_directory / "half-open"
    with own_network():
        settings = {"listen_addresses": ",".join(HALF_OPEN_ADDRESSES)}
        async with arranged_postgres(directory / "postgres", settings, {}) as server:
            chance = random.Random(rounds)  # noqa: S311 - moments, not secrets
            plan = PairPlan(directory, server.dsn(), CANARIES, chance, HALF_OPEN_ADDRESSES)
            async with open_pair(plan, measured) as pair:
                for _ in range(rounds):
                    await _cut_off(pair, sample)
                    sometimes.saw("half-open connection", "leader")
                await pair.all_complete()
                await pair.check()
    figures.tell(
        half_open_connections=rounds,
        worst_takeover_half_open=measured.worst(measured.takeovers, "half-open"),
        worst_yield_half_open=measured.worst(measured.yields, "half-open"),
    )
    assert not measured.findings.violations, "\n".join(measured.findings.violations[:50])
    assert max(measured.takeovers["half-open"]) <= TAKEOVER_SECONDS
    # It knows by its own clock that its term is over; what is left are waits for a peer that does not answer.
    assert max(measured.yields["half-open"]) <= YIELD_SECONDS


async def _cut_off(pair: Pair, sample: Path) -> None:
    place, epoch = await pair.leading()
    process = place.process
    pair.house.stream.faults.set(mp4_slow={"bytes_per_second": 8_000})
    await pair.add_clip(sample)
    await asyncio.sleep(pair.chance.uniform(0, 3))
    address = HALF_OPEN_ADDRESSES[MONITORS.index(place.name)]
    drop(address)
    cut_at = time.monotonic()
    try:
        await pair.replaced(epoch, "half-open", cut_at)
    finally:
        heal()
    pair.house.stream.faults.clear()
    await pair.yielded(place, process, epoch, "half-open", time.monotonic())
