"""Runs lanes, side by side as far as they allow it, and prints each one's figures as a table.

    python3 run.py lanes                  every lane, in the amounts that CI runs
    python3 run.py lanes --long           every lane, in the amounts of a release
    python3 run.py lanes kills database   these alone
    python3 run.py lanes --long --fresh   forget what an interrupted long run of `simulation` has found
    python3 run.py lanes --list           what each lane proves

A failed lane says how to repeat the failure. One that keeps times, and was late, is run once more with the machine to
itself, and the table says so; one that failed for anything else, or saw an invariant broken, has failed. What each lane
has written stays in build/lanes until the next run. A long run of `simulation` that was interrupted goes on where it
was, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lanes.registry import LANES, Lane, Machine

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "lanes"
# How far those that only compute give way to those that keep times.
NICENESS = 10
# As findings name what may never be, and what came too late. Only lateness is excused by a second run, and only where
# nothing else was seen: a failure that names neither may be anything.
_INVARIANT = re.compile(rb"\bI\d{1,2}:")
_LATE = re.compile(rb"^E .*(?:\bL\d{1,2}:|\bTimeoutError\b)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """How one lane ended; *figures* are its own words and numbers."""

    lane: Lane
    passed: bool
    seconds: float
    figures: dict[str, object]
    was_late: bool = False
    """It failed, and nothing worse than lateness was seen."""


def main() -> int:
    """Run what was asked for; 0 when all of it passed."""
    wanted, switches, lists = _arguments()
    if lists:
        for lane in LANES:
            print(f"{lane.name:12} {lane.proves}{' (only with --long)' if lane.only_long else ''}")
        return 0
    # What the lane that counts the faults goes by: lanes that ran another time prove nothing of this one.
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / "invocation.json").write_text(json.dumps([lane.name for lane in wanted]))
    started = time.monotonic()
    results = _run_all(wanted, switches)
    _summarize(results, time.monotonic() - started)
    return 0 if all(result.passed for result in results) else 1


def _run_all(wanted: list[Lane], switches: list[str]) -> list[Result]:
    """Those that keep times one after another, what computes beside them; then those that want the machine alone."""
    results: list[Result] = []
    lock = threading.Lock()

    def run(lane: Lane) -> None:
        # Where several run at once, those that only compute say nothing before their end.
        result = _run(lane, switches, streams=lane.machine is not Machine.SHARED or len(wanted) == 1)
        with lock:
            results.append(result)
            print(f"lane {_line(result)}", flush=True)

    ordinary = [lane for lane in wanted if not lane.is_last]
    with ThreadPoolExecutor(os.cpu_count() or 1) as beside:
        computing = beside.map(run, [lane for lane in ordinary if lane.machine is Machine.SHARED])
        for lane in ordinary:
            if lane.machine is Machine.TIMED:
                run(lane)
        list(computing)
    for lane in ordinary:
        if lane.machine is Machine.QUIET:
            run(lane)
    for late in [result for result in results if result.was_late]:
        print(f"lane {late.lane.name} was late; once more, with the machine to itself", flush=True)
        results.remove(late)
        run(late.lane)
        results[-1].figures["run"] = "second"
    for lane in wanted:
        if lane.is_last:
            run(lane)
    return results


def _arguments() -> tuple[list[Lane], list[str], bool]:
    parser = argparse.ArgumentParser(
        prog="run.py lanes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="LANE", help="the lanes to run; all when none is named")
    parser.add_argument("--long", action="store_true", help="the amounts of a release")
    parser.add_argument("--fresh", action="store_true", help="begin a long run of the simulation anew")
    parser.add_argument("--list", action="store_true", help="say what each lane proves")
    arguments = parser.parse_args()
    known = {lane.name: lane for lane in LANES}
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"there is no lane {', '.join(unknown)}; there are {', '.join(known)}")
    wanted = [known[name] for name in arguments.names] or [
        lane for lane in LANES if arguments.long or not lane.only_long
    ]
    switches = [f"--{name}" for name in ("long", "fresh") if getattr(arguments, name)]
    return wanted, switches, arguments.list


def _run(lane: Lane, switches: list[str], *, streams: bool) -> Result:
    directory = KEPT / lane.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/lanes/test_{lane.name}.py"]
    command += [f"--lane-directory={directory}", *switches]
    print(f"lane {lane.name}: {lane.proves}", flush=True)
    started = time.monotonic()
    limit_minutes = lane.long_limit_minutes if "--long" in switches else lane.limit_minutes
    code = _call(command, directory / "output.txt", limit_minutes * 60, streams=streams, gives_way=_gives_way(lane))
    seconds = time.monotonic() - started
    if code != 0 and not streams:
        print((directory / "output.txt").read_text("utf-8", "replace"), flush=True)
    figures = directory / "figures.json"
    said = json.loads(figures.read_text()) if figures.exists() else {}
    was_late = code != 0 and not _gives_way(lane) and tells_of_lateness_alone((directory / "output.txt").read_bytes())
    return Result(lane, code == 0, seconds, said, was_late)


def tells_of_lateness_alone(output: bytes) -> bool:
    """Whether what a failed lane has written names lateness, and no invariant that was broken."""
    return _LATE.search(output) is not None and _INVARIANT.search(output) is None


def _gives_way(lane: Lane) -> bool:
    """Whether it only computes."""
    return lane.machine is Machine.SHARED


def _call(command: list[str], output: Path, limit_seconds: float, *, streams: bool, gives_way: bool) -> int:
    """The exit code; what the lane says goes to *output*, and is shown meanwhile when it *streams*."""
    # A group of its own: what the lane started ends with it.
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    if gives_way:
        _give_way(process.pid)
    timer = threading.Timer(limit_seconds, _end, [process, output, limit_seconds])
    timer.start()
    try:
        with output.open("ab") as kept:
            assert process.stdout is not None
            for line in process.stdout:
                kept.write(line)
                if streams:
                    sys.stdout.buffer.write(line)
                    sys.stdout.flush()
        return process.wait()
    finally:
        timer.cancel()
        _kill_group(process.pid)


def _give_way(pid: int) -> None:
    """Lower the priority of a process that leads a session; Linux may weigh sessions against each other, too."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))


def _end(process: subprocess.Popen[bytes], output: Path, limit_seconds: float) -> None:
    print(f"the lane was ended: it had not finished after {limit_seconds / 60:.0f} minutes", flush=True)
    _kill_group(process.pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _line(result: Result) -> str:
    said = ", ".join(f"{value} {name}" for name, value in result.figures.items())
    return f"{result.lane.name}: {'passed' if result.passed else 'FAILED'} in {result.seconds:.0f} s: {said}"


def _summarize(results: list[Result], seconds: float) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"\nlanes at {commit or 'an unknown commit'}:")
    for result in results:
        print(f"  {_line(result)}")
    failed = [result.lane.name for result in results if not result.passed]
    work = sum(result.seconds for result in results)
    told = f"{work / 60:.1f} minutes of work in {seconds / 60:.1f} minutes on {os.cpu_count()} processors"
    print(f"{len(results) - len(failed)} lanes passed, {told}", flush=True)
    if failed:
        print(f"failed; to repeat: python3 run.py lanes {' '.join(failed)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
