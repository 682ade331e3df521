"""A monitor is killed at every single step of a clip's way, and the one that ends the clip is killed, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from simulation.batch import Answer, run_jobs

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

# Later than the last step of any run: nobody is killed.
NEVER = 10**9
# By what is killed on its way: a clip of the stream pipeline that the provider fetches, a job of the cut pipeline.
STATUSES = {
    "url": (
        "uploading",
        "queued",
        "processing",
        "stream_ready",
        "waitformp4",
        "mp4downloading",
        "r2_uploading",
        "complete",
    ),
    "cut": ("pending", "prepared", "analyzing", "clipping", "exporting", "finalizing", "complete"),
}
PIPELINES = {"url": "stream", "cut": "cut"}
SHOWN = 20


def _job(origin: str, first: int, second: int | None = None) -> dict[str, Any]:
    return {"crash": [first, second], "origin": origin}


def steps_of_the_happy_way(origin: str) -> int:
    """How many steps a monitor takes from its start until the clip is complete and nothing is left to do."""
    (answer,) = run_jobs([_job(origin, NEVER)])
    assert not answer.violations, answer.violations
    return int(answer.beside["steps"]["monitor-1#1"])


def second_steps(steps: int, per_step: int) -> Iterator[tuple[int, int]]:
    """Pairs: each first step, and some steps of the recovery after it."""
    draw = Random("second steps")  # noqa: S311 - the same in every run, no secret
    for first in range(1, steps + 1):
        for _ in range(per_step):
            # As long as what is left of the way, and the wait for the dead one's lease before it.
            yield first, draw.randint(1, max(100, steps - first))


@pytest.mark.parametrize("origin", STATUSES)
def test_a_killed_monitor_leaves_nothing_that_the_next_does_not_end_right(
    origin: str, amount: Callable[[Any, Any], Any], figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    steps = steps_of_the_happy_way(origin)
    pairs = list(second_steps(steps, amount(1, 20)))
    jobs = [_job(origin, step) for step in range(1, steps + 1)] + [_job(origin, *pair) for pair in pairs]
    broken: list[Answer] = []
    killed: Counter[str] = Counter()
    twice = 0
    for answer in run_jobs(jobs):
        killed.update(answer.beside["statuses"])
        twice += len(answer.beside["killed"]) == 2
        if answer.violations or not answer.beside["killed"]:
            broken.append(answer)
    for status, times in killed.items():
        sometimes.saw("killed at a step", status, times)
    name = PIPELINES[origin]
    figures.tell(
        **{
            f"steps of {name} killed": steps,
            f"killed again in recovery of {name}": twice,
            f"not ended right of {name}": len(broken),
        }
    )
    if broken:
        pytest.fail("\n".join(_told(answer, commit) for answer in broken[:SHOWN]), pytrace=False)
    assert set(STATUSES[origin]) <= set(killed), f"nobody was killed at {set(STATUSES[origin]) - set(killed)}"
    assert twice > len(pairs) / 2


def _told(answer: Answer, commit: str) -> str:
    steps = " ".join(str(step) for step in answer.job["crash"] if step is not None)
    lines = [f"lane=crashes steps={steps} commit={commit}", *answer.violations[:3]]
    return "\n  ".join(
        [*lines, f"again: PYTHONPATH=tests .venv/bin/python -m simulation crash {answer.job['origin']} {steps}"]
    )
