"""One clip on its happy way, and a monitor that is killed at one of its steps; a fresh one has to end it right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulation.nodes import Node
from simulation.scenarios import ClipPlan, Scenario
from simulation.videos import Fate
from simulation.world import Outcome, World

# The seed of the one run that is killed at each of its steps: any would do, for nothing goes wrong in it by itself.
SEED = 1
# As long as it takes to be seen being encoded, and to be looked for at its address in vain; three parts.
_QUICK = Fate(downloading_seconds=1.0, queued_seconds=1.0, encoding_seconds=14.0, mp4_seconds=12.0, size_bytes=2_500)


@dataclass(frozen=True, slots=True)
class Kill:
    """The *first* monitor is killed at this step of its own; the one after it at step *second*, where one is named."""

    first: int
    second: int | None = None


def happy_scenario(origin: str = "url") -> Scenario:
    """One clip (none with the origin `none`), one monitor at a time, and nothing that goes wrong."""
    clip = ClipPlan(number=0, origin=origin, at_seconds=0.0, fate=_QUICK, upload_seconds=0.5)
    return Scenario(
        seed=SEED,
        monitors=1,
        clips=() if origin == "none" else (clip,),
        troubles=frozenset(),
        trouble_seconds=0.0,
        rate=0.0,
        restart_seconds=0.2,
    )


class CrashingWorld(World):
    """A world in which monitors are killed at given steps."""

    def __init__(self, scenario: Scenario, kill: Kill) -> None:
        super().__init__(scenario)
        self._at = {"monitor-1#1": kill.first, "monitor-1#2": kill.second}
        self.killed: list[str] = []
        self.statuses: list[str] = []
        self.loop.on_step = self._step

    def _step(self, node: Node) -> None:
        if self._at.get(node.name) == node.steps:
            self.killed.append(node.name)
            self.statuses += [row["status"] for row in self.database.rows("clips")] or ["no clip yet"]
            process = self.processes["monitor-1"]
            process.kill()
            self.loop.after(self.scenario.restart_seconds, process.start_if_dead)


@dataclass(slots=True)
class Crashed:
    """What came of one kill, or of two."""

    outcome: Outcome
    killed: list[str]
    statuses: list[str]
    steps: dict[str, int]

    @property
    def violations(self) -> list[str]:
        return self.outcome.violations


def run_crash(kill: Kill, origin: str = "url") -> Crashed:
    """The happy way with that kill in it; anything but a complete clip counts as a violation."""
    world = CrashingWorld(happy_scenario(origin), kill)
    crashed = counted(world)
    crashed.outcome.violations += [f"{name}: {text}" for name, text in _not_happy(world)]
    return crashed


def counted(world: CrashingWorld) -> Crashed:
    """Run *world* and count the steps of each process."""
    nodes: dict[str, Node] = {}
    before = world.loop.on_step

    def count(node: Node) -> None:
        nodes[node.name] = node
        if before is not None:
            before(node)

    world.loop.on_step = count
    outcome = world.run()
    return Crashed(outcome, world.killed, world.statuses, {name: node.steps for name, node in nodes.items()})


def _not_happy(world: World) -> list[tuple[str, Any]]:
    """What is short of the happy end: complete in the first attempt, every effect once."""
    rows = list(world.database.rows("clips"))
    found: list[tuple[str, Any]] = [
        ("the clip completes", f"{row['status']} ({row['attempt']})")
        for row in rows
        if (row["status"], row["attempt"]) != ("complete", 1)
    ]
    videos = list(world.stream.videos.values())
    if len(rows) != 1 or len(videos) != 1:
        found.append(("one clip, one video", f"{len(rows)}, {len(videos)}"))
    found += [("the MP4 is made once", f"{video.mp4_makes}") for video in videos if video.mp4_makes != 1]
    found += [("one object", key) for key, stored in world.bucket.history.items() if len({s.body for s in stored}) != 1]
    return found
