"""One run: the world of one seed, from the first process to the last clip's end, and what was wrong with it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

from aiohttp import web

from orchestrator.monitor.errors import Stalled
from orchestrator.storage.pool import DATABASE_AWAY
from simulation.bucket import BucketOptions, SimulatedBucket
from simulation.chaos import Chaos
from simulation.checking import Checker, Transaction
from simulation.clocks import in_charge
from simulation.cloudflare import SimulatedStream, StreamOptions
from simulation.database import SimulatedDatabase, UnknownStatement
from simulation.endings import Endings
from simulation.loop import SimulationError
from simulation.network import Cut, NetworkedLoop
from simulation.nodes import EPOCH, NODE, Node
from simulation.people import People
from simulation.processes import ACCESS_KEY, ACCOUNT, API_TOKEN, DELIVERY, WEB_HOST, WEBHOOK_SECRET, Ground, settings_of
from simulation.scale import PART_BYTES
from simulation.scenarios import ClipPlan, Happening, Scenario, draw_scenario
from simulation.truths import Truths
from simulation.videos import SimulatedVideo

# All clips must have come to an end so long after the last trouble.
END_SECONDS = 3600.0
# How long the end must last before it is believed: two rounds of the monitor.
REST_SECONDS = 3.0
# A process that was told to stop has this long.
STOP_SECONDS = 30.0


# What a server says of a caller who has gone.
_QUIET = logging.getLogger("simulation.services")
_QUIET.setLevel(logging.CRITICAL)


@dataclass(slots=True)
class Outcome:
    """What came of one run."""

    seed: int
    violations: list[str]
    journal: list[str]
    met: Counter[str]
    virtual_seconds: float
    steps: int
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """The same for the same journal."""
        return hashlib.sha256("\n".join(self.journal).encode()).hexdigest()


@cache
def _warm_up() -> None:
    """Do what a process does once: libraries that are met for the first time draw chance for themselves."""
    World(draw_scenario(0)).run()


def run_seed(seed: int) -> Outcome:
    """The run of *seed*."""
    _warm_up()
    return World(draw_scenario(seed)).run()


class World:
    """Everything of one run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.loop = NetworkedLoop(scenario.seed)
        # What the clock shows at one moment is asked many times.
        self._shown = (0.0, datetime.fromtimestamp(EPOCH, UTC))
        self.chaos = Chaos(self.loop, scenario, self.status_of)
        self.stream = SimulatedStream(
            self.now,
            self.loop.draw("provider"),
            self.chaos,
            StreamOptions(
                account_id=ACCOUNT,
                api_token=API_TOKEN,
                delivery_origin=DELIVERY,
                upload_origin=DELIVERY,
                webhook_secret=WEBHOOK_SECRET,
                calls=scenario.calls,
                window_seconds=scenario.window_seconds,
            ),
            fate=self._fate_of_next,
        )
        options = BucketOptions(access_key_id=ACCESS_KEY, part_least_bytes=PART_BYTES)
        self.bucket = SimulatedBucket(self.now, self.loop.draw("bucket"), self.chaos, options)
        self.database = SimulatedDatabase(self.now)
        self.ground = Ground(self.loop, self.database, self.bucket, self.chaos, settings_of(scenario))
        self.truths = Truths(self.now, self.stream, self.bucket)
        self.checker = Checker(self.now, self.truths, lambda node: node.startswith("monitor"))
        self.people = People(self)
        self.database_away = DATABASE_AWAY
        self.processes: dict[str, Process] = {}
        self.last_trouble_at = 0.0
        self.loop.network.fate = self.chaos.fate
        self._watch_commits()

    # --- What others ask -----------------------------------------------------------------------------

    def now(self) -> datetime:
        """The true time."""
        seconds = self.loop.now
        if self._shown[0] != seconds:
            self._shown = seconds, datetime.fromtimestamp(EPOCH + seconds, UTC)
        return self._shown[1]

    def clip_of(self, uid: str) -> str | None:
        """The id of the clip that has this video."""
        return next((row["id"] for row in self.database.rows("clips") if row["cloudflare_uid"] == uid), None)

    def status_of_clip(self, clip_id: str) -> str:
        """Where it stands by what is committed."""
        row = self.database.row("clips", clip_id)
        return str(row["status"]) if row else ""

    def status_of(self, about: str) -> str:
        """The status of the clip that a call is about: a uid, an object's key, or the mark of a copy."""
        name = about.removeprefix("videos/").removesuffix(".mp4")
        clip_id = self.clip_of(name) or self.clip_of(name.rpartition("-")[0]) or about.partition(".")[0]
        return self.status_of_clip(clip_id)

    def make_video(self, plan: ClipPlan) -> SimulatedVideo:
        """A video that came to the provider by itself."""
        video = self.stream.make("adopted", None, {"clip": plan.number})
        self.stream.receive(video.uid)
        return video

    def _fate_of_next(self, draw: Any) -> Any:
        """Videos get their fates in the order in which they are made."""
        clips = self.scenario.clips
        return clips[len(self.stream.videos) % len(clips)].fate

    def _watch_commits(self) -> None:
        """Hand each commit as a whole to the checker."""
        server = self.database._server
        commit, rows = server.commit, []

        def committed(session: Any) -> None:
            rows.clear()
            commit(session)
            if rows:
                done = Transaction(session.node, list(rows))
                self._note(done)
                self.checker.committed(done)

        self.database.on_commit = lambda *row: rows.append(row)
        server.commit = committed  # type: ignore[method-assign]

    def _note(self, done: Transaction) -> None:
        for before, after in done.changed("clips"):
            if after is not None:
                at = f"{after['status']} {after['progress']} ({after['attempt']}) epoch {after['epoch']}"
                was = f"{before['status']} -> " if before else ""
                self.loop.tell(f"commit by {done.node}: {after['id']} {was}{at} version {after['version']}")

    # --- The run -------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Live through it."""
        with in_charge(self.loop), self.ground.laid():
            asyncio.set_event_loop(self.loop)
            try:
                self.loop.run_until_complete(self.loop.create_task(self._live()))
                Endings(self).check()
            except SimulationError as problem:
                self.checker.complain(type(problem).__name__, str(problem))
            finally:
                self.loop.tell(f"the end after {self.loop.steps} steps")
                outcome = self._outcome()
                self.loop.bury()
        return outcome

    def _outcome(self) -> Outcome:
        figures = Counter({f"move {way}": count for way, count in self.checker.moves.items()})
        figures["signals"] = self.checker.signals_judged
        figures["clips"] = len(list(self.database.rows("clips")))
        return Outcome(
            self.scenario.seed,
            list(self.checker.violations),
            list(self.loop.journal),
            self.chaos.met,
            self.loop.now,
            self.loop.steps,
            figures,
        )

    async def _live(self) -> None:
        for host, app in (
            ("api.stream.example", self.stream.application()),
            ("customer-sim.cloudflarestream.com", self.stream.application()),
            ("bucket.example", self.bucket.application()),
        ):
            await self.loop.spawn(Node(host), _serve(app))
        for number in range(self.scenario.monitors):
            self._start(
                f"monitor-{number + 1}", self.ground.run_monitor, self.scenario.rates[number % len(self.scenario.rates)]
            )
        self._start(WEB_HOST, self.ground.run_web)
        people = Node("people")
        self.loop.spawn(people, self.people.deliver_webhooks())
        bringing = [self.loop.spawn(people, self.people.bring(plan)) for plan in self.scenario.clips]
        for one in self.scenario.happenings:
            self.loop.after(one.at_seconds, self._happen, one, people)
        await asyncio.sleep(self.scenario.trouble_seconds)
        self._heal()
        await self._rest(bringing)

    def _start(self, name: str, run: Any, rate: float = 1.0) -> None:
        process = Process(self, name, run, rate)
        self.processes[name] = process
        process.start()

    def _heal(self) -> None:
        """The end of all trouble: every process runs, clocks are right."""
        self.chaos.stop()
        self.loop.tell("trouble is over")
        self.last_trouble_at = self.loop.now
        for process in self.processes.values():
            process.rate = 1.0
            process.node.is_wall_right = True
            if process.node.is_dead:
                process.start()

    async def _rest(self, bringing: list[asyncio.Task[None]]) -> None:
        """Return when everything has come to an end, or the time for that is over."""
        resting_since = None
        while self.loop.now < self.last_trouble_at + END_SECONDS:
            await asyncio.sleep(0.5)
            if not all(task.done() for task in bringing) or not self._is_at_rest():
                resting_since = None
            elif resting_since is None:
                resting_since = self.loop.now
            elif self.loop.now - resting_since >= REST_SECONDS:
                return
        if stuck := self._unfinished() or [f"{plan} was not made" for plan in bringing if not plan.done()]:
            self.checker.complain("L1 every clip ends", "; ".join(map(str, stuck)))

    def _is_at_rest(self) -> bool:
        if next(iter(self.database.rows("clip_signals")), None) is not None:
            return False
        # An ended clip that is looked at soon is being tidied up; a failed one may be tried again much later.
        soon = self.now() + timedelta(seconds=60)
        rows = list(self.database.rows("clips"))
        return not self._unfinished() and all(row["look_at"] is None or row["look_at"] > soon for row in rows)

    def _unfinished(self) -> list[str]:
        return [
            f"{row['id']} at {row['status']} ({row['attempt']}), looked at again at {row['look_at']}"
            for row in self.database.rows("clips")
            if row["status"] not in ("complete", "error") and not self._may_still_be_uploaded(row)
        ]

    def _may_still_be_uploaded(self, row: Any) -> bool:
        """Whether nobody has sent a byte and somebody still may: a clip that is rightly waited for."""
        video = self.stream.find(row["cloudflare_uid"]) if row["cloudflare_uid"] else None
        is_open = video is not None and video.expires_at is not None and video.expires_at > self.now()
        return is_open and video is not None and video.arrived_at is None and self.chaos.is_over

    # --- What happens at one moment --------------------------------------------------------------------

    def _happen(self, one: Happening, people: Node) -> None:
        if self.chaos.is_over:
            return
        self.loop.tell(f"{one.kind} {one.share:.3f} {one.seconds:.3f}")
        deeds: dict[str, Callable[[Happening], Any]] = {
            "kill": self._kill,
            "pause": self._pause,
            "stop": lambda one: self._chosen(one.share).ask_to_stop(),
            "clock jump": self._jump,
            "cut connections": self._cut,
            "database restart": self._restart_database,
            "api block": lambda _: self.chaos.block(),
        }
        acts: dict[str, Callable[[Happening], Coroutine[Any, Any, None]]] = {
            "forged webhook": self.people.forge,
            "stale signal": self.people.speak_stale,
            "person": self.people.act,
        }
        if one.kind in acts:
            self.loop.spawn(people, acts[one.kind](one), one.kind)
        else:
            self._note_trouble(one.kind)
            deeds[one.kind](one)

    def _note_trouble(self, kind: str) -> None:
        """Where the clips stood when it happened."""
        for row in self.database.rows("clips"):
            self.chaos.saw(kind, row["status"])

    def _chosen(self, share: float) -> Process:
        """Whom it befalls: half of the time the leader, else anybody who lives; the web process when nobody does."""
        leader = self.checker.leader()
        living = [one for one in self.processes.values() if not one.node.is_dead] or [self.processes[WEB_HOST]]
        if leader is not None and share < 0.5:
            return next((one for one in living if one.node.name == leader), living[0])
        return living[int((share * 7919) % len(living))]

    def _kill(self, one: Happening) -> None:
        process = self._chosen(one.share)
        process.kill(vanishes=one.share * 1000 % 1 < 0.3)
        self.loop.after(one.seconds, process.start_if_dead)

    def _pause(self, one: Happening) -> None:
        self.loop.pause(self._chosen(one.share).node, one.seconds)

    def _jump(self, one: Happening) -> None:
        process = self._chosen(one.share)
        jumps = (-86400.0, -3600.0, -30.0, 30.0, 3600.0, 86400.0)
        process.node.wall_seconds += jumps[int(one.share * 6421 % len(jumps))]

    def _cut(self, one: Happening) -> None:
        hosts = [process.node.host for process in self.processes.values()]
        ends = self.loop.network.connections(hosts[int(one.share * 7919 % len(hosts))])
        how = tuple(Cut)[int(one.share * 6421 % len(Cut))]
        for end in ends:
            end.break_off(how)

    def _restart_database(self, one: Happening) -> None:
        self.database.refuse(datetime.fromtimestamp(EPOCH + self.loop.now + one.seconds, UTC))


class Process:
    """One of the program's processes, started again after each end."""

    def __init__(self, world: World, name: str, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], rate: float):
        self._world = world
        self._name = name
        self._run = run
        self._starts = 0
        self.rate = rate
        self.node = Node(f"{name}#0", host=name)
        self.node.is_dead = True
        self._stop = asyncio.Event()

    def start(self) -> None:
        """Start it, as a new node at the same host."""
        self._starts += 1
        self.node = Node(f"{self._name}#{self._starts}", host=self._name, rate=self.rate)
        self._stop = asyncio.Event()
        self._world.loop.spawn(self.node, self._main(self.node, self._stop))

    def start_if_dead(self) -> None:
        """Start it unless somebody has done so."""
        if self.node.is_dead:
            self.start()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        loop, node = self._world.loop, self.node
        loop.after(0.0, self._stop.set, node=node)
        loop.after(STOP_SECONDS / min(1.0, node.rate), self._must_have_ended, node, loop.now)

    def _must_have_ended(self, node: Node, asked_at: float) -> None:
        if not node.is_dead and node.frozen_until < asked_at:
            self._world.checker.complain("L9 a process ends when it is told to", f"{node.name}, told at {asked_at:.1f}")

    async def _main(self, node: Node, stop: asyncio.Event) -> None:
        loop, world = self._world.loop, self._world
        try:
            await self._run(stop)
            ended = "of itself"
        except world.database_away as problem:
            ended = type(problem).__name__
        except UnknownStatement as problem:
            ended = "at a statement that the simulated database does not know"
            world.checker.complain("the simulation knows the program", f"{node.name}: {problem}")
        except Exception as problem:
            ended = repr(problem)
            if not _is_stalled(problem):
                world.checker.complain("a process ends for a known reason", f"{node.name}: {problem!r}")
        except BaseExceptionGroup as problem:
            # A task of a group met such a statement.
            ended = repr(problem)
            world.checker.complain("the simulation knows the program", f"{node.name}: {problem.exceptions!r}")
        loop.tell(f"{node.name} ended: {ended}")
        loop.after(0.0, self.kill)
        loop.after(world.scenario.restart_seconds, self.start_if_dead)

    def kill(self, *, vanishes: bool = False) -> None:
        """kill -9, or the end of the whole machine: then nobody is told."""
        world, node = self._world, self.node
        if node.is_dead:
            return
        world.loop.crash(node)
        world.loop.network.crashed(node, vanished=vanishes)
        # The kernel tells the database at once; keep-alives take some seconds to find that a machine is gone.
        seconds = 12.0 if vanishes else world.loop.network.latency()
        world.loop.after(seconds, partial(world.database.drop, node.name))


def _is_stalled(problem: BaseException) -> bool:
    """Whether a monitor ended because its loop did not come round: it is to be started afresh."""
    inner = problem.exceptions if isinstance(problem, BaseExceptionGroup) else ()
    return isinstance(problem, Stalled) or any(_is_stalled(each) for each in inner)


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None, logger=_QUIET)
    await runner.setup()
    node = NODE.get()
    assert node is not None
    for port in (80, 443):
        await web.TCPSite(runner, node.host, port).start()
