"""The database is ended, frozen, cut off and replaced under two monitors and a web process that are at work."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from house import LIMIT_SECONDS, STOP_SECONDS, House
from house.checking import Findings, Ratchet, check_acknowledged, check_database, check_objects
from house.cluster import make_cluster
from house.fixtures import open_house
from house.observing import Logins, logins, observe
from house.onlookers import Caller, PatientReader
from house.outages import HEARD_SECONDS, HEARD_TRIES, RESUME_SECONDS, Moment, Scene, open_scene, until_heard
from house.pooler import Pooler, find_pgbouncer, open_pooler
from house.relay import BLACK_HOLE, RESET, UNTOUCHED, Treatment, Way
from house.traffic import Asker, Doors
from house.whole import digester, in_background

from lanes.canaries import CANARIES
from orchestrator.storage.migrations import migrate

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

pytestmark = pytest.mark.on_linux

# The provider's limit on a scale of one to ten, so that the budget is not what is waited for.
BUDGET = {"CLOUDFLARE_CALLS": "1200", "CLOUDFLARE_CALLS_WINDOW_SECONDS": "30"}
OPTIONS = {
    "encode": "copy",
    "max_in_flight": 4000,
    "encoders": 2,
    "rate_limit_count": 1200,
    "rate_limit_window_seconds": 30.0,
    "api_token": CANARIES["api token"],
    "webhook_secret": CANARIES["webhook secret"],
}
# What is left when the last fault is over: seconds of work for a few dozen clips, on a machine that may be busy.
SETTLE_SECONDS = 90.0
# A clip a second keeps a dozen on their way, one at each status.
CLIP_PAUSE_SECONDS = 1.0
# Faults wait for a clip that is there until each of these was met: it stays for a fraction of a second, and one comes a
# second, so that a few seconds find it.
AIMED_AT = ("processing", "mp4downloading", "r2_uploading")
AIM_SECONDS = 5.0
# The sweep's second, three times.
LOOKED_SECONDS = 3.0
# Fewer than either process has in its pool, so that transactions of both meet all of them.
SESSIONS = 6
_LISTENING = """
SELECT count(DISTINCT application_name) FROM pg_stat_activity
 WHERE application_name IN ('clip-orchestrator listener', 'clip-orchestrator live')
"""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How often each fault comes."""

    restarts: int
    terminates: int
    freezes: int
    failovers: int
    black_holes: int
    resets: int


CI = Amounts(restarts=10, terminates=5, freezes=2, failovers=1, black_holes=3, resets=4)
RELEASE = Amounts(restarts=60, terminates=100, freezes=20, failovers=20, black_holes=50, resets=50)


async def test_work_resumes_by_itself_and_nothing_is_lost(
    house_directory: Path,
    sample: Path,
    amount: Callable[[Any, Any], Any],
    figures: Figures,
    sometimes: Sometimes,
    commit: str,
) -> None:
    seed = int(os.environ.get("LANE_SEED") or secrets.randbelow(2**32))
    print(f"lane=outages seed={seed} commit={commit}; to repeat: LANE_SEED={seed} python3 run.py lanes outages")
    chance = random.Random(seed)  # noqa: S311 - faults, not secrets
    passwords = (CANARIES["bucket secret"], CANARIES["database password"])
    async with (
        make_cluster(house_directory) as cluster,
        open_scene(house_directory, cluster, OPTIONS, passwords, chance) as (scene, doors),
    ):
        house, findings = scene.house, scene.findings
        house.extra = {**BUDGET}
        asker = Asker(doors)
        caller = Caller(house.http, house.address, findings)
        some = PatientReader(house.http, house.address, Ratchet("a reader of some", findings))
        enough = asyncio.Event()
        await scene.until_served()
        async with in_background(
            scene.readiness.run(), caller.run(), scene.reader.run(), _follow_some(some, scene), _ask(asker, scene)
        ):
            feeding = asyncio.create_task(_feed(scene, doors, sample, enough))
            await _until_at_work(scene)
            await _beat(scene, amount(CI, RELEASE), asker, sometimes)
            enough.set()
            await feeding
            await _settle(scene)
            await _are_told(scene, [scene.reader, some])
        with_hints, without = await _hear(scene)
        rows = await scene.rows()
        await check_database(rows, findings)
        await check_objects(rows, digester(scene.house), findings)
        await check_acknowledged(rows, asker.acknowledged, findings)
        blamed = await rows.fetch("SELECT clip_id, at, details FROM clip_events WHERE kind = 'failed-try'")
        findings.claim(not blamed, f"tries were blamed on clips while the database was away: {blamed}")
        findings.claim(with_hints < HEARD_SECONDS, f"L5: a hint was heard only after {with_hints:.2f} s")
        findings.violations += scene.supervisor.complaints
        figures.tell(
            clips=findings.clips,
            **{name.replace(" ", "_"): count for name, count in sorted(scene.done.items())},
            violations=len(findings.violations),
            worst_seconds_until_work_resumed=f"{max(map(max, scene.resumed_seconds.values())):.1f}",
            worst_by_fault={name: f"{max(all_of):.1f} s" for name, all_of in scene.resumed_seconds.items()},
            acknowledged_signals=len(asker.acknowledged),
            refusals_told=caller.refusals,
            slowest_call=f"{caller.slowest_seconds:.1f} s",
            slowest_word_of_readiness=f"{scene.readiness.slowest_seconds:.1f} s",
            streams_opened=scene.reader.connections + some.connections,
            heard_in=f"{with_hints:.2f} s with hints and {without:.2f} s without",
            seed=seed,
        )
    assert not findings.violations, "\n".join([*findings.violations[:50], house.logs()[-6000:]])
    assert findings.objects == findings.clips


async def test_everything_goes_through_a_pooler_but_listening(
    house_directory: Path, sample: Path, amount: Callable[[Any, Any], Any], figures: Figures, sometimes: Sometimes
) -> None:
    program = find_pgbouncer()
    if program is None:
        pytest.skip("there is no pgbouncer: install it to see the program work through one")
    async with (
        make_cluster(house_directory) as cluster,
        open_pooler(program, cluster, SESSIONS) as pooler,
    ):
        await migrate(cluster.primary.dsn())
        async with (
            open_house(house_directory, cluster.primary.dsn(), {**OPTIONS, "webhook_url": None}) as house,
            logins(house.rows, pooler.dsn(), ("web", "monitors"), CANARIES["database password"]) as known,
        ):
            await observe(house.rows)
            pooler.let_in(known.login_of("web"), known.login_of("monitors"))
            house.database = known.by_name["web"]
            # First with the server's own address to listen at, then without: whatever is missing only takes longer.
            heard_seconds, told = await _go_through(house, sample, amount(8, 200), known, cluster.primary.dsn())
            assert await house.rows.fetchval(_LISTENING) == 2
            await _end_all_processes(house)
            found_seconds, looked = await _go_through(house, sample, amount(4, 100), known, None)
            assert await house.rows.fetchval(_LISTENING) == 0
            said = "".join(log.read_text("utf-8", "replace") for log in house.directory.glob("*.log"))
            assert "no hint can be heard" in said
            assert "set DATABASE_DIRECT_URL" in said
            sometimes.saw("pooler in transaction mode", "with and without an address to listen at")
            resumed_seconds = await _until_work_resumes_after(pooler, house)
            findings = Findings()
            await check_database(house.rows, findings)
            await _end_all_processes(house)
    figures.tell(
        clips_through_a_pooler=findings.clips,
        sessions_of_the_pooler=SESSIONS,
        signal_judged_in=f"{heard_seconds:.2f} s listening and {found_seconds:.2f} s looking",
        event_told=f"{told} and {looked} of all clips",
        seconds_until_work_resumed_after_the_pooler=f"{resumed_seconds:.1f}",
    )
    assert not findings.violations, findings.violations
    assert resumed_seconds <= RESUME_SECONDS
    assert heard_seconds < HEARD_SECONDS
    assert found_seconds < LOOKED_SECONDS


async def _until_work_resumes_after(pooler: Pooler, house: House) -> float:
    """Seconds from the start of a pooler that was killed to the next judgement."""
    clip_id = await house.rows.fetchval("SELECT id FROM clips LIMIT 1")
    await pooler.kill()
    await asyncio.sleep(1)
    await pooler.start()
    async with asyncio.timeout(LIMIT_SECONDS):
        return await until_heard(house.rows, clip_id, notify=False)


async def _go_through(
    house: House, sample: Path, clips: int, known: Logins, listening_at: str | None
) -> tuple[float, int]:
    """Bring so many clips home; seconds to judge a signal when nothing else goes on, and clips whose end was told."""
    house.extra = BUDGET | ({"DATABASE_DIRECT_URL": listening_at} if listening_at else {})
    await house.start_web()
    for _ in range(2):
        house.start("monitor", environment={"DATABASE_URL": known.by_name["monitors"]})
    reader = PatientReader(house.http, house.address, Ratchet("all", findings := Findings()))
    async with in_background(reader.run()):
        made = [await house.create_upload(f"clip {number}") for number in range(clips)]
        await asyncio.gather(*(house.upload_form(each["upload_url"], sample) for each in made))
        done = [await house.until_complete(each["id"]) for each in made]
        assert await house.read(done[0].r2_url) == await house.read(done[0].mp4_url)
        async with asyncio.timeout(LIMIT_SECONDS):
            while any(reader.told.get(clip.id, 0) < clip.version for clip in done):
                await asyncio.sleep(0.1)
        seconds = [await until_heard(house.rows, done[0].id, notify=True) for _ in range(HEARD_TRIES)]
    assert not findings.violations, findings.violations
    return sorted(seconds)[HEARD_TRIES // 2], len(done)


async def _end_all_processes(house: House) -> None:
    for process in house.processes:
        process.terminate()
    for process in house.processes:
        await asyncio.to_thread(process.wait, STOP_SECONDS)
        assert process.returncode == 0, house.logs()


async def _beat(scene: Scene, amounts: Amounts, asker: Asker, sometimes: Sometimes) -> None:
    """All faults in a random order; what replaces the server comes in between, too."""
    faults: list[tuple[str, Callable[[], Awaitable[None]]]] = []

    def plan(count: int, name: str, *ways: Callable[[Scene], Awaitable[None]]) -> None:
        for number in range(count):
            way = ways[number % len(ways)]
            faults.append((f"{name}: {way.__name__.strip('_')}", lambda way=way: way(scene)))  # type: ignore[misc]

    plan(amounts.restarts - 2, "restart", _restart, _restart_in_take_over, _restart, _restart_as_a_leader_is_killed)
    plan(1, "restart", _restart_twice)
    plan(amounts.terminates, "terminate", _end_leader, _end_listener, _end_live_feed, _end_all)
    plan(amounts.freezes, "freeze", _freeze)
    plan(amounts.black_holes, "black hole", _lose_all, _lose_open, _lose_in_take_over)
    plan(amounts.resets, "reset", _reset_open, _reset_for_a_while, _cut, _reset_in_take_over)
    faults += [("failover", lambda: _fail_over(scene, asker))] * amounts.failovers
    scene.chance.shuffle(faults)
    not_met = set(AIMED_AT)
    for name, strike in faults:
        await asyncio.sleep(scene.chance.uniform(0.2, 1.2))
        for status in await _aim(scene, not_met):
            sometimes.saw(name, status)
            not_met.discard(status)
        await strike()


async def _aim(scene: Scene, wanted: set[str]) -> set[str]:
    """The statuses that clips are at: as soon as one is where it is *wanted*, or after a while."""
    ends_at = time.monotonic() + AIM_SECONDS
    rows = await scene.rows()
    while True:
        found = {row["status"] for row in await rows.fetch("SELECT DISTINCT status FROM clips")}
        if not wanted or found & wanted or time.monotonic() > ends_at:
            return found
        await asyncio.sleep(0.01)


async def _restart(scene: Scene) -> None:
    began = Moment.now()
    await _take_down(scene)
    await asyncio.sleep(scene.chance.choice((0.0, 0.2, 1.0, 2.0, 5.0)))
    await scene.cluster.primary.start()
    await scene.resumes("restarts", began)


async def _take_down(scene: Scene) -> None:
    scene.supervisor.database_is_up.clear()
    how = scene.chance.choice((signal.SIGQUIT, signal.SIGQUIT, signal.SIGKILL, signal.SIGINT))
    await scene.cluster.primary.end(how)


async def _restart_twice(scene: Scene) -> None:
    """The second time within a second of the start before."""
    began = Moment.now()
    await _take_down(scene)
    await scene.cluster.primary.start()
    await asyncio.sleep(scene.chance.uniform(0.0, 1.0))
    await _take_down(scene)
    await scene.cluster.primary.start()
    scene.done["restarts"] += 1
    await scene.resumes("restarts", began)


async def _restart_in_take_over(scene: Scene) -> None:
    """The leader is told to stop, the other one takes over, and in between the database goes: the leader may have been
    kept from giving its lease back."""
    began = Moment.now()
    async with _leader_ends(scene):
        await asyncio.sleep(scene.chance.uniform(0.0, 1.0))
        await _take_down(scene)
        await asyncio.sleep(scene.chance.uniform(0.0, 2.0))
        await scene.cluster.primary.start()
        await scene.resumes("restarts in a take-over", began, lease_is_lost=True)


async def _restart_as_a_leader_is_killed(scene: Scene) -> None:
    """Its lease runs out while the database is away, or just after."""
    leader = await scene.leading()
    began = Moment.now()
    if leader is not None:
        scene.supervisor.kill(leader)
    await _take_down(scene)
    await asyncio.sleep(scene.chance.uniform(0.0, 3.0))
    await scene.cluster.primary.start()
    # The lease is of somebody who lives no more, and runs for ten seconds.
    await scene.resumes("restarts after a kill", began, lease_is_lost=True)


@asynccontextmanager
async def _leader_ends(scene: Scene) -> AsyncIterator[None]:
    """The leader has its SIGTERM as the block begins, and has ended well in time when it is over."""
    leader = await scene.leading()
    ending = asyncio.create_task(scene.supervisor.terminate(leader)) if leader is not None else None
    yield
    if ending is not None:
        await ending


async def _end_leader(scene: Scene) -> None:
    leader = await scene.leading()
    login = scene.logins.login_of(leader.name) if leader is not None else ""
    await _terminate(scene, "usename = $1", login)


async def _end_listener(scene: Scene) -> None:
    await _terminate(scene, "application_name = $1", "clip-orchestrator listener")


async def _end_live_feed(scene: Scene) -> None:
    await _terminate(scene, "application_name = $1", "clip-orchestrator live")


async def _end_all(scene: Scene) -> None:
    await _terminate(scene, "application_name LIKE $1", "clip-orchestrator%")


async def _terminate(scene: Scene, which: str, who: str) -> None:
    began = Moment.now()
    ended = await (await scene.rows()).fetchval(
        f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {which}", who
    )
    hears = "application_name" not in which
    await scene.resumes("terminates", began, loses_sessions=False)
    assert ended or hears, f"nobody was there to be ended: {who}"


async def _freeze(scene: Scene) -> None:
    began = Moment.now()
    stopped = scene.cluster.primary.freeze()
    try:
        await asyncio.sleep(scene.chance.uniform(10.0, 14.0))
    finally:
        scene.cluster.primary.thaw(stopped)
    await scene.resumes("freezes", began, loses_sessions=False)


async def _lose_all(scene: Scene) -> None:
    """Nothing gets through, for a while."""
    began = Moment.now()
    scene.relay.treat(BLACK_HOLE)
    await asyncio.sleep(scene.chance.uniform(4.0, 10.0))
    scene.relay.heal()
    await scene.resumes("black holes", began, loses_sessions=False)


async def _lose_open(scene: Scene) -> None:
    """Connections that are open are dead, and nobody says so; new ones are well."""
    began = Moment.now()
    scene.relay.treat(BLACK_HOLE, new=False)
    await scene.resumes("half-open connections", began, lease_is_lost=True)


async def _lose_in_take_over(scene: Scene) -> None:
    began = Moment.now()
    async with _leader_ends(scene):
        await asyncio.sleep(scene.chance.uniform(0.0, 1.0))
        scene.relay.treat(BLACK_HOLE)
        await asyncio.sleep(scene.chance.uniform(2.0, 5.0))
        scene.relay.heal()
        await scene.resumes("black holes in a take-over", began, loses_sessions=False, lease_is_lost=True)


async def _reset_open(scene: Scene) -> None:
    began = Moment.now()
    scene.relay.treat(RESET, new=False)
    await scene.resumes("resets", began)


async def _reset_for_a_while(scene: Scene) -> None:
    began = Moment.now()
    scene.relay.treat(RESET)
    await asyncio.sleep(scene.chance.uniform(0.5, 3.0))
    scene.relay.treat(UNTOUCHED)
    await scene.resumes("resets", began)


async def _cut(scene: Scene) -> None:
    """Connections break off in the middle of an answer, new ones too."""
    began = Moment.now()
    scene.relay.treat(Treatment(down=Way(cut_at_byte=scene.chance.choice((0, 1, 5, 100, 700)))))
    await asyncio.sleep(scene.chance.uniform(0.5, 3.0))
    scene.relay.treat(UNTOUCHED)
    await scene.resumes("cuts", began, loses_sessions=False)


async def _reset_in_take_over(scene: Scene) -> None:
    began = Moment.now()
    async with _leader_ends(scene):
        for _ in range(4):
            scene.relay.treat(RESET, new=False)
            await asyncio.sleep(scene.chance.uniform(0.1, 0.5))
        # Who connects anew is served all the while.
        await scene.resumes("resets in a take-over", began, reads_are_served=True)


async def _fail_over(scene: Scene, asker: Asker) -> None:
    """The server dies, its asynchronous standby is met before and after it is promoted."""
    cluster = scene.cluster
    standby = await cluster.add_standby()
    before = len(asker.acknowledged)
    began = Moment.now()
    scene.supervisor.database_is_up.clear()
    await cluster.primary.end(signal.SIGKILL)
    sent_until = len(asker.acknowledged)
    cluster.primary, scene.relay.upstream = standby, standby.upstream
    await asyncio.sleep(scene.chance.uniform(0.0, 2.0))
    await standby.promote()
    await scene.resumes("failovers", began)
    scene.done["signals lost by failovers"] += await _forget_lost(scene, asker, before, sent_until)


async def _forget_lost(scene: Scene, asker: Asker, before: int, until: int) -> int:
    """Strike off the signals acknowledged just before the failover that the standby never got; their number."""
    rows = await scene.rows()
    found = await rows.fetch(
        "SELECT details ->> 'mark' AS mark FROM clip_events WHERE details ? 'mark'"
        " UNION SELECT details ->> 'mark' FROM clip_signals WHERE details ? 'mark'"
    )
    kept = {row["mark"] for row in found}
    # What the last seconds before held; anything older had long been copied.
    lost = [sent for sent in asker.acknowledged[max(before - 50, 0) : until] if sent[1] not in kept]
    for sent in lost:
        asker.acknowledged.remove(sent)
    return len(lost)


async def _feed(scene: Scene, doors: Doors, sample: Path, enough: asyncio.Event) -> None:
    """Clips made and uploaded until it is enough."""

    async def send(number: int) -> None:
        made = await doors.create(f"clip {number}", sample)
        await scene.house.upload_form(made["upload_url"], sample)
        scene.clip_ids.append(str(made["id"]))

    async with asyncio.TaskGroup() as tasks:
        number = 0
        while not enough.is_set():
            tasks.create_task(send(number))
            number += 1
            await asyncio.sleep(CLIP_PAUSE_SECONDS)


async def _ask(asker: Asker, scene: Scene) -> None:
    """Claims of every kind about any clip, for ever."""
    claims = ("queued", "processing", "stream_ready", "waitformp4", "mp4_processing", "r2_uploading", "complete")
    while True:
        await asyncio.sleep(0.2)
        if scene.clip_ids:
            await asker.ask(scene.chance.choice(scene.clip_ids[-20:]), scene.chance.choice(claims))


async def _follow_some(reader: PatientReader, scene: Scene) -> None:
    while len(scene.clip_ids) < 5:
        await asyncio.sleep(0.1)
    reader.clip_ids = tuple(scene.clip_ids[:5])
    await reader.run()


async def _until_at_work(scene: Scene) -> None:
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(scene.clip_ids) < 5 or await scene.leading() is None:
            await asyncio.sleep(0.1)


async def _settle(scene: Scene) -> None:
    """Without further faults every clip ends well, and every signal is judged."""
    ends_at = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = await scene.rows()
        counts = await rows.fetch("SELECT status, count(*) AS n FROM clips GROUP BY status")
        waiting = await rows.fetchval("SELECT count(*) FROM clip_signals")
        if [row["status"] for row in counts] == ["complete"] and not waiting:
            return
        if time.monotonic() > ends_at:
            stuck = await rows.fetch(
                "SELECT id, status, attempt, look_at - clock_timestamp() AS look_in, tries, pending, processing_details"
                "  FROM clips WHERE status <> 'complete' LIMIT 5"
            )
            pytest.fail(f"L1: not everything came home: {counts}; {stuck}\n{scene.house.logs()[-6000:]}")
        await asyncio.sleep(0.2)


async def _are_told(scene: Scene, readers: list[PatientReader]) -> None:
    """I4, L5: whoever read events all the time knows where everything stands."""
    rows = await (await scene.rows()).fetch("SELECT id, version FROM clips")
    versions = {row["id"]: row["version"] for row in rows}
    ends_at = time.monotonic() + 10
    for reader in readers:
        wanted = {clip_id: versions[clip_id] for clip_id in reader.clip_ids or versions}
        while any(reader.told.get(clip_id, 0) < version for clip_id, version in wanted.items()):
            if time.monotonic() > ends_at:
                missed = sum(reader.told.get(clip_id, 0) < version for clip_id, version in wanted.items())
                scene.findings.violations.append(f"an event reader missed the last change of {missed} clips")
                break
            await asyncio.sleep(0.1)


async def _hear(scene: Scene) -> tuple[float, float]:
    """The median time to judge a signal, with a hint and without, when nothing else wakes the monitor."""
    rows = await scene.rows()
    clip_id = scene.clip_ids[0]
    both = []
    for notify in (True, False):
        seconds = [await until_heard(rows, clip_id, notify=notify) for _ in range(HEARD_TRIES)]
        both.append(sorted(seconds)[HEARD_TRIES // 2])
    return both[0], both[1]
