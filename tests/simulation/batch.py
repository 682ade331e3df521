"""Many runs in one process: what the lanes start, once for each processor.

Reads one job a line from its input, writes one answer a line to its output, both as JSON. A job is ``{"seed": 7}``,
``{"crash": [12, null], "origin": "url"}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

_TESTS = Path(__file__).parents[1]
# What killed processes of a run leave behind is never cleaned up, as it should be: about half a megabyte for each run,
# which slows the later ones down. To start another process takes as long as four runs.
JOBS_OF_A_PROCESS = 250


@dataclass(slots=True)
class Answer:
    """What came of one job."""

    job: dict[str, Any]
    violations: list[str]
    digest: str
    virtual_seconds: float
    met: Counter[str] = field(default_factory=Counter)
    beside: dict[str, Any] = field(default_factory=dict)


def answer_jobs() -> None:
    """The whole life of one such process."""
    from simulation.crashing import Kill, run_crash
    from simulation.cutting import run_cut_crash
    from simulation.loop import settle
    from simulation.world import run_seed

    run_seed(0)
    settle()
    for line in sys.stdin:
        job = json.loads(line)
        beside: dict[str, Any] = {}
        if "crash" in job:
            kill = Kill(*job["crash"])
            crashed = run_cut_crash(kill) if job["origin"] == "cut" else run_crash(kill, job["origin"])
            outcome = crashed.outcome
            beside = {"killed": crashed.killed, "statuses": crashed.statuses, "steps": crashed.steps}
        else:
            outcome = run_seed(job["seed"])
        said = {
            "violations": outcome.violations,
            "digest": outcome.digest,
            "virtual_seconds": outcome.virtual_seconds,
            "met": outcome.met,
            "beside": beside,
        }
        print(json.dumps(said), flush=True)


def run_jobs(
    jobs: Iterable[dict[str, Any]], processes: int | None = None, hash_seed: str = "random"
) -> Iterator[Answer]:
    """The answers to *jobs*, as they come; a process that dies fails loudly."""
    waiting: SimpleQueue[dict[str, Any]] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    answers: SimpleQueue[Answer | BaseException | None] = SimpleQueue()
    count = processes or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as threads:
        for _ in range(count):
            threads.submit(_drive, waiting, answers, hash_seed)
        running = count
        while running:
            answer = answers.get()
            if answer is None:
                running -= 1
            elif isinstance(answer, BaseException):
                while not waiting.empty():
                    waiting.get()
                raise answer
            else:
                yield answer


def _drive(waiting: Any, answers: Any, hash_seed: str) -> None:
    """One process after the other, fed from *waiting* until nothing is left."""
    try:
        while not waiting.empty():
            with _started(hash_seed) as process:
                _feed(process, waiting, answers.put)
    except BaseException as problem:
        answers.put(problem)
    finally:
        answers.put(None)


def _feed(process: subprocess.Popen[str], waiting: Any, take: Callable[[Answer], None]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(JOBS_OF_A_PROCESS):
        try:
            job = waiting.get_nowait()
        except Empty:
            break
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulation broke at {job}; again: python -m simulation {_again(job)}")
        said = json.loads(line)
        said["met"] = Counter(said["met"])
        take(Answer(job=job, **said))
    process.stdin.close()


def _started(hash_seed: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "simulation", "--jobs"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _again(job: dict[str, Any]) -> str:
    return f"crash {job['crash'][0]}" if "crash" in job else str(job["seed"])
