"""The cut pipeline in the simulation: real directories, and an ffmpeg and a prober that take simulated time.

A clip's file says what it is a clip of. What is finished has its name; whoever makes a clip again that has one, breaks
a promise.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orchestrator.assembly
import orchestrator.pipelines.cut.hands
from orchestrator.drivers.probing import Probed
from orchestrator.pipelines.cut.ranges import Range
from orchestrator.pipelines.cut.request import CutRequest
from orchestrator.pipelines.cut.workshop import clip_name
from simulation.crashing import Crashed, CrashingWorld, Kill, counted, happy_scenario

JOB, UPLOAD = "job_1", "up_1"
SHA256 = "5" * 64
SOURCE = b"the bytes of the upload"
RANGES = (Range(0.0, 1.0), Range(2.0, 3.5), Range(4.0, 5.0))
DURATION_SECONDS = 6.0
# In how many steps a clip is written, and how long each takes.
WRITES, WRITE_SECONDS = 3, 0.4
STAGES = ("pending", "prepared", "analyzing", "clipping", "exporting", "finalizing", "complete")


def content(wanted: Range) -> bytes:
    """A whole clip of *wanted*."""
    return json.dumps([wanted.start_seconds, wanted.length_seconds]).encode()


class CuttingWorld(CrashingWorld):
    """One job that cuts an upload into three clips, while monitors are killed at given steps."""

    def __init__(self, kill: Kill, directory: Path) -> None:
        super().__init__(happy_scenario("none"), kill)
        self.uploads, self.work, self.outputs = (directory / name for name in ("uploads", "work", "outputs"))
        for place in (self.uploads, self.work, self.outputs):
            place.mkdir()
        places = {"upload_tmp_dir": self.uploads, "process_work_dir": self.work, "output_root": self.outputs}
        self.ground.settings = self.ground.settings.model_copy(update=places)
        self.truths.of_cut = self._untrue
        (self.uploads / f"{UPLOAD}.{SHA256[:16]}").write_bytes(SOURCE)
        self.database.put("uploads", UPLOAD, self._upload())
        details = {"created_by": "api", **CutRequest(UPLOAD, RANGES).as_details()}
        self.database.insert_clip({"id": JOB, "pipeline": "cut", "processing_details": details})

    def _upload(self) -> dict[str, Any]:
        now = self.now()
        return {
            "id": UPLOAD, "filename": "a.mp4", "size_bytes": len(SOURCE), "sha256": SHA256,
            "created_at": now, "used_at": now,
        }  # fmt: skip

    def run(self) -> Any:
        """Live through it, with the tools of this world in place of the program's."""
        with self._tools():
            return super().run()

    @contextmanager
    def _tools(self) -> Iterator[None]:
        hands = orchestrator.pipelines.cut.hands
        with (
            patch.object(orchestrator.drivers.ffmpeg, "find_ffmpeg", lambda _: "ffmpeg"),
            patch.object(hands, "run_ffmpeg", self._ffmpeg),
            patch.object(hands, "probe", self._probe),
            patch.object(hands, "probe_foreign", self._probe_source),
        ):
            yield

    async def _ffmpeg(
        self, program: str, arguments: Sequence[str], on_seconds: Callable[[float], None], *, patience: Any
    ) -> str:
        start_seconds, length_seconds = (float(arguments[arguments.index(flag) + 1]) for flag in ("-ss", "-t"))
        wanted = Range(start_seconds, start_seconds + length_seconds)
        name = clip_name(RANGES.index(wanted) + 1)
        for finished in (self.work / JOB / name, self.outputs / JOB / name):
            if finished.exists():
                self.checker.complain("a finished clip is not made again", str(finished.name))
        whole = content(wanted)
        for part in range(1, WRITES + 1):
            Path(arguments[-1]).write_bytes(whole[: len(whole) * part // WRITES])
            await asyncio.sleep(WRITE_SECONDS)
            on_seconds(length_seconds * part / WRITES)
        return ""

    async def _probe(self, path: Path, containers: str, *, counts: bool = False) -> Probed:
        await asyncio.sleep(0.01)
        data = path.read_bytes()
        _, length_seconds = json.loads(data)
        return Probed(length_seconds, 160, 90, 0.04, True, len(data), round(length_seconds * 25))

    async def _probe_source(self, path: Path, containers: str) -> Probed:
        await asyncio.sleep(0.05)
        if path.read_bytes() != SOURCE:
            self.checker.complain("an upload is never lost", "the source is not what was uploaded")
        return Probed(DURATION_SECONDS, 160, 90, 0.04, True, len(SOURCE))

    # --- What a status says of the directories ---------------------------------------------------------

    def _untrue(self, row: dict[str, Any]) -> str:
        status, job = row["status"], self.work / JOB
        if status == "prepared" and not (job / "source").exists():
            return "the source is not in the job's directory"
        if status == "exporting" and not self._are_whole(job):
            return "not every clip is cut"
        if status in ("finalizing", "complete") and not self._are_whole(self.outputs / JOB):
            return "not every clip is served"
        return ""

    def _are_whole(self, place: Path) -> bool:
        clips = {clip_name(number): content(wanted) for number, wanted in enumerate(RANGES, 1)}
        return all((place / name).exists() and (place / name).read_bytes() == data for name, data in clips.items())

    def leftovers(self) -> list[tuple[str, Any]]:
        """What is short of the happy end."""
        (row,) = self.database.rows("clips")
        found: list[tuple[str, Any]] = []
        if (row["status"], row["attempt"]) != ("complete", 1):
            found.append(("the job completes", f"{row['status']} ({row['attempt']}): {row['error_message']}"))
        served = sorted(path.name for path in (self.outputs / JOB).iterdir()) if (self.outputs / JOB).exists() else []
        if served != [clip_name(number) for number in range(1, len(RANGES) + 1)]:
            found.append(("exactly the clips are served", served))
        if left := [path.name for path in self.work.iterdir()]:
            found.append(("the work directory is cleared", left))
        if len(list(self.uploads.iterdir())) != 1:
            found.append(("the upload stays", [path.name for path in self.uploads.iterdir()]))
        noted = sorted(each["number"] for each in self.database.rows("artifacts"))
        if noted != [1, 2, 3]:
            found.append(("each clip is noted once", noted))
        return found


def run_cut_crash(kill: Kill) -> Crashed:
    """The happy way of a job with that kill in it; anything but three whole clips counts as a violation."""
    with tempfile.TemporaryDirectory(prefix="cut-sim-", dir=_memory()) as directory:
        world = CuttingWorld(kill, Path(directory))
        crashed = counted(world)
        crashed.outcome.violations += [f"{name}: {text}" for name, text in world.leftovers()]
        return crashed


def _memory() -> str | None:
    """A directory in memory, where there is one: thousands of runs make files."""
    place = Path("/dev/shm")
    return str(place) if place.is_dir() else None
