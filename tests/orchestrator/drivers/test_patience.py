"""Repeating: as often as said, further apart each time, obedient to named waits, deaf to everything else."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.drivers.object_store_errors import UploadLostError
from orchestrator.drivers.patience import Patience

QUICK = Patience(attempts=4, first_wait_seconds=0.001, longest_wait_seconds=0.002)


class Failing:
    """Fails with each of *failures* in turn, then succeeds."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


async def test_a_passing_failure_is_outlived():
    call = Failing(*[TransientError("x", "x")] * 3)
    assert await QUICK.retrying()(call) == "done"
    assert call.calls == 4


async def test_a_lasting_failure_comes_back_as_it_was():
    call = Failing(*[TransientError(f"{n}", "x") for n in range(9)])
    with pytest.raises(TransientError) as caught:
        await QUICK.retrying()(call)
    assert caught.value.code == "3"


@pytest.mark.parametrize(
    "failure",
    [
        PermanentError("x", "x"),
        ValueError(),
        asyncio.CancelledError(),
        UploadLostError("x", "x"),
        TransientError("x", "x", 31.0),
    ],
    ids=["permanent", "a-bug", "cancelled", "named-as-never", "asks-for-longer-than-we-sleep"],
)
async def test_everything_else_passes_at_once(failure):
    call = Failing(failure)
    with pytest.raises(type(failure)):
        await QUICK.retrying(UploadLostError)(call)
    assert call.calls == 1


async def test_waits_grow_up_to_a_limit_and_obey_a_named_time(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    failures = [TransientError("x", "x") for _ in range(5)] + [TransientError("x", "x", 20.0)]
    retrying = Patience(attempts=9, first_wait_seconds=1.0, longest_wait_seconds=4.0).retrying()
    retrying.sleep = sleep
    await retrying(Failing(*failures))

    for waited, ceiling in zip(waits, [1, 2, 4, 4, 4], strict=False):
        assert ceiling / 2 <= waited <= ceiling
    assert waits[5] == 20.0
