"""A leader that was frozen, cut off or robbed comes back: the other has taken over, and it writes nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import secrets
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from house import House
from house.checking import Findings, check_database, check_objects
from house.fixtures import open_house
from house.networking import drop, heal, missing_tool, own_network
from house.observing import Logins, leader, logins, observe, slow_writes
from house.postgres import arranged_postgres
from house.supervising import Place, Supervisor, supervised

from lanes.canaries import CANARIES

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

# The promises: a dead leader is replaced within the first, a robbed one yields within the second.
TAKEOVER_SECONDS = 15.0
YIELD_SECONDS = 2.0
# Who sees the database all the time learns of a lost lease at the next renewal.
RENEWAL_SECONDS = 3.0
MONITORS = ("monitor-1", "monitor-2")
RESUMES = ("download", "write", "look", "idle")
HALF_OPEN_ADDRESSES = ("127.0.0.2", "127.0.0.3")
SETTLE_SECONDS = 60.0
MIB = 1024 * 1024


@dataclass
class Measured:
    """Seconds by what was done to the leader: until the other led, and until it gave way itself."""

    takeovers: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    yields: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    findings: Findings = field(default_factory=Findings)

    def worst(self, of: defaultdict[str, list[float]], *kinds: str) -> str:
        """The longest of *kinds*, as a figure."""
        seconds = [each for kind in kinds for each in of[kind]]
        return f"{max(seconds):.1f} s" if seconds else "none"


@dataclass
class Pair:
    """Two monitors on one database, with a provider and a bucket of their own."""

    house: House
    supervisor: Supervisor
    logins: Logins
    chance: random.Random
    measured: Measured
    clips: int = 0

    async def leading(self) -> tuple[Place, int]:
        """Who leads, in which epoch, once one does and the other stands by."""
        async with asyncio.timeout(60):
            while True:
                epoch, login = await leader(self.house.rows)
                for place in self.supervisor.places:
                    if (
                        login is not None
                        and place.has_led(epoch)
                        and all(each.is_up for each in self.supervisor.places)
                    ):
                        return place, epoch
                await asyncio.sleep(0.05)

    async def replaced(self, epoch: int, kind: str, since: float) -> None:
        """Wait until a later term has begun, and note how long that took."""
        async with asyncio.timeout(60):
            while (await leader(self.house.rows))[0] == epoch:
                await asyncio.sleep(0.02)
        self.measured.takeovers[kind].append(time.monotonic() - since)

    async def yielded(self, place: Place, process: Any, epoch: int, kind: str, since: float) -> None:
        """Wait until the loser has said that it leads no longer, or has ended; note how long that took."""
        sentence = f"epoch={epoch}".encode()
        async with asyncio.timeout(60):
            while process.poll() is None and place.process is process:
                lines = [line for line in place.said().splitlines() if b"no longer leading" in line]
                if any(line.endswith(sentence) for line in lines):
                    break
                await asyncio.sleep(0.01)
        self.measured.yields[kind].append(time.monotonic() - since)

    async def add_clip(self, file: Path) -> str:
        """A clip whose bytes are at the provider; returns its uid. No web process is needed for it."""
        self.clips += 1
        stream = self.house.stream
        headers = {"Authorization": f"Bearer {stream.api_token}"}
        url = f"{stream.url}/accounts/{stream.account_id}/stream/direct_upload"
        async with self.house.http.post(url, json={"maxDurationSeconds": 600}, headers=headers) as answer:
            made = (await answer.json())["result"]
        await self.house.upload_form(made["uploadURL"], file)
        statement = "INSERT INTO clips (id, cloudflare_uid, title) VALUES ($1, $2, 'of a pair')"
        await self.house.rows.execute(statement, f"clip-{self.clips}", made["uid"])
        return str(made["uid"])

    async def all_complete(self) -> None:
        """Wait for every clip's good end."""
        ends_at = time.monotonic() + SETTLE_SECONDS
        while left := await self.house.rows.fetch("SELECT id, status, look_at FROM clips WHERE status <> 'complete'"):
            if time.monotonic() > ends_at:
                pytest.fail(f"L1: not everything came home: {left}\n{self.house.logs()}")
            await asyncio.sleep(0.1)


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
            async with _pair(lane_directory / f"pair-{number}", database, chance, measured) as pair:
                kinds = [RESUMES[(number + n) % len(RESUMES)] for n in range(resumes)] + ["killed", "robbed"]
                chance.shuffle(kinds)
                for kind in kinds:
                    await _ROUNDS.get(kind, _resume)(pair, kind, sample, sometimes)
                await slow_writes(pair.house.rows, None)
                pair.house.stream.faults.clear()
                await pair.all_complete()
                await _check(pair)
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
            async with _pair(directory, server.dsn(), chance, measured, HALF_OPEN_ADDRESSES) as pair:
                for _ in range(rounds):
                    await _cut_off(pair, sample)
                    sometimes.saw("half-open connection", "leader")
                await pair.all_complete()
                await _check(pair)
    figures.tell(
        half_open_connections=rounds,
        worst_takeover_half_open=measured.worst(measured.takeovers, "half-open"),
        worst_yield_half_open=measured.worst(measured.yields, "half-open"),
    )
    assert not measured.findings.violations, "\n".join(measured.findings.violations[:50])
    assert max(measured.takeovers["half-open"]) <= TAKEOVER_SECONDS
    # It trusts its own clock, so it has given way before it can see the database again.
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


@asynccontextmanager
async def _pair(
    directory: Path, database: str, chance: random.Random, measured: Measured, hosts: tuple[str, ...] = ()
) -> AsyncIterator[Pair]:
    """Two monitors at work on *database*; through TCP at *hosts* when those are named."""
    directory.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "encode": "copy",
        "webhook_url": None,
        "api_token": CANARIES["api token"],
        "webhook_secret": CANARIES["webhook secret"],
        "rate_limit_count": 6000,
    }
    async with contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(directory, database, options, CANARIES["bucket secret"]))
        house.extra = {"CLOUDFLARE_CALLS": "6000"}
        await observe(house.rows)
        password = CANARIES["database password"]
        known = await stack.enter_async_context(logins(house.rows, database, MONITORS, password))
        stack.push_async_callback(house.close)  # before the logins go: they are in use until then
        addresses = dict(known.by_name)
        for name, host in zip(MONITORS, hosts, strict=False):
            addresses[name] = f"postgresql://{known.login_of(name)}:{password}@{host}:5432/postgres"
        places = [Place(name, "monitor", {"DATABASE_URL": addresses[name]}) for name in MONITORS]
        supervisor = await stack.enter_async_context(supervised(house, places))
        yield Pair(house, supervisor, known, chance, measured)


async def _check(pair: Pair) -> None:
    """No write of a former leader was ever accepted, and all else that was promised of the clips."""

    async def digest(url: str) -> tuple[str, int]:
        found = await pair.house.read(url)
        return hashlib.sha256(found).hexdigest(), len(found)

    async with asyncio.timeout(30):
        while await pair.house.rows.fetchval("SELECT count(*) FROM clip_signals"):
            await asyncio.sleep(0.05)
    of_this = Findings()
    await check_database(pair.house.rows, of_this)
    await check_objects(pair.house.rows, digest, of_this)
    findings = pair.measured.findings
    findings.clips += of_this.clips
    findings.writes += of_this.writes
    findings.violations += of_this.violations + pair.supervisor.complaints
